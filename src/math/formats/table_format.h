// SPDX-License-Identifier: Apache-2.0
// Formats whose codes are those of a map, with a float scale a block: scale = absmax / the map's
// largest value. These functions are the definition; the SIMD ones in cpu/ give the same bits.
//
// A format derives from TableFormat<itself, bits> and says kDtype, kDefaultBlock and
// map(is_signed). It may replace safe_code() (the code of a scaled value under Rounding::kSafe) and
// kTie (what happens between two values of that format where no peer's mode says otherwise).
#pragma once

#include <algorithm>
#include <bit>
#include <limits>

#include "math/formats/format.h"
#include "math/host_device.h"
#include "math/maps/code_map.h"
#include "math/scalar.h"

namespace nibble::math {

inline constexpr float kScaleFloor = 1e-38F;  // keeps the reciprocal finite
inline constexpr float kTorchaoAbsmaxFloor = 1e-12F;

// The largest |x|, NaN apart; its bits order as integers, so any order of reduction gives it.
constexpr float block_absmax(const float* x, std::int64_t n) {
  std::uint32_t largest = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(x[i]) & 0x7fffffffU;
    largest = std::max(largest, bits <= 0x7f800000U ? bits : 0U);
  }
  return std::bit_cast<float>(largest);
}

// Under kSafe one bad element must not poison its block for the rest of the run.
constexpr float saturated(float x) {
  constexpr float kLimit = std::numeric_limits<float>::max();
  return x != x ? 0.0F : std::clamp(x, -kLimit, kLimit);
}

// The scale that a block with this largest magnitude stores, and the factor of its values.
struct BlockScale {
  float stored;
  float reciprocal;

  static constexpr BlockScale of(float absmax, float top, Rounding rounding) {
    if (rounding == Rounding::kTorchao) {
      absmax = std::max(absmax, kTorchaoAbsmaxFloor);
    } else if (rounding == Rounding::kSafe) {
      absmax = std::min(absmax, std::numeric_limits<float>::max());
    }
    const float stored = absmax / top;
    return {stored, 1.0F / std::max(stored, kScaleFloor)};
  }
};

template <class Format, int kBitsOf>
struct TableFormat {
  static constexpr bool kQuantised = true;
  static constexpr bool kForStates = true;
  static constexpr int kBits = kBitsOf;
  static constexpr Scale kSignedScale = Scale::kBlock;
  static constexpr Scale kUnsignedScale = Scale::kBlock;
  static constexpr Tie kTie = Tie::kLower;

  static constexpr std::uint8_t zero_byte(bool is_signed) {
    const int zero = Format::map(is_signed).zero;
    return static_cast<std::uint8_t>(kBits == 4 ? zero * 17 : zero);
  }

  // The code of x / scale under kSafe, sign of zero and guard apart.
  static constexpr std::uint8_t safe_code(const CodeMap& map, float scaled) {
    return nearest_code(map, scaled, Format::kTie);
  }

  static constexpr std::uint8_t torchao_code(std::uint8_t code, float) { return code; }

  static NIBBLE_HD std::uint8_t encode_one(const CodeMap& map, float x, BlockScale scale,
                                           Rounding rounding) {
    const Tie native = Format::kTie;
    if (rounding == Rounding::kTorchao) {
      const Tie tie = native == Tie::kLower ? Tie::kUpper : native;
      return Format::torchao_code(nearest_code(map, x / scale.stored, tie), x);
    }
    if (rounding == Rounding::kBnbCuda) {
      return with_sign_of(map, x, nearest_rank(map, x / scale.stored, Tie::kEvenCode));
    }
    const float product = x * scale.reciprocal;  // NaN passes through the comparisons
    const float scaled = product < -map.top ? -map.top : (product > map.top ? map.top : product);
    if (rounding == Rounding::kNearest) {
      return nearest_code(map, scaled, native);
    }
    const std::uint8_t code = Format::safe_code(map, scaled);
    const bool lost = !map.is_signed && map.has_zero() && code == map.zero && x > 0.0F;
    return lost ? static_cast<std::uint8_t>(code + 1) : code;
  }

  static NIBBLE_HD BlockScale scale_of(bool is_signed, float absmax, Rounding rounding) {
    return BlockScale::of(absmax, Format::map(is_signed).top, rounding);
  }

  static NIBBLE_HD void encode(bool is_signed, const float* x, std::int64_t n, Rounding rounding,
                               std::uint8_t* codes, float* scale) {
    const BlockScale by = scale_of(is_signed, block_absmax(x, n), rounding);
    encode_scaled(is_signed, x, n, by, rounding, codes);
    *scale = by.stored;
  }

  // Part of a block (from an even element on) whose scale is known.
  static NIBBLE_HD void encode_scaled(bool is_signed, const float* x, std::int64_t n, BlockScale by,
                                      Rounding rounding, std::uint8_t* codes) {
    const CodeMap& map = Format::map(is_signed);
    const auto code_of = [&](std::int64_t i) {
      return encode_one(map, rounding == Rounding::kSafe ? saturated(x[i]) : x[i], by, rounding);
    };
    if constexpr (kBits == 8) {
      for (std::int64_t i = 0; i < n; ++i) {
        codes[i] = code_of(i);
      }
    } else {  // the even element in the high nibble, as torchao and bitsandbytes have it
      for (std::int64_t i = 0; i < n; i += 2) {
        const int odd = i + 1 < n ? code_of(i + 1) : map.zero;
        codes[i / 2] = static_cast<std::uint8_t>((code_of(i) << 4) | odd);
      }
    }
  }

  static NIBBLE_HD void decode(bool is_signed, const std::uint8_t* codes, const float* scale,
                               std::int64_t n, float* out) {
    const CodeMap& map = Format::map(is_signed);
    for (std::int64_t i = 0; i < n; ++i) {
      const int code = kBits == 8 ? codes[i] : (codes[i / 2] >> (i % 2 == 0 ? 4 : 0)) & 15;
      out[i] = map.value[static_cast<std::size_t>(code)] * *scale;
    }
  }

 private:
  // bitsandbytes' sign fix: a signed value whose code has the other sign (zero counts as positive)
  // moves one value towards its own (as a byte, or half of one, that may go round).
  static constexpr std::uint8_t with_sign_of(const CodeMap& map, float x, int rank) {
    const std::uint8_t code = map.code[static_cast<std::size_t>(rank)];
    if (!map.is_signed || is_negative(map.value[code]) == is_negative(x)) {
      return code;
    }
    const int moved = (rank + (x > 0.0F ? 1 : -1)) & (kBits == 8 ? 255 : 15);
    return map.code[static_cast<std::size_t>(moved)];
  }
};

}  // namespace nibble::math
