// SPDX-License-Identifier: Apache-2.0
// How far a stored state may be from the value that was to be stored.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "support/capi.h"

namespace nibble::test {

// How far a stored value may be from the given one; `top` is the largest magnitude of its block.
// Half the widest gap of each map (measured on the map, so that a wrong encoder cannot hide), as a
// part of the scale; relative precision for plain numbers.
inline double format_bound(const std::string& format, bool is_signed, double x, double top) {
  if (format == "fp32") {
    return 0;
  }
  if (format == "bf16") {
    return std::abs(x) / 256;
  }
  std::vector<float> map(256);
  std::int64_t count = 0;
  auto desc = api::make<nibble_quantize_desc>();
  desc.is_signed = is_signed ? 1 : 0;
  desc.format = format == "int4_rank1" ? "int4" : format.c_str();
  api::check(nibble_format_map(&desc, map.data(), &count));
  map.resize(static_cast<std::size_t>(count));
  std::erase_if(map, [](float v) { return std::isnan(v); });
  std::sort(map.begin(), map.end());
  double gap = std::max(0.0, double{map.front()});  // int4's second moment has no zero
  for (std::size_t k = 1; k < map.size(); ++k) {
    gap = std::max(gap, (double{map[k]} - map[k - 1]) / 2);
  }
  const double lowest = is_signed ? -double{map.front()} : map.back();
  gap = std::max(gap, map.back() - lowest);  // int8 and int4 have no -1
  // A positive second moment takes the smallest code rather than zero.
  const double smallest = !is_signed && map[0] == 0 ? double{map[1]} : 0;
  return std::max(gap, smallest) * top / map.back() * 1.0001;
}

// Largest magnitude of what shares a scale with element i.
inline double block_top(const std::vector<float>& x, std::size_t i, std::size_t block) {
  double top = 0;
  const std::size_t first = block == 0 ? 0 : i / block * block;
  const std::size_t last = block == 0 ? x.size() : std::min(first + block, x.size());
  for (std::size_t k = first; k < last; ++k) {
    top = std::max(top, std::abs(double{x[k]}));
  }
  return top;
}

// The rank-1 scale of element i: the smaller of its row's and its column's largest.
inline double rank1_top(const std::vector<float>& x, std::size_t i, std::size_t columns) {
  double row = 0;
  double column = 0;
  for (std::size_t k = 0; k < x.size(); ++k) {
    row = k / columns == i / columns ? std::max(row, double{x[k]}) : row;
    column = k % columns == i % columns ? std::max(column, double{x[k]}) : column;
  }
  return std::min(row, column);
}

}  // namespace nibble::test
