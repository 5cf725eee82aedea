// SPDX-License-Identifier: Apache-2.0
#include "cuda/optim/matrix.cuh"

namespace nibble::cuda {
namespace {

__global__ void __launch_bounds__(kSumThreads)
    squares_kernel(StepArgs args, const float* x, std::int64_t n, double* leaves) {
  if (args.control->taken == 0) {
    return;
  }
  const std::int64_t leaf = thread_index() / kSums;
  const int lane = static_cast<int>(threadIdx.x) % kSums;
  const std::int64_t first = leaf * backend::kSumLeaf;
  const std::int64_t last = first + backend::kSumLeaf < n ? first + backend::kSumLeaf : n;
  double sum = 0.0;
  for (std::int64_t i = first + lane; i < last; i += kSums) {
    sum += finite_square(x[i]);
  }
  sum = combine_accumulators(sum);
  if (lane == 0 && first < n) {
    leaves[leaf] = sum;
  }
}

}  // namespace

cudaError_t launch_squares(const StepArgs& args, const float* x, std::int64_t n, double* leaves,
                           cudaStream_t stream) {
  const std::int64_t count = math::block_count(n, backend::kSumLeaf);
  return NIBBLE_LAUNCH(squares_kernel,
                       dim3(static_cast<unsigned>(math::block_count(count, kSumThreads / kSums))),
                       dim3(kSumThreads), 0, stream, args, x, n, leaves);
}

cudaError_t launch_pass(const Matrix& matrix, int pass, int format, const StepArgs& args,
                        backend::StepStats* stats, cudaStream_t stream) {
  const int rule = matrix.param.task.rule;
  const std::int64_t first = matrix.first_chunk[pass];
  StepArgs own = args;
  own.chunks += first;
  return stats != nullptr ? launch_collect(rule, own, matrix.chunks, stats + first, stream)
                          : launch_step(rule, format, own, matrix.chunks, stream);
}

cudaError_t launch_matrix(const Matrix& matrix, const StepArgs& args, std::byte* workspace,
                          backend::StepStats* stats, cudaStream_t stream) {
  return math::kRules[matrix.param.task.rule].kind == math::RuleKind::kFactored
             ? launch_factored(matrix, args, workspace, stats, stream)
             : launch_orthogonal(matrix, args, workspace, stats, stream);
}

}  // namespace nibble::cuda
