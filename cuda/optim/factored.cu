// SPDX-License-Identifier: Apache-2.0
// Adafactor (math/rules/adafactor.h): the means of rows and columns, the update with its root mean
// square, then the clipped update through the element-wise step. Sums in the order of
// src/optim/factored.cc.
#include "backend/matrix_scratch.h"
#include "cuda/optim/matrix.cuh"
#include "cuda/optim/weight_io.cuh"

namespace nibble::cuda {
namespace {

using Rule = math::Adafactor;

constexpr int kTile = 32;

// By value to the kernels.
struct Factored : backend::FactoredScratch {
  std::uint32_t tensor, derived;
  std::int64_t count, rows, columns;
  float* row;  // the states, null for what is no matrix
  float* column;
  float* squares;  // the whole second moment then
};

Factored factored_of(const Matrix& matrix, std::byte* workspace) {
  const backend::DeviceTensor& param = matrix.param;
  return {backend::FactoredScratch::of(param.rows, param.task.columns, workspace),
          matrix.tensor,
          matrix.derived,
          param.count,
          param.rows,
          param.task.columns,
          param.factored_row,
          param.factored_column,
          reinterpret_cast<float*>(param.task.state[1].data)};
}

__device__ float grad_at(const StepArgs& args, const Factored& f, std::int64_t i) {
  const backend::Source& grads = args.tensors[f.tensor].task.grads;
  const float grad = element_of(grads, i);
  const Control& control = *args.control;
  const bool left_out = control.skip_elements != 0 && !is_finite(grad * control.finite_scale);
  return left_out ? 0.0F : grad * control.grad_scale;
}

__device__ const float* terms_of(const StepArgs& args, const Factored& f) {
  return args.groups[args.tensors[f.tensor].group].terms;
}

__device__ double square_at(const StepArgs& args, const Factored& f, std::int64_t i) {
  const double grad = grad_at(args, f, i);
  return grad * grad + double{terms_of(args, f)[Rule::kEps]};
}

__device__ float moved(const float* terms, float mean_before, double mean) {
  return math::saturate(double{terms[Rule::kBeta2]} * mean_before +
                        double{terms[Rule::kGain2]} * mean);
}

// A thread a column of a piece.
__global__ void __launch_bounds__(kWide) column_sums_kernel(StepArgs args, Factored f) {
  const std::int64_t i = thread_index();
  if (is_left_out(args, f.tensor) || i >= f.pieces * f.columns) {
    return;
  }
  const std::int64_t first = i / f.columns * f.rows_in_piece;
  const std::int64_t last = first + f.rows_in_piece < f.rows ? first + f.rows_in_piece : f.rows;
  double sum = 0.0;
  for (std::int64_t r = first; r < last; ++r) {
    sum += square_at(args, f, r * f.columns + i % f.columns);
  }
  f.partial[i] = sum;
}

// 32 rows a warp: a tile is read row by row, then each thread goes along its own row.
__global__ void __launch_bounds__(kTile) row_means_kernel(StepArgs args, Factored f) {
  NIBBLE_SHARED(double, tile, kTile*(kTile + 1));
  if (is_left_out(args, f.tensor)) {
    return;
  }
  const std::int64_t first = std::int64_t{blockIdx.x} * kTile;
  const int lane = static_cast<int>(threadIdx.x);
  double sum = 0.0;
  for (std::int64_t c0 = 0; c0 < f.columns; c0 += kTile) {
    for (int r = 0; r < kTile && first + r < f.rows; ++r) {
      if (c0 + lane < f.columns) {
        tile[r * (kTile + 1) + lane] = square_at(args, f, (first + r) * f.columns + c0 + lane);
      }
    }
    __syncthreads();
    for (int c = 0; c < kTile && c0 + c < f.columns && first + lane < f.rows; ++c) {
      sum += tile[lane * (kTile + 1) + c];
    }
    __syncthreads();
  }
  if (first + lane < f.rows) {
    f.row[first + lane] =
        moved(terms_of(args, f), f.row[first + lane], sum / static_cast<double>(f.columns));
  }
}

__global__ void __launch_bounds__(kWide) column_means_kernel(StepArgs args, Factored f) {
  const std::int64_t c = thread_index();
  if (is_left_out(args, f.tensor) || c >= f.columns) {
    return;
  }
  double sum = 0.0;
  for (std::int64_t piece = 0; piece < f.pieces; ++piece) {
    sum += f.partial[piece * f.columns + c];
  }
  f.column[c] = moved(terms_of(args, f), f.column[c], sum / static_cast<double>(f.rows));
  f.column_factor[c] = static_cast<float>(1.0 / std::sqrt(double{f.column[c]}));
}

// One thread block.
__global__ void __launch_bounds__(kWide) row_factors_kernel(StepArgs args, Factored f) {
  NIBBLE_SHARED(double, mean, 1);
  NIBBLE_SHARED(double, staged, kWide);
  if (is_left_out(args, f.tensor)) {
    return;
  }
  const double sum =
      sum_in_order_by_block(staged, f.rows, [&](std::int64_t r) { return double{f.row[r]}; });
  if (threadIdx.x == 0) {
    mean[0] = sum / static_cast<double>(f.rows);
  }
  __syncthreads();
  for (std::int64_t r = threadIdx.x; r < f.rows; r += kWide) {
    f.row_factor[r] = static_cast<float>(1.0 / std::sqrt(f.row[r] / mean[0]));
  }
}

__global__ void __launch_bounds__(kWide) factored_update_kernel(StepArgs args, Factored f) {
  const std::int64_t i = thread_index();
  if (is_left_out(args, f.tensor) || i >= f.count) {
    return;
  }
  f.update[i] =
      grad_at(args, f, i) * (f.row_factor[i / f.columns] * f.column_factor[i % f.columns]);
}

__global__ void __launch_bounds__(kWide) whole_update_kernel(StepArgs args, Factored f) {
  const std::int64_t i = thread_index();
  if (is_left_out(args, f.tensor) || i >= f.count) {
    return;
  }
  const float* terms = terms_of(args, f);
  const float grad = grad_at(args, f, i);
  f.squares[i] = math::saturate(terms[Rule::kBeta2] * f.squares[i] +
                                terms[Rule::kGain2] * (grad * grad + terms[Rule::kEps]));
  f.update[i] = grad / math::sqrt(f.squares[i]);
}

__device__ double sum_of_leaves(double* staged, const Factored& f, std::int64_t leaves) {
  return sum_in_order_by_block(staged, leaves, [&](std::int64_t i) { return f.sums[i]; });
}

// One thread block: what the element-wise step of the update takes.
__global__ void __launch_bounds__(kWide) conclude_factored_kernel(StepArgs args, Factored f) {
  NIBBLE_SHARED(double, staged, kWide);
  const bool left_out = is_left_out(args, f.tensor);
  const double squares = sum_of_leaves(staged, f, left_out ? 0 : f.leaves);
  if (threadIdx.x != 0) {
    return;
  }
  Tensor& derived = args.tensors[f.derived];
  derived.task.grads = {nullptr, false};
  if (left_out) {
    return;
  }
  const Group& group = args.groups[derived.group];
  const double rms = std::sqrt(squares / static_cast<double>(f.count));
  const double clip = std::max(1.0, rms / double{group.terms[Rule::kThreshold]});
  for (int i = 0; i < math::kMaxTerms; ++i) {
    derived.own_terms[i] = group.terms[i];
  }
  derived.task.grads.data = f.update;
  derived.task.grad_scale = static_cast<float>(1.0 / clip);
  const double step = -double{group.terms[Rule::kMinusStep]};
  derived.task.keep = static_cast<float>(1.0 - step * double{group.decay});
}

// A thread a leaf, in the order of elements.
__global__ void __launch_bounds__(kTile) weight_squares_kernel(StepArgs args, Factored f) {
  NIBBLE_SHARED(float, scratch, 1);  // of lanes that store; these only load
  const std::int64_t leaf = thread_index();
  if (is_left_out(args, f.tensor) || leaf >= f.leaves || terms_of(args, f)[Rule::kByRms] == 0.0F) {
    return;
  }
  const Tensor& tensor = args.tensors[f.tensor];
  double sum = 0.0;
  for (std::int64_t begin = leaf * backend::kSumLeaf;
       begin < f.count && begin < (leaf + 1) * backend::kSumLeaf; begin += kLane) {
    const std::int64_t left = f.count - begin;
    const Lane at{begin, static_cast<int>(left < kLane ? left : kLane)};
    float x[kLane];
    load_weights({tensor.task, at, tensor.task.random, scratch}, x);
    for (int i = 0; i < at.valid; ++i) {
      sum += double{x[i]} * double{x[i]};
    }
  }
  f.sums[leaf] = sum;
}

// One thread block, after conclude_factored_kernel: scale_parameter.
__global__ void __launch_bounds__(kWide) scale_by_weights_kernel(StepArgs args, Factored f) {
  NIBBLE_SHARED(double, staged, kWide);
  if (is_left_out(args, f.tensor) || terms_of(args, f)[Rule::kByRms] == 0.0F) {
    return;
  }
  const double total = sum_of_leaves(staged, f, f.leaves);
  if (threadIdx.x != 0) {
    return;
  }
  Tensor& derived = args.tensors[f.derived];
  const Group& group = args.groups[derived.group];
  const double rms =
      std::max(double{group.terms[Rule::kFloor]}, std::sqrt(total / static_cast<double>(f.count)));
  const double step = -double{group.terms[Rule::kMinusStep]} * rms;
  derived.own_terms[Rule::kMinusStep] = static_cast<float>(-step);
  derived.task.keep = static_cast<float>(1.0 - step * double{group.decay});
}

}  // namespace

cudaError_t launch_factored(const Matrix& matrix, const StepArgs& args, std::byte* workspace,
                            backend::StepStats* stats, cudaStream_t stream) {
  const Factored f = factored_of(matrix, workspace);
  const dim3 wide(kWide);
  if (f.row != nullptr) {
    const auto row_tiles = dim3(static_cast<unsigned>(math::block_count(f.rows, kTile)));
    NIBBLE_TRY(NIBBLE_LAUNCH(column_sums_kernel, wide_grid(f.pieces * f.columns), wide, 0, stream,
                             args, f));
    NIBBLE_TRY(NIBBLE_LAUNCH(row_means_kernel, row_tiles, dim3(kTile), 0, stream, args, f));
    NIBBLE_TRY(NIBBLE_LAUNCH(column_means_kernel, wide_grid(f.columns), wide, 0, stream, args, f));
    NIBBLE_TRY(NIBBLE_LAUNCH(row_factors_kernel, dim3(1), wide, 0, stream, args, f));
    NIBBLE_TRY(NIBBLE_LAUNCH(factored_update_kernel, wide_grid(f.count), wide, 0, stream, args, f));
  } else {
    NIBBLE_TRY(NIBBLE_LAUNCH(whole_update_kernel, wide_grid(f.count), wide, 0, stream, args, f));
  }
  NIBBLE_TRY(launch_squares(args, f.update, f.count, f.sums, stream));
  NIBBLE_TRY(NIBBLE_LAUNCH(conclude_factored_kernel, dim3(1), wide, 0, stream, args, f));
  NIBBLE_TRY(NIBBLE_LAUNCH(weight_squares_kernel,
                           dim3(static_cast<unsigned>(math::block_count(f.leaves, kTile))),
                           dim3(kTile), 0, stream, args, f));
  NIBBLE_TRY(NIBBLE_LAUNCH(scale_by_weights_kernel, dim3(1), wide, 0, stream, args, f));
  return launch_pass(matrix, 0, matrix.format, args, stats, stream);
}

}  // namespace nibble::cuda
