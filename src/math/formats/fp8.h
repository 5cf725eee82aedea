// SPDX-License-Identifier: Apache-2.0
// FP8 E4M3 with a float scale a block, absmax / 448, ties to even as the format's conversions have
// it (torchao's layout).
#pragma once

#include "math/formats/table_format.h"
#include "math/maps/minifloat.h"

namespace nibble::math {

struct Fp8 : TableFormat<Fp8, 8> {
  static constexpr const char* kDtype = "F8_E4M3";
  static constexpr std::int64_t kDefaultBlock = 256;
  static constexpr Tie kTie = Tie::kEvenCode;
  static constexpr const CodeMap& map(bool is_signed) {
    return is_signed ? table<kE4m3Signed>() : table<kE4m3Unsigned>();
  }
  // Its conversion keeps the sign of zero.
  static constexpr std::uint8_t torchao_code(std::uint8_t code, float x) {
    return code == 0 && is_negative(x) ? 0x80 : code;
  }
};

}  // namespace nibble::math
