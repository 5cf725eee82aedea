// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/check.h"

namespace nibble::cuda {

// Makes a device current in a scope.
class ScopedDevice {
 public:
  explicit ScopedDevice(int index) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (before_ != index) {
      check(cudaSetDevice(index), "cudaSetDevice");
      changed_ = true;
    }
  }
  ~ScopedDevice() {
    if (changed_) {
      static_cast<void>(cudaSetDevice(before_));
    }
  }
  ScopedDevice(const ScopedDevice&) = delete;
  ScopedDevice& operator=(const ScopedDevice&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

}  // namespace nibble::cuda
