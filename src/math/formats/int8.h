// SPDX-License-Identifier: Apache-2.0
// One byte an element through the dynamic map, a float absmax a block (bitsandbytes' layout).
#pragma once

#include "math/formats/table_format.h"
#include "math/maps/dynamic8_lines.h"

namespace nibble::math {

struct Int8 : TableFormat<Int8, 8> {
  static constexpr const char* kDtype = "U8";
  static constexpr std::int64_t kDefaultBlock = 256;
  static constexpr const CodeMap& map(bool is_signed) {
    return is_signed ? table<kDynamic8Signed>() : table<kDynamic8Unsigned>();
  }

  // Rounding::kSafe encodes by arithmetic (maps/dynamic8_lines.h).
  static NIBBLE_HD std::uint8_t safe_code(const CodeMap& map, float scaled) {
    const float t =
        position_on_lines(map.is_signed ? table<kLinesSigned>() : table<kLinesUnsigned>(),
                          scaled < 0.0F ? -scaled : scaled);
    const auto k = static_cast<int>(std::bit_cast<std::uint32_t>(t + kToInteger) & 0xffU);
    if (!map.is_signed) {
      return static_cast<std::uint8_t>(scaled > 0.0F ? std::max(k, 1) : 0);
    }
    constexpr int kLargestNegative = 127;  // there is no -1
    return static_cast<std::uint8_t>(scaled < 0.0F ? map.zero - std::min(k, kLargestNegative)
                                                   : map.zero + k);
  }
};

}  // namespace nibble::math
