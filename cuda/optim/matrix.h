// SPDX-License-Identifier: Apache-2.0
// Rules that work on a whole matrix: passes around the element-wise step, as in
// src/optim/matrix_rules.h, whose sums and products these give to the bit.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "backend/device.h"
#include "cuda/optim/plan.h"

namespace nibble::cuda {

// Element-wise passes of a matrix rule: tensors of their own in the tables.
inline constexpr int kMatrixPasses = 2;

struct Matrix {
  backend::DeviceTensor param;
  std::uint32_t tensor = 0;   // the parameter's index in the tables
  std::uint32_t derived = 0;  // the first pass's
  int format = -1;            // of the parameter's states
  std::int64_t first_chunk[kMatrixPasses] = {};
  std::int64_t chunks = 0;  // of each pass
  int iterations = 0;       // RuleKind::kOrthogonal: of Newton and Schulz
};

// All launches of one matrix, in a workspace of backend::matrix_scratch_bytes(). stats: as
// launch_collect's, from the first chunk of the tables on; null: not asked for.
cudaError_t launch_matrix(const Matrix& matrix, const StepArgs& args, std::byte* workspace,
                          backend::StepStats* stats, cudaStream_t stream);

// The parts of the above.
cudaError_t launch_factored(const Matrix& matrix, const StepArgs& args, std::byte* workspace,
                            backend::StepStats* stats, cudaStream_t stream);
cudaError_t launch_orthogonal(const Matrix& matrix, const StepArgs& args, std::byte* workspace,
                              backend::StepStats* stats, cudaStream_t stream);
// The element-wise pass `pass`; format: of the states that it has.
cudaError_t launch_pass(const Matrix& matrix, int pass, int format, const StepArgs& args,
                        backend::StepStats* stats, cudaStream_t stream);
// Sums of squares of n floats, a leaf each (backend.h).
cudaError_t launch_squares(const StepArgs& args, const float* x, std::int64_t n, double* leaves,
                           cudaStream_t stream);

}  // namespace nibble::cuda
