// SPDX-License-Identifier: Apache-2.0
// NF4 weights (QLoRA), in bitsandbytes' layout: the even element in the high nibble, a float absmax
// for each block of
// 64. For nibble_quantize; no state format.
#pragma once

#include "math/formats/table_format.h"
#include "math/maps/normal4.h"

namespace nibble::math {

struct Nf4 : TableFormat<Nf4, 4> {
  static constexpr const char* kDtype = "U8";
  static constexpr bool kForStates = false;
  static constexpr std::int64_t kDefaultBlock = 64;
  static constexpr const CodeMap& map(bool) { return table<kNf4>(); }
};

}  // namespace nibble::math
