// SPDX-License-Identifier: Apache-2.0
// control.h for tests that are linked with the real runtime.
#include <cuda_runtime_api.h>

#include "cuda_host/control.h"

namespace nibble::cuda_host {

Settings& settings() {
  static Settings ignored;
  return ignored;
}

void reset() {
  cudaDeviceSynchronize();
  cudaGetLastError();
}

std::string last_message() {
  const cudaError_t error = cudaPeekAtLastError();
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

std::string replay_line() { return {}; }
std::size_t live_device_bytes() { return 0; }
std::size_t live_device_allocations() { return 0; }
std::size_t live_pinned_allocations() { return 0; }
bool is_stand_in() { return false; }

}  // namespace nibble::cuda_host
