// SPDX-License-Identifier: Apache-2.0
// int4 whose second moment of a matrix has the scale min(row's maximum, column's maximum) instead
// of a block's (Li et al., NeurIPS 2023, section 4.2, "rank-1 normalisation"). The first moment,
// and tensors that are no matrices, are int4.
#pragma once

#include "math/formats/int4.h"

namespace nibble::math {

struct Int4Rank1 : Int4 {
  static constexpr Scale kUnsignedScale = Scale::kRank1;

  // Elements of one row. A scale of 0 stands for a row or column of zeros.
  static constexpr float scale_at(float row, float column) { return row < column ? row : column; }
  static constexpr float decode_at(int code, float row, float column) {
    return table<kLinear4Unsigned>().value[static_cast<std::size_t>(code)] * scale_at(row, column);
  }
  static constexpr std::uint8_t encode_at(float x, float row, float column) {
    const float scale = scale_at(row, column);
    return nearest_code(table<kLinear4Unsigned>(), x / std::max(scale, kScaleFloor));
  }
};

}  // namespace nibble::math
