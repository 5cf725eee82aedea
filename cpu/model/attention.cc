// SPDX-License-Identifier: Apache-2.0
#include "cpu/model/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/parallel.h"
#include "cpu/model/gemm.h"
#include "cpu/model/simd_ops.h"

namespace nibble::cpu {
namespace {

constexpr std::int64_t kTile = 64;

// Scratch slots of a task; every tile is kTile rows high whatever the sequence's length, so that
// the products keep one shape.
enum Slot { kQuery, kKey, kValue, kScores, kProbabilities, kAccumulator, kGradients, kTurned };

Matrix tile_scratch(int slot, DType dtype, std::int64_t rows, std::int64_t cols) {
  void* data = thread_scratch(slot, static_cast<std::size_t>(rows * cols * dtype_bytes(dtype)));
  return {data, dtype, rows, cols, cols};
}

void clear(Matrix m) {
  std::memset(m.data, 0, static_cast<std::size_t>(m.rows * m.stride * dtype_bytes(m.dtype)));
}

// Rows [row, row + n) as a tile of kTile rows: in place when full, else a copy with zero rows.
ConstMatrix full_tile(ConstMatrix m, std::int64_t row, std::int64_t n, int slot) {
  if (n == kTile) {
    return m.row_range(row, kTile);
  }
  const Matrix copy = tile_scratch(slot, m.dtype, kTile, m.cols);
  clear(copy);
  for (std::int64_t i = 0; i < n; ++i) {
    std::memcpy(copy.block(i, 0, 1, m.cols).data, m.block(row + i, 0, 1, m.cols).data,
                static_cast<std::size_t>(m.cols * dtype_bytes(m.dtype)));
  }
  return copy;
}

void round_rows(ConstMatrix from, std::int64_t rows, Matrix to) {
  for (std::int64_t i = 0; i < rows; ++i) {
    round_row(from.row<float>(i), from.cols, 1.0F, to.dtype, to.block(i, 0, 1, to.cols).data);
  }
}

// to = from^T for square tiles, from fp32.
void turn(ConstMatrix from, Matrix to) {
  for (std::int64_t i = 0; i < kTile; ++i) {
    const float* row = from.row<float>(i);
    for (std::int64_t j = 0; j < kTile; ++j) {
      if (to.dtype == DType::kF32) {
        to.row<float>(j)[i] = row[j];
      } else {
        to.row<math::bf16>(j)[i] = math::float_to_bf16(row[j]);
      }
    }
  }
}

struct Head {  // one query head of one sequence
  std::int64_t start, length, head, kv_head, dim;
  float scale;
};

ConstMatrix head_columns(ConstMatrix m, std::int64_t head, std::int64_t dim) {
  return m.block(0, head * dim, m.rows, dim);
}
Matrix head_columns(Matrix m, std::int64_t head, std::int64_t dim) {
  return m.block(0, head * dim, m.rows, dim);
}

// Number of keys that query row `i` of the tile at q0 sees in the key tile at k0 of n keys.
std::int64_t visible(std::int64_t q0, std::int64_t i, std::int64_t k0, std::int64_t n) {
  return std::clamp<std::int64_t>(q0 + i + 1 - k0, 0, n);
}

// The running softmax of a tile of queries: acc and sums are relative to the maxima seen so far.
struct RunningSoftmax {
  float maximum[kTile], sum[kTile];

