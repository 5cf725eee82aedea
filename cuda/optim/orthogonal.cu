// SPDX-License-Identifier: Apache-2.0
// Muon (math/rules/muon.h): the momentum, its orthogonalisation by a Newton-Schulz iteration, and
// the update. Products are chains of fused multiply-adds in the order of depth, as
// backend::Backend::matmul has them.
#include "backend/matrix_scratch.h"
#include "cuda/optim/matrix.cuh"
#include "cuda/optim/weight_io.cuh"

namespace nibble::cuda {
namespace {

using Rule = math::Muon;

constexpr int kTile = 32;
constexpr int kTileRows = 8;  // threads along a tile's second extent

// By value to the kernels.
struct Orthogonal : backend::OrthogonalScratch {
  std::uint32_t tensor, derived;
  std::int64_t count, rows, columns;
};

Orthogonal orthogonal_of(const Matrix& matrix, std::byte* workspace) {
  const backend::DeviceTensor& param = matrix.param;
  return {backend::OrthogonalScratch::of(param.rows, param.task.columns, workspace),
          matrix.tensor,
          matrix.derived,
          param.count,
          param.rows,
          param.task.columns};
}

// One thread: the first pass writes the momentum to x; the second takes `from` as gradient.
__global__ void begin_orthogonal_kernel(StepArgs args, Orthogonal o, float* from, double by_shape,
                                        double like_adam) {
  const Tensor& tensor = args.tensors[o.tensor];
  const Group& group = args.groups[tensor.group];
  Tensor& momentum = args.tensors[o.derived];
  momentum.is_derived = false;  // the group's terms
  momentum.task.form = backend::Form::kDirection;
  momentum.task.grads = tensor.task.grads;
  momentum.task.weights = {kIndexOfFp32Weights, reinterpret_cast<std::uint8_t*>(o.x), nullptr,
                           nullptr};
  Tensor& update = args.tensors[o.derived + 1];
  update.task.grads = {tensor.task.grads.data != nullptr ? from : nullptr, false};
  update.task.grad_scale = 1.0F;
  update.task.keep = group.keep;
  update.task.state[0] = {};
  const double scale = group.terms[Rule::kLikeAdam] != 0.0F ? like_adam : by_shape;
  for (float& term : update.own_terms) {
    term = 0.0F;
  }
  // The rule itself, without its momentum: the direction is the gradient.
  update.own_terms[Rule::kMinusStep] =
      static_cast<float>(double{group.terms[Rule::kMinusStep]} * scale);
  update.own_terms[Rule::kGain] = 1.0F;
  update.own_terms[Rule::kAhead] = 1.0F;
}

// x / (|x| + eps), for the iteration's start.
__global__ void __launch_bounds__(kWide) normalise_kernel(StepArgs args, Orthogonal o, float* x) {
  NIBBLE_SHARED(float, factor, 1);
  if (is_left_out(args, o.tensor)) {
    return;
  }
  if (threadIdx.x == 0) {
    const float eps = args.groups[args.tensors[o.tensor].group].terms[Rule::kEps];
    const double norm = std::sqrt(sum_in_order(o.sums, o.leaves));
    factor[0] = static_cast<float>(1.0 / (norm + double{eps}));
  }
  __syncthreads();
  for (std::int64_t i = thread_index(); i < o.count; i += std::int64_t{gridDim.x} * kWide) {
    x[i] = factor[0] * x[i] + 0.0F * x[i];  // combine(a, x, 0, x) of the host
  }
}

// out [columns, rows] = x [rows, columns], transposed.
__global__ void __launch_bounds__(kTile* kTileRows)
    transpose_kernel(StepArgs args, std::uint32_t tensor, const float* x, float* out,
                     std::int64_t rows, std::int64_t columns) {
  NIBBLE_SHARED(float, tile, kTile*(kTile + 1));
  if (is_left_out(args, tensor)) {
    return;
  }
  const std::int64_t r0 = std::int64_t{blockIdx.x} / math::block_count(columns, kTile) * kTile;
  const std::int64_t c0 = std::int64_t{blockIdx.x} % math::block_count(columns, kTile) * kTile;
  for (int r = static_cast<int>(threadIdx.y); r < kTile; r += kTileRows) {
    if (r0 + r < rows && c0 + threadIdx.x < columns) {
      tile[r * (kTile + 1) + static_cast<int>(threadIdx.x)] =
          x[(r0 + r) * columns + c0 + threadIdx.x];
    }
  }
  __syncthreads();
  for (int c = static_cast<int>(threadIdx.y); c < kTile; c += kTileRows) {
    if (c0 + c < columns && r0 + threadIdx.x < rows) {
      out[(c0 + c) * rows + r0 + threadIdx.x] =
          tile[static_cast<int>(threadIdx.x) * (kTile + 1) + c];
    }
  }
}

// c = a b; a [rows, depth], b [depth, columns]. A thread has four elements of a tile's column.
__global__ void __launch_bounds__(kTile* kTileRows)
    matmul_kernel(StepArgs args, std::uint32_t tensor, const float* a, const float* b, float* c,
                  std::int64_t rows, std::int64_t columns, std::int64_t depth) {
  constexpr int kEach = kTile / kTileRows;
  NIBBLE_SHARED(float, tile_a, kTile*(kTile + 1));
  NIBBLE_SHARED(float, tile_b, kTile*(kTile + 1));
  if (is_left_out(args, tensor)) {
    return;
  }
  const std::int64_t across = math::block_count(columns, kTile);
  const std::int64_t r0 = std::int64_t{blockIdx.x} / across * kTile;
  const std::int64_t c0 = std::int64_t{blockIdx.x} % across * kTile;
  const int tx = static_cast<int>(threadIdx.x);
  const int ty = static_cast<int>(threadIdx.y);
  float sum[kEach] = {};
  for (std::int64_t k0 = 0; k0 < depth; k0 += kTile) {
    for (int r = ty; r < kTile; r += kTileRows) {
      tile_a[r * (kTile + 1) + tx] =
          r0 + r < rows && k0 + tx < depth ? a[(r0 + r) * depth + k0 + tx] : 0.0F;
      tile_b[r * (kTile + 1) + tx] =
          k0 + r < depth && c0 + tx < columns ? b[(k0 + r) * columns + c0 + tx] : 0.0F;
    }
    __syncthreads();
    // Not a term more than there are: adding 0 could change the sign of a zero.
    const int terms = static_cast<int>(depth - k0 < kTile ? depth - k0 : kTile);
    for (int k = 0; k < terms; ++k) {
      const float factor = tile_b[k * (kTile + 1) + tx];
      NIBBLE_UNROLL
      for (int i = 0; i < kEach; ++i) {
        sum[i] = math::fma(tile_a[(ty + i * kTileRows) * (kTile + 1) + k], factor, sum[i]);
      }
    }
    __syncthreads();
  }
  NIBBLE_UNROLL
  for (int i = 0; i < kEach; ++i) {
    const std::int64_t row = r0 + ty + i * kTileRows;
    if (row < rows && c0 + tx < columns) {
      c[row * columns + c0 + tx] = sum[i];
    }
  }
}

// out = a x + b y; out may be x or y.
__global__ void __launch_bounds__(kWide)
    combine_kernel(StepArgs args, std::uint32_t tensor, float a, const float* x, float b,
                   const float* y, float* out, std::int64_t n) {
  const std::int64_t i = thread_index();
  if (is_left_out(args, tensor) || i >= n) {
    return;
  }
  out[i] = a * x[i] + b * y[i];
}

// The launches of one matrix's iteration.
class Iteration {
 public:
  Iteration(const StepArgs& args, const Orthogonal& o, cudaStream_t stream)
      : args_(args), o_(o), stream_(stream) {}

