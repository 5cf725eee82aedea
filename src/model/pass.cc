// SPDX-License-Identifier: Apache-2.0
#include "model/pass.h"

#include <cstring>

namespace nibble::model {
namespace {

using backend::LowRank;
using backend::QuantizedMatrix;

const QuantizedMatrix& weight(const PassContext& pass, std::int64_t layer, Linear which) {
  return pass.weights.layers[static_cast<std::size_t>(layer)].linear[static_cast<int>(which)];
}

const LoraPair* pair_of(const PassContext& pass, std::int64_t layer, Linear which) {
  return pass.adapter == nullptr ? nullptr : pass.adapter->find(layer, which);
}

math::RandomStream dropout_stream(const PassContext& pass, const LoraPair& pair) {
  return {pass.seed, math::tensor_id(pair.gguf_name().c_str()), pass.micro_step,
          math::RandomPurpose::kDropout};
}

// The input of the low-rank branch: x, or x after dropout (in scratch).
ConstMatrix branch_input(const PassContext& pass, const LoraPair& pair, ConstMatrix x) {
  if (pass.dropout_keep >= 1) {
    return x;
  }
  Matrix out = pass.scratch.dropped.view();
  out = {out.data, out.dtype, x.rows, x.cols, x.cols};
  pass.ops.dropout(x, dropout_stream(pass, pair), pass.dropout_keep, out);
  return out;
}

// y = W x (+ the low-rank term), keeping x A^T in the cache.
void linear_forward(const PassContext& pass, std::int64_t layer, Linear which, ConstMatrix x,
                    Matrix y, bool accumulate, LayerCache& cache) {
  LowRank term;
  if (const LoraPair* pair = pair_of(pass, layer, which); pair != nullptr) {
    const Matrix u = cache.low_rank[static_cast<int>(which)].view();
    pass.ops.project(branch_input(pass, *pair, x), pass.adapter->a(*pair, pass.ops.act()),
                     pass.adapter->config().scale(), u);
    term = {u, pass.adapter->b_transposed(*pair, pass.ops.act())};
  }
  pass.ops.linear(x, weight(pass, layer, which), term, y, accumulate);
}

// Adds to the gradients of A and B; with a dx, dx (+)= gradient of the input.
void linear_backward(const PassContext& pass, std::int64_t layer, Linear which, ConstMatrix x,
                     ConstMatrix dy, Matrix dx, bool accumulate, LayerCache& cache) {
  LowRank term;
  const LoraPair* pair = pair_of(pass, layer, which);
  if (pair != nullptr) {
    const std::int64_t r = pass.adapter->config().rank;
    const Matrix v = pass.scratch.d_low_rank.view();
    pass.ops.project(dy, pass.adapter->b_transposed(*pair, pass.ops.act()),
                     pass.adapter->config().scale(), v);
    pass.ops.outer_accumulate(cache.low_rank[static_cast<int>(which)].view(), dy,
                              {pair->b_transposed_grad, DType::kF32, r, dy.cols, dy.cols});
    pass.ops.outer_accumulate(v, branch_input(pass, *pair, x),
                              {pair->a_grad, DType::kF32, r, x.cols, x.cols});
    term = {v, pass.adapter->a(*pair, pass.ops.act())};
  }
  if (dx.empty()) {
    return;
  }
  if (pair == nullptr || pass.dropout_keep >= 1) {
    pass.ops.linear_grad_input(dy, weight(pass, layer, which), term, dx, accumulate);
    return;
  }
  pass.ops.linear_grad_input(dy, weight(pass, layer, which), {}, dx, accumulate);
  Tensor& extra = pass.scratch.extra;
  extra.resize(DType::kF32, dx.rows, dx.cols);
  pass.ops.low_rank_product(term, extra.view());
  pass.ops.dropout(extra.view(), dropout_stream(pass, *pair), pass.dropout_keep, extra.view());
  pass.ops.add(extra.view(), dx);
}

void copy(ConstMatrix from, Matrix to) {
  for (std::int64_t i = 0; i < from.rows; ++i) {
    std::memcpy(to.row_range(i, 1).data, from.row_range(i, 1).data,
                static_cast<std::size_t>(from.cols * backend::dtype_bytes(from.dtype)));
  }
}

void attention_forward(const PassContext& pass, std::int64_t layer, ConstMatrix x,
                       LayerCache& cache, const CacheSlot* slot) {
  const LayerWeights& w = pass.weights.layers[static_cast<std::size_t>(layer)];
  const Matrix normed = cache.attention_in.view();
  pass.ops.rms_norm(x, w.attention_norm, pass.config.rms_epsilon, normed, cache.inverse_rms[0]);
  const Matrix q = cache.q.view(), k = cache.k.view(), v = cache.v.view();
  linear_forward(pass, layer, Linear::kQuery, normed, q, false, cache);
  linear_forward(pass, layer, Linear::kKey, normed, k, false, cache);
  linear_forward(pass, layer, Linear::kValue, normed, v, false, cache);
  const std::int64_t first = slot == nullptr ? 0 : slot->position;
  pass.ops.rope(q, pass.shape, first, pass.rope_cos, pass.rope_sin, false);
  pass.ops.rope(k, pass.shape, first, pass.rope_cos, pass.rope_sin, false);
  if (slot != nullptr) {
    copy(k.row_range(0, pass.tokens), slot->k.row_range(first, pass.tokens));
    copy(v.row_range(0, pass.tokens), slot->v.row_range(first, pass.tokens));
  }
  if (first > 0) {
    for (std::int64_t i = 0; i < pass.tokens; ++i) {
      pass.ops.attention_decode(q.row_range(i, 1), slot->k.row_range(0, first + i + 1),
                                slot->v.row_range(0, first + i + 1), pass.shape,
                                cache.attention_out.view().row_range(i, 1));
    }
  } else {
    pass.ops.attention(q, k, v, pass.shape, cache.attention_out.view(), cache.log_sum_exp.view());
  }
  cache.attention_out.clear_from(pass.tokens);
}

}  // namespace

void layer_forward(const PassContext& pass, std::int64_t layer, ConstMatrix x, Matrix out,
                   LayerCache& cache, const CacheSlot* slot) {
  attention_forward(pass, layer, x, cache, slot);
  const Matrix middle = cache.middle.view();
  copy(x, middle);
  linear_forward(pass, layer, Linear::kOutput, cache.attention_out.view(), middle, true, cache);

  const LayerWeights& w = pass.weights.layers[static_cast<std::size_t>(layer)];
  const Matrix normed = cache.feed_forward_in.view();
  pass.ops.rms_norm(middle, w.feed_forward_norm, pass.config.rms_epsilon, normed,
                    cache.inverse_rms[1]);
  linear_forward(pass, layer, Linear::kGate, normed, cache.gate.view(), false, cache);
  linear_forward(pass, layer, Linear::kUp, normed, cache.up.view(), false, cache);
  const Matrix activated = pass.scratch.activated.view();
  pass.ops.swiglu(cache.gate.view(), cache.up.view(), activated);
  copy(middle, out);
  linear_forward(pass, layer, Linear::kDown, activated, out, true, cache);
}

namespace {

// dx += what flows back through the feed-forward half.
void feed_forward_backward(const PassContext& pass, std::int64_t layer, LayerCache& cache,
                           Matrix dx) {
  SharedScratch& s = pass.scratch;
  const LayerWeights& w = pass.weights.layers[static_cast<std::size_t>(layer)];
  const Matrix activated = s.activated.view(), dy = s.dy.view();
  pass.ops.convert(dx, dy);
  pass.ops.swiglu(cache.gate.view(), cache.up.view(), activated);
  linear_backward(pass, layer, Linear::kDown, activated, dy, s.d_activated.view(), false, cache);
  pass.ops.swiglu_grad(s.d_activated.view(), cache.gate.view(), cache.up.view(), s.d_gate.view(),
                       s.d_up.view());
  const Matrix normed = cache.feed_forward_in.view(), d_normed = s.d_normed.view();
  linear_backward(pass, layer, Linear::kGate, normed, s.d_gate.view(), d_normed, false, cache);
  linear_backward(pass, layer, Linear::kUp, normed, s.d_up.view(), d_normed, true, cache);
  pass.ops.rms_norm_grad(d_normed, cache.middle.view(), w.feed_forward_norm, cache.inverse_rms[1],
                         dx);
}

void attention_backward(const PassContext& pass, std::int64_t layer, ConstMatrix x,
                        LayerCache& cache, Matrix dx) {
  SharedScratch& s = pass.scratch;
  const LayerWeights& w = pass.weights.layers[static_cast<std::size_t>(layer)];
  pass.ops.convert(dx, s.dy.view());
  linear_backward(pass, layer, Linear::kOutput, cache.attention_out.view(), s.dy.view(),
                  s.d_attention.view(), false, cache);
  pass.ops.convert(s.d_attention.view(), s.d_attention_act.view());
  const Matrix dq = s.dq.view(), dk = s.dk.view(), dv = s.dv.view();
  for (Tensor* t : {&s.dq, &s.dk, &s.dv}) {
    t->clear_from(pass.tokens);
  }
  pass.ops.attention_grad(s.d_attention_act.view(), cache.q.view(), cache.k.view(), cache.v.view(),
                          cache.attention_out.view(), cache.log_sum_exp.view(), pass.shape, dq, dk,
                          dv);
  pass.ops.rope(dq, pass.shape, 0, pass.rope_cos, pass.rope_sin, true);
  pass.ops.rope(dk, pass.shape, 0, pass.rope_cos, pass.rope_sin, true);
  const bool input_needed = layer > 0;
  const Matrix normed = cache.attention_in.view();
  const Matrix d_normed = input_needed ? s.d_normed.view() : Matrix{};
  linear_backward(pass, layer, Linear::kQuery, normed, dq, d_normed, false, cache);
  linear_backward(pass, layer, Linear::kKey, normed, dk, d_normed, true, cache);
  linear_backward(pass, layer, Linear::kValue, normed, dv, d_normed, true, cache);
  if (input_needed) {
    pass.ops.rms_norm_grad(d_normed, x, w.attention_norm, cache.inverse_rms[0], dx);
  }
}

}  // namespace

void layer_backward(const PassContext& pass, std::int64_t layer, ConstMatrix x, LayerCache& cache,
                    Matrix dx) {
  feed_forward_backward(pass, layer, cache, dx);
  attention_backward(pass, layer, x, cache, dx);
}

}  // namespace nibble::model
