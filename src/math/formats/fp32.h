// SPDX-License-Identifier: Apache-2.0
// States kept as they are computed, worked on in place.
#pragma once

#include "math/formats/format.h"

namespace nibble::math {

struct Fp32 {
  static constexpr const char* kDtype = "F32";
  static constexpr bool kQuantised = false;
  static constexpr bool kForStates = true;
  static constexpr int kBits = 32;
  static constexpr Scale kSignedScale = Scale::kNone;
  static constexpr Scale kUnsignedScale = Scale::kNone;
  static constexpr std::int64_t kDefaultBlock = 256;
  static constexpr auto decode = nullptr;
  static constexpr auto encode = nullptr;
  static constexpr std::uint8_t zero_byte(bool) { return 0; }
};

}  // namespace nibble::math
