// SPDX-License-Identifier: Apache-2.0
// The Error that a call throws, to be looked at.
#pragma once

#include <string>

#include "core/status.h"

namespace nibble::test {

// Empty message and kOk if nothing was thrown.
template <class Call>
Error error_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  return {StatusCode::kOk, ""};
}

inline bool mentions(const Error& error, const std::string& part) {
  return std::string(error.what()).find(part) != std::string::npos;
}

}  // namespace nibble::test
