// SPDX-License-Identifier: Apache-2.0
// Encoding into the dynamic map by arithmetic instead of a search. Inside a decade the values are
// evenly spaced, so the magnitude code of `a` is round(a * slope + offset), limited to the decade's
// last code; the decade is the number of `threshold`s below a. The signed map's zero belongs to
// its lowest decade (0 and the smallest value make a line); the unsigned map's zero is apart, at
// or below `zero_bound`. The code of 1 is a decade of its own, the eighth.
//
// That is exact except close to a bound, where the roundings of slope, offset and the table may
// show. For every bound b between codes k and k + 1 of a decade,
//     |fma(b', slope, offset) - (k + 1/2)| < kTieWindow   for b' = b and for the next float.
// fma is monotone in a, hence outside that window the rounded result is the nearest code, and
// inside it the caller asks nearest_code(). tests/math checks the inequality at every bound.
#pragma once

#include "math/maps/dynamic8.h"

namespace nibble::math {

inline constexpr float kTieWindow = 1.0F / 8192;

struct Dynamic8Segments {
  std::array<float, 8> slope{}, offset{}, top{};  // by decade
  std::array<float, 8> threshold{};               // above decade i
  float zero_bound = 0;
};

constexpr Dynamic8Segments make_dynamic8_segments(const CodeMap& map) {
  Dynamic8Segments out;
  const auto at = [&](int m) { return static_cast<std::size_t>(map.zero + m); };
  int first = 1;
  for (int decade = 0; decade <= kDynamic8Decades; ++decade) {
    const bool is_one = decade == kDynamic8Decades;
    const int last = first + (is_one ? 1 : dynamic8_decade_codes(map.is_signed, decade)) - 1;
    const int from = decade == 0 && map.is_signed ? 0 : first;
    const double low = map.value[at(from)];
    const double slope = last > from ? (last - from) / (map.value[at(last)] - low) : 0.0;
    const auto i = static_cast<std::size_t>(decade);
    out.slope[i] = static_cast<float>(slope);
    out.offset[i] = static_cast<float>(from - slope * low);
    out.top[i] = static_cast<float>(last);
    out.threshold[i] = map.bound[at(last)];
    first = last + 1;
  }
  out.zero_bound = map.bound[at(0)];
  return out;
}

inline constexpr Dynamic8Segments kSegmentsSigned = make_dynamic8_segments(kDynamic8Signed);
inline constexpr Dynamic8Segments kSegmentsUnsigned = make_dynamic8_segments(kDynamic8Unsigned);

}  // namespace nibble::math
