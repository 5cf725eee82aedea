// SPDX-License-Identifier: Apache-2.0
// Encoding into the 8-bit dynamic map by arithmetic instead of a search. Inside a decade the values
// are evenly spaced, so a magnitude `a` stands at
//     min(fma(a, slope, offset), last)
// on the line of its decade, whose nearest integer (ties to even) is the magnitude's code. The
// decade is the number of `threshold`s below a. The signed map's zero belongs to its lowest decade
// (0 and the smallest value make a line); the unsigned map's zero is apart, at or below
// `zero_bound`. The value 1 is a decade of its own, the eighth.
//
// Rounding::kSafe takes that integer as it is: this is its definition. It is the nearest code
// except close to a bound, where the roundings of slope, offset and the table show. For every bound
// b between codes k and k + 1 of a decade,
//     |fma(b', slope, offset) - (k + 1/2)| < kTieWindow   for b' = b and for the next float;
// fma is monotone in a, hence outside that window the integer is the nearest code. Inside it
// Rounding::kNearest asks nearest_code(). tests/math checks the inequality at every bound.
#pragma once

#include "math/maps/dynamic.h"
#include "math/scalar.h"

namespace nibble::math {

inline constexpr float kTieWindow = 1.0F / 8192;
// t + kToInteger holds round(t) in its low bits, for 0 <= t < 2^22.
inline constexpr float kToInteger = 0x1p23F;

struct Dynamic8Lines {
  std::array<float, 8> slope{}, offset{}, last{};  // by decade
  std::array<float, 8> threshold{};                // above decade i
  float zero_bound = 0;
};

namespace detail {

constexpr Dynamic8Lines make_dynamic8_lines(const CodeMap& map) {
  Dynamic8Lines out;
  const auto zero = static_cast<std::size_t>(map.zero);
  const auto at = [&](int m) { return zero + static_cast<std::size_t>(m); };
  int first = 1;
  for (int decade = 0; decade <= kDynamic8Decades; ++decade) {
    const bool is_one = decade == kDynamic8Decades;
    const int last = first + (is_one ? 1 : dynamic_decade_codes(map.is_signed, decade)) - 1;
    const int from = decade == 0 && map.is_signed ? 0 : first;
    const double low = map.value[at(from)];
    const double slope = last > from ? (last - from) / (map.value[at(last)] - low) : 0.0;
    const auto i = static_cast<std::size_t>(decade);
    out.slope[i] = static_cast<float>(slope);
    out.offset[i] = static_cast<float>(from - slope * low);
    out.last[i] = static_cast<float>(last);
    out.threshold[i] = map.bound[at(last)];
    first = last + 1;
  }
  out.zero_bound = map.bound[at(0)];
  return out;
}

}  // namespace detail

inline constexpr Dynamic8Lines kLinesSigned = detail::make_dynamic8_lines(kDynamic8Signed);
inline constexpr Dynamic8Lines kLinesUnsigned = detail::make_dynamic8_lines(kDynamic8Unsigned);

// Where a magnitude 0 <= a <= 1 stands among the codes of its sign.
NIBBLE_HD inline float position_on_lines(const Dynamic8Lines& lines, float a) {
  std::size_t decade = 0;
  while (decade < kDynamic8Decades && a > lines.threshold[decade]) {
    ++decade;
  }
  return std::min(fma(a, lines.slope[decade], lines.offset[decade]), lines.last[decade]);
}

}  // namespace nibble::math
