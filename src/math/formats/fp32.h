// SPDX-License-Identifier: Apache-2.0
// States kept as they are computed.
#pragma once

#include "math/formats/format.h"

namespace nibble::math {

struct Fp32 {
  static constexpr const char* kDtype = "F32";
  static constexpr bool kBlockWise = false;
  static constexpr std::int64_t packed_bytes(std::int64_t n) { return n * 4; }
  static constexpr auto decode = nullptr;
  static constexpr auto encode = nullptr;
  static constexpr std::uint8_t zero_code(bool) { return 0; }
};

}  // namespace nibble::math
