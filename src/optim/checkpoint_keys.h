// SPDX-License-Identifier: Apache-2.0
// What the writer and the reader of an optimizer's checkpoint (FORMAT.md) have in common.
#pragma once

#include <string>
#include <string_view>

#include "formats/checkpoint.h"
#include "optim/param.h"

namespace nibble::optim {

inline constexpr const char* kComponent = "optimizer";
inline constexpr int kVersion = 1;

inline std::string key_of(const Param& param, std::string_view array) {
  return param.spec.name + "/" + std::string(array);
}

}  // namespace nibble::optim
