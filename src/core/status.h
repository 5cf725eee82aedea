// SPDX-License-Identifier: Apache-2.0
// The one way an error travels inside nibble: an Error is thrown where the fault is found, with a
// message that says what, where (file, key, offset) and what was expected, and is caught in exactly
// two places: the C API's guard (src/capi/guard.h) and the command's main().
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace nibble {

// Values are those of nibble_status in nibble.h: pinned for ever, gaps are for later codes.
enum class StatusCode : std::int32_t {
  kOk = 0,
  kInvalidArgument = -10,  // the caller gave something that can never work
  kWrongOrder = -20,       // legal call, but not now
  kUnsupported = -30,      // a valid request that this build, file or device cannot serve
  kOutOfMemory = -40,
  kIo = -50,         // the system refused: no such file, no space, no permission
  kCorrupt = -60,    // a file's content is damaged, hostile or not what it says it is
  kNonFinite = -70,  // gradients with NaN or Inf; the step was not taken
  kInternal = -100,  // a defect of nibble's own
};

class Error : public std::runtime_error {
 public:
  Error(StatusCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  StatusCode code() const noexcept { return code_; }

 private:
  StatusCode code_;
};

template <class... Args>
[[noreturn]] void fail(StatusCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace nibble
