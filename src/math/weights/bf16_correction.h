// SPDX-License-Identifier: Apache-2.0
// bf16 weights plus the bits that rounding took from them, as an integer: the weight is
//     bits = (bf16 << 16) + (correction << (16 - kBitsKept))
// The idea is that of FlashOptim (arXiv 2602.23349), which scales the error instead; as a
// difference of bit patterns, 16 bits keep every float exactly (4 bytes an element), and 8 bits
// keep a float with 16 bits of mantissa (3 bytes). So that the correction fits a signed integer,
// ties round away from zero.
#pragma once

#include "math/weights/weight.h"

namespace nibble::math {

template <int kBitsKept>
struct Bf16Correction {
  static_assert(kBitsKept == 8 || kBitsKept == 16);
  static constexpr int kShift = 16 - kBitsKept;
  static constexpr std::uint32_t kHalf = kShift == 0 ? 0 : 1U << (kShift > 0 ? kShift - 1 : 0);
  static constexpr std::uint32_t kKept = ~((1U << kShift) - 1);

  struct Split {
    bf16 weight;
    std::int32_t correction;
  };
  static constexpr Split split(float x) {
    if (is_nan_bits(bits_of(x))) {
      return {0x7fc0, 0};
    }
    const std::uint32_t rounded = (bits_of(x) + kHalf) & kKept;
    const std::uint32_t upper = (rounded + 0x8000U) & 0xffff0000U;
    return {static_cast<bf16>(upper >> 16), static_cast<std::int32_t>(rounded - upper) >> kShift};
  }
  static constexpr float join(bf16 weight, std::int32_t correction) {
    return float_of((std::uint32_t{weight} << 16) +
                    (static_cast<std::uint32_t>(correction) << kShift));
  }

  static NIBBLE_HD std::int32_t load(const std::uint8_t* extra, std::int64_t i) {
    if constexpr (kBitsKept == 8) {
      return static_cast<std::int8_t>(extra[i]);
    } else {
      return static_cast<std::int16_t>(load_bf16(extra, i));
    }
  }
  static NIBBLE_HD void store(std::uint8_t* extra, std::int64_t i, std::int32_t correction) {
    if constexpr (kBitsKept == 8) {
      extra[i] = static_cast<std::uint8_t>(correction);
    } else {
      store_bf16(extra, i, static_cast<std::uint16_t>(correction));
    }
  }

  static NIBBLE_HD void decode(const WeightBlock& block, std::int64_t n, float* out) {
    for (std::int64_t i = 0; i < n; ++i) {
      out[i] = join(load_bf16(block.data, i), load(block.extra, i));
    }
  }
  static NIBBLE_HD void encode(const WeightBlock& block, const float* x, std::int64_t n,
                               const RandomStream&, std::int64_t) {
    for (std::int64_t i = 0; i < n; ++i) {
      const Split parts = split(x[i]);
      store_bf16(block.data, i, parts.weight);
      store(block.extra, i, parts.correction);
    }
  }
  static NIBBLE_HD void adopt(const WeightBlock& block, std::int64_t n) {
    std::memset(block.extra, 0, static_cast<std::size_t>(n * kBitsKept / 8));
  }
};

}  // namespace nibble::math
