// SPDX-License-Identifier: Apache-2.0
// The caller may have set flush-to-zero or another rounding (frameworks do): results must not
// depend on it. The default environment holds inside the scope, on this thread.
#pragma once

#include <cfenv>

namespace nibble::backend {

class ScopedFloatEnvironment {
 public:
  ScopedFloatEnvironment() {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~ScopedFloatEnvironment() { std::fesetenv(&saved_); }
  ScopedFloatEnvironment(const ScopedFloatEnvironment&) = delete;
  ScopedFloatEnvironment& operator=(const ScopedFloatEnvironment&) = delete;

 private:
  std::fenv_t saved_;
};

}  // namespace nibble::backend
