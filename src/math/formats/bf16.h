// SPDX-License-Identifier: Apache-2.0
// States rounded to bfloat16, ties to even. Beware of a slow second moment: with beta2 = 0.999 it
// changes by less than half a unit in the last place, so it grows but never shrinks (hence no
// default anywhere).
#pragma once

#include <cstring>

#include "math/bf16.h"
#include "math/formats/format.h"

namespace nibble::math {

struct Bf16 {
  static constexpr const char* kDtype = "BF16";
  static constexpr bool kQuantised = false;
  static constexpr bool kForStates = true;
  static constexpr int kBits = 16;
  static constexpr Scale kSignedScale = Scale::kNone;
  static constexpr Scale kUnsignedScale = Scale::kNone;
  static constexpr std::int64_t kDefaultBlock = 256;
  static constexpr std::uint8_t zero_byte(bool) { return 0; }

  static NIBBLE_HD void decode(bool, const std::uint8_t* codes, const float*, std::int64_t n,
                               float* out) {
    for (std::int64_t i = 0; i < n; ++i) {
      bf16 bits;
      std::memcpy(&bits, codes + 2 * i, sizeof(bits));
      out[i] = bf16_to_float(bits);
    }
  }
  static NIBBLE_HD void encode(bool, const float* x, std::int64_t n, Rounding, std::uint8_t* codes,
                               float*) {
    for (std::int64_t i = 0; i < n; ++i) {
      const bf16 bits = float_to_bf16(x[i]);
      std::memcpy(codes + 2 * i, &bits, sizeof(bits));
    }
  }
};

}  // namespace nibble::math