  // Turns scores into exp(scale * score - maximum); rescales acc where the maximum rises.
  void absorb(Matrix scores, Matrix acc, const Head& head, std::int64_t q0, std::int64_t rows,
              std::int64_t k0, std::int64_t keys) {
    for (std::int64_t i = 0; i < kTile; ++i) {
      float* row = scores.row<float>(i);
      const std::int64_t n = i < rows ? visible(q0, i, k0, keys) : 0;
      if (n > 0) {
        const float top = std::max(maximum[i], max_row(row, n) * head.scale);
        const float shrink = std::exp(maximum[i] - top);
        if (shrink != 1.0F) {
          scale_row(acc.row<float>(i), head.dim, shrink);
        }
        sum[i] = sum[i] * shrink + exp_row(row, n, head.scale, top);
        maximum[i] = top;
      }
      std::fill(row + n, row + kTile, 0.0F);
    }
  }
};

void forward_tile(const Head& head, std::int64_t q0, ConstMatrix q, ConstMatrix k, ConstMatrix v,
                  Matrix out, float* log_sum_exp) {
  const std::int64_t rows = std::min(kTile, head.length - q0);
  const ConstMatrix query = full_tile(q, head.start + q0, rows, kQuery);
  const Matrix scores = tile_scratch(kScores, DType::kF32, kTile, kTile);
  const Matrix acc = tile_scratch(kAccumulator, DType::kF32, kTile, head.dim);
  clear(acc);
  RunningSoftmax softmax;
  std::fill_n(softmax.maximum, kTile, -INFINITY);
  std::fill_n(softmax.sum, kTile, 0.0F);
  for (std::int64_t k0 = 0; k0 <= q0; k0 += kTile) {
    const std::int64_t keys = std::min(kTile, head.length - k0);
    gemm(query, full_tile(k, head.start + k0, keys, kKey), Transpose::kYes, scores, false);
    softmax.absorb(scores, acc, head, q0, rows, k0, keys);
    const Matrix p = tile_scratch(kProbabilities, q.dtype, kTile, kTile);
    round_rows(scores, kTile, p);
    gemm(p, full_tile(v, head.start + k0, keys, kValue), Transpose::kNo, acc, true);
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    round_row(acc.row<float>(i), head.dim, 1.0F / softmax.sum[i], out.dtype,
              out.block(head.start + q0 + i, 0, 1, head.dim).data);
    log_sum_exp[head.start + q0 + i] = softmax.maximum[i] + std::log(softmax.sum[i]);
  }
}

// delta[i] = d_out[i] . out[i]: the row term of the softmax gradient.
float row_delta(ConstMatrix d_out, ConstMatrix out, std::int64_t row, std::int64_t dim) {
  auto* a = static_cast<float*>(thread_scratch(kTurned, static_cast<std::size_t>(2 * dim) * 4));
  widen_row(d_out.block(row, 0, 1, dim).data, d_out.dtype, dim, a);
  widen_row(out.block(row, 0, 1, dim).data, out.dtype, dim, a + dim);
  return dot_row(a, a + dim, dim);
}

struct GradTensors {
  ConstMatrix d_out, q, k, v, out;
  const float* log_sum_exp;  // of this head, by token
  const float* delta;        // by position in the sequence
  Matrix dq_sum;             // fp32 [length rounded up, D]
  Matrix dk_sum, dv_sum;     // fp32 [kTile, D], of the key tile
};

// Adds what one tile of queries gives to dq and to the key tile's dk and dv.
void backward_tile(const Head& head, std::int64_t q0, std::int64_t k0, ConstMatrix key,
                   ConstMatrix value, const GradTensors& t) {
  const std::int64_t rows = std::min(kTile, head.length - q0);
  const std::int64_t keys = std::min(kTile, head.length - k0);
  const ConstMatrix query = full_tile(t.q, head.start + q0, rows, kQuery);
  const Matrix p = tile_scratch(kScores, DType::kF32, kTile, kTile);
  gemm(query, key, Transpose::kYes, p, false);
  for (std::int64_t i = 0; i < kTile; ++i) {
    const std::int64_t n = i < rows ? visible(q0, i, k0, keys) : 0;
    if (n > 0) {
      exp_row(p.row<float>(i), n, head.scale, t.log_sum_exp[head.start + q0 + i]);
    }
    std::fill(p.row<float>(i) + n, p.row<float>(i) + kTile, 0.0F);
  }
  const Matrix turned = tile_scratch(kTurned, t.q.dtype, kTile, kTile);
  turn(p, turned);
  // Query tile and output gradient share a slot in turn: dv and dp first, then dk and dq.
  const ConstMatrix d_out = full_tile(t.d_out, head.start + q0, rows, kAccumulator);
  gemm(turned, d_out, Transpose::kNo, t.dv_sum, true);
  const Matrix ds = tile_scratch(kProbabilities, DType::kF32, kTile, kTile);
  gemm(d_out, value, Transpose::kYes, ds, false);
  for (std::int64_t i = 0; i < kTile; ++i) {
    softmax_grad_row(p.row<float>(i), ds.row<float>(i), kTile, i < rows ? t.delta[q0 + i] : 0.0F,
                     head.scale);
  }
  turn(ds, turned);
  gemm(turned, query, Transpose::kNo, t.dk_sum, true);
  const Matrix ds_act = tile_scratch(kTurned, t.q.dtype, kTile, kTile);
  round_rows(ds, kTile, ds_act);
  gemm(ds_act, key, Transpose::kNo, t.dq_sum.row_range(q0, kTile), true);
}

}  // namespace

void attention(ConstMatrix q, ConstMatrix k, ConstMatrix v, const AttentionShape& shape, Matrix out,
               Matrix log_sum_exp) {
  const auto sequences = static_cast<std::int64_t>(shape.starts.size()) - 1;
  parallel_for(sequences * shape.heads, [&](std::int64_t task) {
    const std::int64_t s = task / shape.heads, h = task % shape.heads;
    const Head head{shape.starts[s],
                    shape.starts[s + 1] - shape.starts[s],
                    h,
                    h / (shape.heads / shape.kv_heads),
                    shape.head_dim,
                    1.0F / std::sqrt(static_cast<float>(shape.head_dim))};
    for (std::int64_t q0 = 0; q0 < head.length; q0 += kTile) {
      forward_tile(head, q0, head_columns(q, h, head.dim), head_columns(k, head.kv_head, head.dim),
                   head_columns(v, head.kv_head, head.dim), head_columns(out, h, head.dim),
                   log_sum_exp.row<float>(h));
    }
  });
}

namespace {

// All query heads that share one key/value head of one sequence: their sums into dk and dv have a
// fixed order, and no two tasks write the same place.
void backward_group(const AttentionShape& shape, std::int64_t s, std::int64_t kv, ConstMatrix d_out,
                    ConstMatrix q, ConstMatrix k, ConstMatrix v, ConstMatrix out,
                    ConstMatrix log_sum_exp, Matrix dq, Matrix dk, Matrix dv) {
  const std::int64_t start = shape.starts[s], length = shape.starts[s + 1] - start;
  const std::int64_t dim = shape.head_dim, group = shape.heads / shape.kv_heads;
  const std::int64_t padded = (length + kTile - 1) / kTile * kTile;
  std::vector<float> dq_sums(static_cast<std::size_t>(group * padded * dim));
  std::vector<float> deltas(static_cast<std::size_t>(group * length));
  std::vector<float> dkv(static_cast<std::size_t>(2 * kTile * dim));
  const Matrix dk_sum{dkv.data(), DType::kF32, kTile, dim, dim};
  const Matrix dv_sum{dkv.data() + kTile * dim, DType::kF32, kTile, dim, dim};
  const auto dq_of = [&](std::int64_t g) {
    return Matrix{dq_sums.data() + g * padded * dim, DType::kF32, padded, dim, dim};
  };
  for (std::int64_t g = 0; g < group; ++g) {
    const std::int64_t h = kv * group + g;
    for (std::int64_t i = 0; i < length; ++i) {
      deltas[static_cast<std::size_t>(g * length + i)] =
          row_delta(head_columns(d_out, h, dim), head_columns(out, h, dim), start + i, dim);
    }
  }
  for (std::int64_t k0 = 0; k0 < length; k0 += kTile) {
    const std::int64_t keys = std::min(kTile, length - k0);
    const ConstMatrix key = full_tile(head_columns(k, kv, dim), start + k0, keys, kKey);
    const ConstMatrix value = full_tile(head_columns(v, kv, dim), start + k0, keys, kValue);
    std::fill(dkv.begin(), dkv.end(), 0.0F);
    for (std::int64_t g = 0; g < group; ++g) {
      const std::int64_t h = kv * group + g;
      const Head head{start, length, h, kv, dim, 1.0F / std::sqrt(static_cast<float>(dim))};
      const GradTensors tensors{
          head_columns(d_out, h, dim), head_columns(q, h, dim),    k,        v,      out,
          log_sum_exp.row<float>(h),   deltas.data() + g * length, dq_of(g), dk_sum, dv_sum};
      for (std::int64_t q0 = k0; q0 < length; q0 += kTile) {
        backward_tile(head, q0, k0, key, value, tensors);
      }
    }
    round_rows(dk_sum, keys, head_columns(dk, kv, dim).row_range(start + k0, keys));
    round_rows(dv_sum, keys, head_columns(dv, kv, dim).row_range(start + k0, keys));
  }
  for (std::int64_t g = 0; g < group; ++g) {
    round_rows(dq_of(g), length, head_columns(dq, kv * group + g, dim).row_range(start, length));
  }
}

}  // namespace

void attention_grad(ConstMatrix d_out, ConstMatrix q, ConstMatrix k, ConstMatrix v, ConstMatrix out,
                    ConstMatrix log_sum_exp, const AttentionShape& shape, Matrix dq, Matrix dk,
                    Matrix dv) {
  const auto sequences = static_cast<std::int64_t>(shape.starts.size()) - 1;
  parallel_for(sequences * shape.kv_heads, [&](std::int64_t task) {
    backward_group(shape, task / shape.kv_heads, task % shape.kv_heads, d_out, q, k, v, out,
                   log_sum_exp, dq, dk, dv);
  });
}

void attention_decode(ConstMatrix q, ConstMatrix k, ConstMatrix v, const AttentionShape& shape,
                      Matrix out) {
  const std::int64_t dim = shape.head_dim, keys = k.rows;
  const float scale = 1.0F / std::sqrt(static_cast<float>(dim));
  parallel_for(shape.heads, [&](std::int64_t h) {
    const std::int64_t kv = h / (shape.heads / shape.kv_heads);
    std::vector<float> scores(static_cast<std::size_t>(keys));
    std::vector<float> rows(static_cast<std::size_t>(3 * dim));
    float *query = rows.data(), *row = query + dim, *acc = row + dim;
    widen_row(head_columns(q, h, dim).data, q.dtype, dim, query);
    for (std::int64_t i = 0; i < keys; ++i) {
      widen_row(head_columns(k, kv, dim).block(i, 0, 1, dim).data, k.dtype, dim, row);
      scores[static_cast<std::size_t>(i)] = dot_row(query, row, dim);
    }
    const float top = max_row(scores.data(), keys) * scale;
    const float sum = exp_row(scores.data(), keys, scale, top);
    for (std::int64_t i = 0; i < keys; ++i) {
      widen_row(head_columns(v, kv, dim).block(i, 0, 1, dim).data, v.dtype, dim, row);
      for (std::int64_t j = 0; j < dim; ++j) {
        acc[j] += scores[static_cast<std::size_t>(i)] * row[j];
      }
    }
    round_row(acc, dim, 1.0F / sum, out.dtype, head_columns(out, h, dim).data);
  });
}

}  // namespace nibble::cpu
