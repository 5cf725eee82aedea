// SPDX-License-Identifier: Apache-2.0
// NF4 (Dettmers et al., "QLoRA", NeurIPS 2023, appendix E): quantiles of the normal distribution,
// scaled to [-1, 1], with an exact zero. The paper prints the values.
#pragma once

#include "math/maps/code_map.h"

namespace nibble::math {
namespace detail {

constexpr CodeMap make_nf4() {
  constexpr std::array<float, 16> kValues = {
      -1.0F,         -0.69619280F, -0.52507305F, -0.39491749F, -0.28444138F, -0.18477343F,
      -0.091050036F, 0.0F,         0.079580300F, 0.16093020F,  0.24611230F,  0.33791524F,
      0.44070983F,   0.56261700F,  0.72295684F,  1.0F};
  CodeMap map;
  map.levels = 16;
  map.is_signed = true;
  map.zero = 7;
  for (std::size_t k = 0; k < 16; ++k) {
    map.value[k] = kValues[k];
  }
  fill_bounds(map);
  return map;
}

}  // namespace detail

inline constexpr CodeMap kNf4 = detail::make_nf4();

}  // namespace nibble::math
