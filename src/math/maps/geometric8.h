// SPDX-License-Identifier: Apache-2.0
// A geometric map for second moments: eight codes an octave, code k >= 1 is 2^((k - 255) / 8), so
// 2^-31.75 .. 1 with a relative error of at most 4.4 % everywhere; code 0 is reserved for exact
// zero. (The idea of an even grid in the logarithm with a reserved zero: arXiv 2608.22322; there
// with a range for each block.) In the octave below 1 the bounds fall one into a sixteenth at most,
// so a code is found from the exponent and the top four bits of the mantissa.
#pragma once

#include "math/maps/code_map.h"

namespace nibble::math {

inline constexpr int kGeometric8PerOctave = 8;

namespace detail {

// 2^(j/8) for j = 0 .. 7, correctly rounded.
inline constexpr std::array<float, 8> kEighthOctaves = {1.0F,        1.09050773F, 1.18920712F,
                                                        1.29683955F, 1.41421356F, 1.54221083F,
                                                        1.68179283F, 1.83400809F};

constexpr CodeMap make_geometric8() {
  CodeMap map;
  map.value[0] = 0.0F;
  for (int k = 1; k < 256; ++k) {
    const int below = 255 - k;  // eighths of an octave below 1
    const int octaves = (below + 7) / 8;
    float value = kEighthOctaves[static_cast<std::size_t>(octaves * 8 - below)];
    for (int i = 0; i < octaves; ++i) {
      value *= 0.5F;
    }
    map.value[static_cast<std::size_t>(k)] = value;
  }
  fill_bounds(map);
  return map;
}

}  // namespace detail

inline constexpr CodeMap kGeometric8 = detail::make_geometric8();

}  // namespace nibble::math
