// SPDX-License-Identifier: Apache-2.0
// The buffers of a pass over the decoder. They only grow, so that a run's peak is reached in its
// largest step and stays there.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "backend/matrix.h"
#include "core/buffer.h"
#include "model/config.h"

namespace nibble::model {

using backend::ConstMatrix;
using backend::DType;
using backend::Matrix;

// A matrix with its memory.
class Tensor {
 public:
  void resize(DType dtype, std::int64_t rows, std::int64_t cols) {
    buffer_.reserve(static_cast<std::size_t>(rows * cols * backend::dtype_bytes(dtype)));
    view_ = {buffer_.data(), dtype, rows, cols, cols};
  }
  const Matrix& view() const { return view_; }
  // Zero rows from `first` on: those that a batch does not fill.
  void clear_from(std::int64_t first) {
    const Matrix rest = view_.row_range(first, view_.rows - first);
    std::memset(rest.data, 0,
                static_cast<std::size_t>(rest.rows * rest.cols * dtype_bytes(rest.dtype)));
  }

 private:
  Buffer buffer_;
  Matrix view_;
};

// What the backward pass of one layer needs of its forward pass (beside the layer's input).
struct LayerCache {
  Tensor attention_in, q, k, v, attention_out, log_sum_exp;  // normed input, after rope, ...
  Tensor middle;                                             // the residual after attention, fp32
  Tensor feed_forward_in, gate, up;
  Tensor low_rank[kLinears];  // x A^T of the adapted layers
  std::vector<float> inverse_rms[2];

  void resize(const LlamaConfig& config, DType act, std::int64_t rows, std::int64_t rank,
              const bool (&targets)[kLinears]);
};

// Scratch that layers share, one after the other.
struct SharedScratch {
  Tensor activated;  // silu(gate) * up, act
  Tensor dropped;    // a layer's input after dropout, act
  Tensor dy, d_activated, d_gate, d_up;
  Tensor d_normed, d_low_rank, d_attention, d_attention_act, dq, dk, dv, extra;

  void resize_forward(const LlamaConfig& config, DType act, std::int64_t rows);
  void resize_backward(const LlamaConfig& config, DType act, std::int64_t rows, std::int64_t rank);
};

}  // namespace nibble::model
