// SPDX-License-Identifier: Apache-2.0
// What lets one definition serve the host and CUDA devices. Functions that are constexpr need no
// mark (nvcc --expt-relaxed-constexpr); the others carry NIBBLE_HD. Device code cannot refer to a
// constexpr object of the host, so tables are reached through table<>().
#pragma once

#if defined(__CUDACC__)
#define NIBBLE_HD __host__ __device__
#else
#define NIBBLE_HD
#endif

namespace nibble::math {

#if defined(__CUDACC__)
template <const auto& kTable>
__device__ constexpr auto device_copy = kTable;
#endif

template <const auto& kTable>
NIBBLE_HD constexpr const auto& table() {
#if defined(__CUDA_ARCH__)
  return device_copy<kTable>;
#else
  return kTable;
#endif
}

}  // namespace nibble::math
