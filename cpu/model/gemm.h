// SPDX-License-Identifier: Apache-2.0
// Dense products on one thread (oneDNN). Parallelism is the caller's: tiles of fixed shape, so that
// the same product is computed the same way whatever the number of threads.
#pragma once

#include "backend/matrix.h"

namespace nibble::cpu {

using backend::ConstMatrix;
using backend::DType;
using backend::Matrix;

enum class Transpose { kNo, kYes };

// c [M, N] = a [M, K] * b, or += with accumulate. b is [K, N], or [N, K] with Transpose::kYes. a
// and b have one dtype; c is fp32, or bf16 without accumulate. Kernels are cached by shape: callers
// keep the number of distinct shapes small. Throws only std::bad_alloc and Error(kInternal).
void gemm(ConstMatrix a, ConstMatrix b, Transpose transpose_b, Matrix c, bool accumulate);

// A block of memory of this thread, reused by later calls with the same slot; 64-byte aligned.
void* thread_scratch(int slot, std::size_t bytes);

}  // namespace nibble::cpu
