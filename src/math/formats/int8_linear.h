// SPDX-License-Identifier: Apache-2.0
// One byte an element through evenly spaced maps. Enough for momenta that are not divided by the
// root of another state (Muon, Lion, SGD; arXiv 2509.23106); a poor second moment.
#pragma once

#include "math/formats/table_format.h"
#include "math/maps/linear.h"

namespace nibble::math {

struct Int8Linear : TableFormat<Int8Linear, 8> {
  static constexpr const char* kDtype = "U8";
  static constexpr std::int64_t kDefaultBlock = 256;
  static constexpr const CodeMap& map(bool is_signed) {
    return is_signed ? table<kLinear8Signed>() : table<kLinear8Unsigned>();
  }
};

}  // namespace nibble::math
