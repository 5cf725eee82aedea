// SPDX-License-Identifier: Apache-2.0
// A map gives each code a value; a format multiplies it by the block's scale. Values are searched
// by rank (their place in ascending order): the rank of x is the number of bounds below it, a bound
// being the midpoint of neighbouring values rounded to float. So ties take the lower value
// (bitsandbytes' reference quantiser), unless a mode says otherwise.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>

namespace nibble::math {

struct CodeMap {
  std::array<float, 256> value{};  // by code
  std::array<float, 256> bound{};  // by rank: separates it from the next; +infinity at the end
  std::array<std::uint8_t, 256> code{};  // by rank; the same number where codes are sorted
  int levels = 256;                      // ranks in use
  int zero = 0;                          // the code that decodes to 0 (or, where none does, 0)
  bool is_signed = false;
  float top = 1.0F;  // the largest value

  constexpr bool has_zero() const { return value[static_cast<std::size_t>(zero)] == 0.0F; }
};

// What happens exactly between two values.
enum class Tie { kLower, kUpper, kEvenCode };

// NaN compares false with every bound, so it takes rank 0.
constexpr int nearest_rank(const CodeMap& map, float x, Tie tie = Tie::kLower) {
  int rank = 0;
  for (int step = map.levels > 16 ? 128 : 8; step > 0; step /= 2) {
    const float bound = map.bound[static_cast<std::size_t>(rank + step - 1)];
    const bool above = tie == Tie::kUpper ? bound <= x : bound < x;
    rank += above ? step : 0;
  }
  const auto at = static_cast<std::size_t>(rank);
  const bool odd = (map.code[at] & 1U) != 0;
  return rank + (tie == Tie::kEvenCode && map.bound[at] == x && odd ? 1 : 0);
}

constexpr std::uint8_t nearest_code(const CodeMap& map, float x, Tie tie = Tie::kLower) {
  return map.code[static_cast<std::size_t>(nearest_rank(map, x, tie))];
}

namespace detail {

// Completes a map from value[0 .. levels) in ascending order, codes being ranks.
constexpr void fill_bounds(CodeMap& map) {
  for (std::size_t k = 0; k < 256; ++k) {
    const std::size_t last = static_cast<std::size_t>(map.levels) - 1;
    map.code[k] = static_cast<std::uint8_t>(std::min(k, last));
    map.bound[k] = k < last ? (map.value[k] + map.value[k + 1]) / 2.0F
                            : std::numeric_limits<float>::infinity();
    if (k > last) {
      map.value[k] = map.value[last];
    }
  }
  map.top = map.value[static_cast<std::size_t>(map.levels) - 1];
}

}  // namespace detail
}  // namespace nibble::math
