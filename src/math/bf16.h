// SPDX-License-Identifier: Apache-2.0
// bfloat16: the upper half of an IEEE float.
#pragma once

#include <bit>
#include <cstdint>

namespace nibble::math {

using bf16 = std::uint16_t;  // the bits

constexpr float bf16_to_float(bf16 bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

// Round to nearest, ties to even. NaN stays NaN (quieted), overflow goes to infinity.
constexpr bf16 float_to_bf16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) {
    return static_cast<bf16>((bits >> 16) | 0x40U);
  }
  return static_cast<bf16>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

}  // namespace nibble::math
