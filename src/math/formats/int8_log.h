// SPDX-License-Identifier: Apache-2.0
// One byte an element: the first moment through the dynamic map, as int8; the second through a
// geometric map whose zero is reserved for exact zero, so that it can neither vanish nor be off by
// more than 4.4 %.
#pragma once

#include "math/formats/int8.h"
#include "math/maps/geometric8.h"

namespace nibble::math {

struct Int8Log : TableFormat<Int8Log, 8> {
  static constexpr const char* kDtype = "U8";
  static constexpr std::int64_t kDefaultBlock = 256;
  static constexpr const CodeMap& map(bool is_signed) {
    return is_signed ? table<kDynamic8Signed>() : table<kGeometric8>();
  }
  static NIBBLE_HD std::uint8_t safe_code(const CodeMap& map, float scaled) {
    return map.is_signed ? Int8::safe_code(map, scaled) : nearest_code(map, scaled);
  }
};

}  // namespace nibble::math
