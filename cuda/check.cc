// SPDX-License-Identifier: Apache-2.0
#include "cuda/check.h"

#include "core/status.h"

namespace nibble::cuda {

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) {
    return;
  }
  static_cast<void>(cudaGetLastError());  // errors that are not sticky end here
  fail(error == cudaErrorMemoryAllocation ? StatusCode::kOutOfMemory : StatusCode::kInternal,
       "CUDA: {}: {} ({})", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

}  // namespace nibble::cuda
