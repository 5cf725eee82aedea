// SPDX-License-Identifier: Apache-2.0
// How messages name things.
#pragma once

#include <cstdio>
#include <string>

#include "cuda_host/execution.h"

namespace nibble::cuda_host {

inline std::string text(const Site& site) {
  return std::string(site.file) + ":" + std::to_string(site.line);
}

template <class Vector>
inline std::string text(const Vector& vector) {
  return "(" + std::to_string(vector.x) + "," + std::to_string(vector.y) + "," +
         std::to_string(vector.z) + ")";
}

inline std::string text(const Thread& thread) {
  return "thread " + std::to_string(thread.linear) + " " + text(thread.index);
}

inline std::string hex(unsigned mask) {
  char digits[16];
  std::snprintf(digits, sizeof digits, "%08x", mask);
  return digits;
}

}  // namespace nibble::cuda_host
