// SPDX-License-Identifier: Apache-2.0
// The end of the decoder: final norm, head and loss, over chunks of rows that have a target.
#include <algorithm>
#include <cstring>

#include "model/pass.h"

namespace nibble::model {
namespace {

// Rows are processed in multiples of this, so that products keep few shapes.
constexpr std::int64_t kRowStep = 32;

struct HeadScratch {
  Tensor x, normed, logits, d_normed, d_x;
  std::vector<float> inverse_rms;

  void resize(const PassContext& pass, std::int64_t rows, bool gradient) {
    const std::int64_t width = pass.config.width;
    x.resize(DType::kF32, rows, width);
    normed.resize(pass.ops.act(), rows, width);
    logits.resize(DType::kF32, rows, pass.config.vocabulary);
    if (gradient) {
      d_normed.resize(DType::kF32, rows, width);
      d_x.resize(DType::kF32, rows, width);
    }
    inverse_rms.resize(static_cast<std::size_t>(rows));
  }
};

void copy_row(ConstMatrix from, std::int64_t i, Matrix to, std::int64_t j) {
  std::memcpy(to.row<float>(j), from.row<float>(i),
              static_cast<std::size_t>(from.cols) * sizeof(float));
}

// Norm and head of the rows in s.x.
void chunk_logits(const PassContext& pass, HeadScratch& s) {
  pass.ops.rms_norm(s.x.view(), pass.weights.output_norm, pass.config.rms_epsilon, s.normed.view(),
                    s.inverse_rms);
  pass.ops.linear(s.normed.view(), pass.weights.head, {}, s.logits.view(), false);
}

// The gradient of the logits lies over them, in the compute dtype: row i at the same address.
Matrix gradient_over(Matrix logits, DType act) {
  const std::int64_t factor = backend::dtype_bytes(DType::kF32) / backend::dtype_bytes(act);
  return {logits.data, act, logits.rows, logits.cols, logits.stride * factor};
}

void chunk_backward(const PassContext& pass, HeadScratch& s) {
  const Matrix d_logits = gradient_over(s.logits.view(), pass.ops.act());
  pass.ops.linear_grad_input(d_logits, pass.weights.head, {}, s.d_normed.view(), false);
  s.d_x.clear_from(0);
  pass.ops.rms_norm_grad(s.d_normed.view(), s.x.view(), pass.weights.output_norm, s.inverse_rms,
                         s.d_x.view());
}

}  // namespace

double head_loss(const PassContext& pass, ConstMatrix x, std::span<const std::int32_t> targets,
                 float scale, Matrix d_x, std::vector<double>* losses) {
  std::vector<std::int64_t> rows;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] >= 0) {
      rows.push_back(static_cast<std::int64_t>(i));
    }
  }
  HeadScratch s;
  double total = 0;
  const auto count = static_cast<std::int64_t>(rows.size());
  for (std::int64_t first = 0; first < count; first += kHeadChunk) {
    const std::int64_t n = std::min(kHeadChunk, count - first);
    const std::int64_t padded = (n + kRowStep - 1) / kRowStep * kRowStep;
    s.resize(pass, padded, !d_x.empty());
    s.x.clear_from(n);
    std::vector<std::int32_t> wanted(static_cast<std::size_t>(n));
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t row = rows[static_cast<std::size_t>(first + i)];
      copy_row(x, row, s.x.view(), i);
      wanted[static_cast<std::size_t>(i)] = targets[static_cast<std::size_t>(row)];
    }
    chunk_logits(pass, s);
    std::vector<double> terms(static_cast<std::size_t>(n));
    const Matrix logits = s.logits.view();
    const Matrix gradient = d_x.empty() ? Matrix{} : gradient_over(logits, pass.ops.act());
    pass.ops.softmax_cross_entropy(logits.row_range(0, n), wanted, scale, terms, gradient);
    for (const double term : terms) {
      total += term;
    }
    if (losses != nullptr) {
      losses->insert(losses->end(), terms.begin(), terms.end());
    }
    if (d_x.empty()) {
      continue;
    }
    for (std::int64_t i = n; i < padded; ++i) {  // rows without a target
      const Matrix row = gradient.row_range(i, 1);
      std::memset(row.data, 0, static_cast<std::size_t>(row.cols * dtype_bytes(row.dtype)));
    }
    chunk_backward(pass, s);
    for (std::int64_t i = 0; i < n; ++i) {
      copy_row(s.d_x.view(), i, d_x, rows[static_cast<std::size_t>(first + i)]);
    }
  }
  return total;
}

void head_logits(const PassContext& pass, ConstMatrix x, std::int64_t first, std::int64_t n,
                 float* out) {
  HeadScratch s;
  for (std::int64_t done = 0; done < n; done += kHeadChunk) {
    const std::int64_t rows = std::min(kHeadChunk, n - done);
    s.resize(pass, rows, false);
    for (std::int64_t i = 0; i < rows; ++i) {
      copy_row(x, first + done + i, s.x.view(), i);
    }
    chunk_logits(pass, s);
    std::memcpy(out + done * pass.config.vocabulary, s.logits.view().data,
                static_cast<std::size_t>(rows * pass.config.vocabulary) * sizeof(float));
  }
}

}  // namespace nibble::model