  cudaError_t transpose(const float* x, float* out, std::int64_t rows, std::int64_t columns) {
    return NIBBLE_LAUNCH(transpose_kernel, tiles(rows, columns), dim3(kTile, kTileRows), 0, stream_,
                         args_, o_.tensor, x, out, rows, columns);
  }
  cudaError_t multiply(const float* a, const float* b, float* c, std::int64_t rows,
                       std::int64_t columns, std::int64_t depth) {
    return NIBBLE_LAUNCH(matmul_kernel, tiles(rows, columns), dim3(kTile, kTileRows), 0, stream_,
                         args_, o_.tensor, a, b, c, rows, columns, depth);
  }
  cudaError_t combine(float a, const float* x, float b, const float* y, float* out,
                      std::int64_t n) {
    return NIBBLE_LAUNCH(combine_kernel, wide_grid(n), dim3(kWide), 0, stream_, args_, o_.tensor, a,
                         x, b, y, out, n);
  }
  // x [m, n], m <= n, to the nearest matrix with singular values about 1; `other` is scratch.
  cudaError_t orthogonalise(float* x, float* other, std::int64_t m, std::int64_t n,
                            int iterations) {
    NIBBLE_TRY(launch_squares(args_, x, m * n, o_.sums, stream_));
    NIBBLE_TRY(
        NIBBLE_LAUNCH(normalise_kernel, wide_grid(m * n), dim3(kWide), 0, stream_, args_, o_, x));
    for (int i = 0; i < iterations; ++i) {
      NIBBLE_TRY(transpose(x, other, m, n));
      NIBBLE_TRY(multiply(x, other, o_.gram, m, m, n));
      NIBBLE_TRY(multiply(o_.gram, o_.gram, o_.square, m, m, m));
      NIBBLE_TRY(combine(Rule::kB, o_.gram, Rule::kC, o_.square, o_.gram, m * m));
      NIBBLE_TRY(multiply(o_.gram, x, other, m, n, m));
      NIBBLE_TRY(combine(Rule::kA, x, 1.0F, other, x, m * n));
    }
    return cudaSuccess;
  }

