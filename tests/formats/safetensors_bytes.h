// SPDX-License-Identifier: Apache-2.0
// safetensors files written by hand, so that anything can be wrong.
#pragma once

#include <string>
#include <string_view>

#include "tests/formats/gguf_bytes.h"

namespace nibble::test {

inline std::string safetensors(std::string_view header, std::string_view data) {
  return u64(header.size()) + std::string(header) + std::string(data);
}
inline std::string safetensors(std::string_view header, std::size_t data_bytes) {
  return safetensors(header, std::string(data_bytes, '\x11'));
}

}  // namespace nibble::test
