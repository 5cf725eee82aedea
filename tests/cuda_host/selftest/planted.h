// SPDX-License-Identifier: Apache-2.0
// Kernels with one mistake each, for the test of the tester.
#pragma once

#include <cuda_runtime_api.h>

namespace nibble::cuda_host::selftest {

enum class Planted {
  kMissingBarrier,
  kDivergentBarrier,
  kTwoBarriers,
  kSharedOverrun,
  kGlobalOverread,
  kGlobalOverwrite,
  kUnwrittenShared,
  kShuffleFromInactive,
  kShuffleAgainstBarrier,
  kShuffleMasksDiffer,
  kShuffleOutsideOwnMask,
  kTwoShuffles,
  kActiveMask,
  kLostUpdate,
  kLostUpdateAcrossBlocks,
  kReadsOtherBlock,
  kNoAsyncWait,
  kNoBarrierAfterAsyncWait,
  kSharedReused,
  kTooMuchShared,
};

// All take 256 floats in, and 256 floats out.
cudaError_t launch_planted(Planted which, float* out, const float* in, cudaStream_t stream);
// Correct, but with as many threads as it is told.
cudaError_t launch_copy(float* out, const float* in, unsigned threads, cudaStream_t stream);

}  // namespace nibble::cuda_host::selftest