 private:
  static dim3 tiles(std::int64_t rows, std::int64_t columns) {
    return dim3(
        static_cast<unsigned>(math::block_count(rows, kTile) * math::block_count(columns, kTile)));
  }
  const StepArgs& args_;
  const Orthogonal& o_;
  cudaStream_t stream_;
};

}  // namespace

cudaError_t launch_orthogonal(const Matrix& matrix, const StepArgs& args, std::byte* workspace,
                              backend::StepStats* stats, cudaStream_t stream) {
  const Orthogonal o = orthogonal_of(matrix, workspace);
  const bool tall = o.rows > o.columns;
  const auto rows = static_cast<double>(o.rows);
  const auto columns = static_cast<double>(o.columns);
  const double by_shape = std::sqrt(std::max(1.0, rows / columns));
  const double like_adam = 0.2 * std::sqrt(std::max(rows, columns));
  NIBBLE_TRY(NIBBLE_LAUNCH(begin_orthogonal_kernel, dim3(1), dim3(1), 0, stream, args, o, o.x,
                           by_shape, like_adam));
  NIBBLE_TRY(launch_pass(matrix, 0, matrix.format, args, stats, stream));
  Iteration iteration(args, o, stream);
  if (!tall) {
    NIBBLE_TRY(iteration.orthogonalise(o.x, o.other, o.rows, o.columns, matrix.iterations));
  } else {
    NIBBLE_TRY(iteration.transpose(o.x, o.other, o.rows, o.columns));
    NIBBLE_TRY(iteration.orthogonalise(o.other, o.x, o.columns, o.rows, matrix.iterations));
    NIBBLE_TRY(iteration.transpose(o.other, o.x, o.columns, o.rows));
  }
  return launch_pass(matrix, 1, math::find_format("fp32"), args, nullptr, stream);
}

}  // namespace nibble::cuda
