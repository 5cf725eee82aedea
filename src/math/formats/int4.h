// SPDX-License-Identifier: Apache-2.0
// Half a byte an element, a float absmax for each block of 128: the first moment through the signed
// 4-bit dynamic map, the second through a linear one without zero (Li et al., NeurIPS 2023, group
// variant; torchao's layout).
#pragma once

#include "math/formats/table_format.h"
#include "math/maps/dynamic.h"
#include "math/maps/linear.h"

namespace nibble::math {

struct Int4 : TableFormat<Int4, 4> {
  static constexpr const char* kDtype = "U8";
  static constexpr std::int64_t kDefaultBlock = 128;
  static constexpr const CodeMap& map(bool is_signed) {
    return is_signed ? table<kDynamic4Signed>() : table<kLinear4Unsigned>();
  }
};

}  // namespace nibble::math
