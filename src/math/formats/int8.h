// SPDX-License-Identifier: Apache-2.0
// One byte an element through the dynamic map, a float absmax a block (bitsandbytes' layout). These
// functions are the definition; the SIMD ones in cpu/ give the same bits.
#pragma once

#include <algorithm>
#include <bit>
#include <limits>

#include "math/formats/format.h"
#include "math/maps/dynamic8.h"
#include "math/scalar.h"

namespace nibble::math {

struct Int8 {
  static constexpr const char* kDtype = "U8";
  static constexpr bool kBlockWise = true;
  static constexpr float kAbsmaxFloor = 1e-38F;  // keeps the reciprocal finite

  static constexpr std::int64_t packed_bytes(std::int64_t n) { return n; }
  static constexpr const CodeMap& map(bool is_signed) {
    return is_signed ? kDynamic8Signed : kDynamic8Unsigned;
  }
  static constexpr std::uint8_t zero_code(bool is_signed) {
    return static_cast<std::uint8_t>(map(is_signed).zero);
  }

  static void decode(bool is_signed, const std::uint8_t* codes, float absmax, std::int64_t n,
                     float* out) {
    const CodeMap& table = map(is_signed);
    for (std::int64_t i = 0; i < n; ++i) {
      out[i] = table.value[codes[i]] * absmax;
    }
  }

  // The largest |x|, NaN apart; its bits order as integers, so any order of reduction gives it.
  static float block_absmax(const float* x, std::int64_t n) {
    std::uint32_t largest = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const std::uint32_t bits = std::bit_cast<std::uint32_t>(x[i]) & 0x7fffffffU;
      largest = std::max(largest, bits <= 0x7f800000U ? bits : 0U);
    }
    return std::bit_cast<float>(largest);
  }

  static std::uint8_t encode_one(const CodeMap& table, float x, float reciprocal,
                                 Rounding rounding) {
    const float product = x * reciprocal;  // NaN passes through the comparisons
    const float scaled = product < -1.0F ? -1.0F : (product > 1.0F ? 1.0F : product);
    const std::uint8_t code = nearest_code(table, scaled);
    if (rounding == Rounding::kSafe && !table.is_signed && code == 0 && x > 0.0F) {
      return 1;
    }
    return code;
  }

  // With kSafe a block that holds infinities is saturated (absmax is the largest float) and NaN
  // becomes zero: one bad element must not poison its block for the rest of the run.
  static void encode(bool is_signed, const float* x, std::int64_t n, Rounding rounding,
                     std::uint8_t* codes, float* absmax) {
    const CodeMap& table = map(is_signed);
    const float limit = std::numeric_limits<float>::max();
    const bool safe = rounding == Rounding::kSafe;
    float largest = block_absmax(x, n);
    largest = safe ? std::min(largest, limit) : largest;
    const float reciprocal = 1.0F / std::max(largest, kAbsmaxFloor);
    for (std::int64_t i = 0; i < n; ++i) {
      float value = x[i];
      if (safe) {
        value = value != value ? 0.0F : std::clamp(value, -limit, limit);
      }
      codes[i] = encode_one(table, value, reciprocal, rounding);
    }
    *absmax = largest;
  }
};

}  // namespace nibble::math
