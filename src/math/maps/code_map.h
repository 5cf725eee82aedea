// SPDX-License-Identifier: Apache-2.0
// A map gives each code a value in [-1, 1]; a format multiplies it by the block's absmax. The code
// of a value is the number of bounds below it, a bound being the midpoint of neighbouring values
// rounded to float: nearest code, ties to the lower one (bitsandbytes' reference quantiser).
#pragma once

#include <array>
#include <cstdint>
#include <limits>

namespace nibble::math {

struct CodeMap {
  std::array<float, 256> value{};  // ascending
  std::array<float, 256> bound{};  // bound[k] separates k from k + 1; bound[255] is +infinity
  int zero = 0;                    // the code whose value is 0
  bool is_signed = false;
};

// NaN compares false with every bound, so it takes code 0.
constexpr std::uint8_t nearest_code(const CodeMap& map, float scaled) {
  int code = 0;
  for (int step = 128; step > 0; step /= 2) {
    code += map.bound[static_cast<std::size_t>(code + step - 1)] < scaled ? step : 0;
  }
  return static_cast<std::uint8_t>(code);
}

constexpr void fill_bounds(CodeMap& map) {
  for (std::size_t k = 0; k < 255; ++k) {
    map.bound[k] = (map.value[k] + map.value[k + 1]) / 2.0F;
  }
  map.bound[255] = std::numeric_limits<float>::infinity();
}

}  // namespace nibble::math
