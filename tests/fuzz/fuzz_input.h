// SPDX-License-Identifier: Apache-2.0
// What every fuzz target does: only nibble::Error may be thrown, and its message is text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

#include "core/status.h"
#include "formats/text_safety.h"

namespace nibble::fuzz {

inline std::string_view as_text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

template <class F>
int expect_only_errors(F&& body) {
  try {
    body();
  } catch (const Error& error) {
    if (!formats::is_valid_utf8(error.what()) || std::string_view(error.what()).size() > 2000) {
      std::abort();
    }
  }
  return 0;
}

// A fuzz target's assertion, in release builds too.
inline void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

}  // namespace nibble::fuzz
