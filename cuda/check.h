// SPDX-License-Identifier: Apache-2.0
// The one place where the runtime's error codes become Errors.
#pragma once

#include <cuda_runtime_api.h>

namespace nibble::cuda {

// Throws Error (kOutOfMemory, or kInternal) unless `error` is cudaSuccess; `what` says what was
// done.
void check(cudaError_t error, const char* what);

}  // namespace nibble::cuda
