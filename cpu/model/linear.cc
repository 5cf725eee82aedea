// SPDX-License-Identifier: Apache-2.0
#include "cpu/model/linear.h"

#include <algorithm>

#include "core/parallel.h"
#include "cpu/model/simd_ops.h"

namespace nibble::cpu {
namespace {

using backend::LowRank;
using backend::QuantizedMatrix;

// Tile sides. 256 tokens amortise the decoding of a weight over 512 operations; a decoded tile of
// 192 outputs or 96 inputs stays in a 1 MiB second-level cache for widths of a few thousand.
constexpr std::int64_t kTokens = 256;
constexpr std::int64_t kOutputs = 192;
constexpr std::int64_t kInputs = 96;
constexpr std::int64_t kReduced = 2048;  // outputs reduced at a time in the input gradient

enum ScratchSlot { kWeightSlot = 0, kResultSlot = 1, kTransposedSlot = 2 };

constexpr std::int64_t tiles(std::int64_t n, std::int64_t tile) { return (n + tile - 1) / tile; }

Matrix scratch_matrix(int slot, DType dtype, std::int64_t rows, std::int64_t cols) {
  void* data = thread_scratch(slot, static_cast<std::size_t>(rows * cols * dtype_bytes(dtype)));
  return {data, dtype, rows, cols, cols};
}

// Rows [row, row + rows) and columns [col, col + cols) of the weight; col on a block boundary.
Matrix decoded(const QuantizedMatrix& weight, DType act, std::int64_t row, std::int64_t rows,
               std::int64_t col, std::int64_t cols) {
  const Matrix tile = scratch_matrix(kWeightSlot, act, rows, cols);
  const std::int64_t block = math::ggml_type_info(weight.type).block_elements;
  decode_tile(weight, row, rows, col / block, cols / block, act, tile.data, tile.stride);
  return tile;
}

void round_tile(ConstMatrix from, float scale, Matrix to) {
  for (std::int64_t i = 0; i < from.rows; ++i) {
    round_row(from.row<float>(i), from.cols, scale, to.dtype, to.block(i, 0, 1, to.cols).data);
  }
}

// y = x w^T + left right for one tile.
void linear_tile(ConstMatrix x, ConstMatrix w, const LowRank& low_rank, Matrix y, bool accumulate) {
  if (low_rank.left.empty() || y.dtype == DType::kF32) {
    gemm(x, w, Transpose::kYes, y, accumulate);
    if (!low_rank.left.empty()) {
      gemm(low_rank.left, low_rank.right, Transpose::kNo, y, true);
    }
    return;
  }
  // Both terms are summed in fp32 and rounded once.
  const Matrix sum = scratch_matrix(kResultSlot, DType::kF32, y.rows, y.cols);
  gemm(x, w, Transpose::kYes, sum, false);
  gemm(low_rank.left, low_rank.right, Transpose::kNo, sum, true);
  round_tile(sum, 1.0F, y);
}

LowRank low_rank_tile(const LowRank& whole, std::int64_t row, std::int64_t rows, std::int64_t col,
                      std::int64_t cols) {
  if (whole.left.empty()) {
    return {};
  }
  return {whole.left.row_range(row, rows), whole.right.block(0, col, whole.right.rows, cols)};
}

}  // namespace

void linear(DType act, ConstMatrix x, const QuantizedMatrix& weight, const LowRank& low_rank,
            Matrix y, bool accumulate) {
  const std::int64_t across = tiles(weight.rows, kOutputs);
  const std::int64_t down = tiles(x.rows, kTokens);
  // Enough tasks for the threads; otherwise a task keeps its decoded tile for more tokens. The
  // grouping changes no product, so it may depend on the number of threads.
  const std::int64_t groups = std::clamp<std::int64_t>(4 * thread_count() / across, 1, down);
  parallel_for(across * groups, [&](std::int64_t task) {
    const std::int64_t n0 = task / groups * kOutputs;
    const std::int64_t n = std::min(kOutputs, weight.rows - n0);
    const Matrix w = decoded(weight, act, n0, n, 0, weight.cols);
    for (std::int64_t tile = task % groups; tile < down; tile += groups) {
      const std::int64_t m0 = tile * kTokens;
      const std::int64_t m = std::min(kTokens, x.rows - m0);
      linear_tile(x.row_range(m0, m), w, low_rank_tile(low_rank, m0, m, n0, n),
                  y.block(m0, n0, m, n), accumulate);
    }
  });
}

void linear_grad_input(DType act, ConstMatrix dy, const QuantizedMatrix& weight,
                       const LowRank& low_rank, Matrix dx, bool accumulate) {
  const std::int64_t across = tiles(weight.cols, kInputs);
  const std::int64_t down = tiles(dy.rows, kTokens);
  const std::int64_t groups = std::clamp<std::int64_t>(4 * thread_count() / across, 1, down);
  parallel_for(across * groups, [&](std::int64_t task) {
    const std::int64_t k0 = task / groups * kInputs;
    const std::int64_t k = std::min(kInputs, weight.cols - k0);
    for (std::int64_t n0 = 0; n0 < weight.rows; n0 += kReduced) {
      const std::int64_t n = std::min(kReduced, weight.rows - n0);
      const Matrix w = decoded(weight, act, n0, n, k0, k);
      for (std::int64_t tile = task % groups; tile < down; tile += groups) {
        const std::int64_t m0 = tile * kTokens;
        const std::int64_t m = std::min(kTokens, dy.rows - m0);
        const Matrix out = dx.block(m0, k0, m, k);
        gemm(dy.block(m0, n0, m, n), w, Transpose::kNo, out, accumulate || n0 > 0);
        if (n0 + n == weight.rows && !low_rank.left.empty()) {
          const LowRank part = low_rank_tile(low_rank, m0, m, k0, k);
          gemm(part.left, part.right, Transpose::kNo, out, true);
        }
      }
    }
  });
}

void project(ConstMatrix x, ConstMatrix a, float scale, Matrix out) {
  parallel_for(tiles(x.rows, kTokens), [&](std::int64_t tile) {
    const std::int64_t m0 = tile * kTokens;
    const std::int64_t m = std::min(kTokens, x.rows - m0);
    const Matrix sum = scratch_matrix(kResultSlot, DType::kF32, m, a.rows);
    gemm(x.row_range(m0, m), a, Transpose::kYes, sum, false);
    round_tile(sum, scale, out.row_range(m0, m));
  });
}

namespace {

template <class T>
void transpose(ConstMatrix from, Matrix to) {
  for (std::int64_t i = 0; i < from.rows; ++i) {
    for (std::int64_t j = 0; j < from.cols; ++j) {
      to.row<T>(j)[i] = from.row<T>(i)[j];
    }
  }
}

}  // namespace

void outer_accumulate(ConstMatrix left, ConstMatrix right, Matrix grad) {
  parallel_for(tiles(right.cols, kOutputs), [&](std::int64_t tile) {
    const std::int64_t k0 = tile * kOutputs;
    const std::int64_t k = std::min(kOutputs, right.cols - k0);
    const Matrix turned = scratch_matrix(kTransposedSlot, left.dtype, left.cols, left.rows);
    if (left.dtype == DType::kF32) {
      transpose<float>(left, turned);
    } else {
      transpose<math::bf16>(left, turned);
    }
    gemm(turned, right.block(0, k0, right.rows, k), Transpose::kNo, grad.block(0, k0, grad.rows, k),
         true);
  });
}

}  // namespace nibble::cpu
