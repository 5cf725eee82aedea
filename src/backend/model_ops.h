// SPDX-License-Identifier: Apache-2.0
// The contract between the trainer's model and a device: what a decoder layer needs, forward and
// backward. cpu/model implements it.
//
// Conventions. T = tokens of a batch, d = width, r = LoRA rank. "act" is the compute dtype (fp32 or
// bf16); the residual stream, its gradient, statistics and accumulators are fp32. Buffers are the
// caller's; none may alias unless said. Rows that a batch does not fill are the caller's to zero.
// Every result is the same for any number of threads. Errors: only out-of-memory is thrown; shapes
// are the caller's duty. Not thread-safe: one caller at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "backend/matrix.h"
#include "math/philox.h"

namespace nibble::backend {

// The low-rank term of a linear layer: left [M, r] * right [r, columns of the result] is added to
// the result. Both act. Empty: no such term.
struct LowRank {
  ConstMatrix left, right;
};

// Sequences side by side: s is rows [starts[s], starts[s + 1]).
struct AttentionShape {
  std::span<const std::int64_t> starts;
  std::int64_t heads, kv_heads, head_dim;
};

class ModelOps {
 public:
  virtual ~ModelOps() = default;

  virtual DType act() const = 0;

  // out[t] = table[ids[t]]; out fp32 [T, d].
  virtual void embed(const QuantizedMatrix& table, std::span<const std::int32_t> ids,
                     Matrix out) = 0;

  // y = x W^T (+ low-rank term). x act [M, K]; y act or fp32 [M, N]; with accumulate y += (fp32 y).
  virtual void linear(ConstMatrix x, const QuantizedMatrix& weight, const LowRank& low_rank,
                      Matrix y, bool accumulate) = 0;
  // dx = dy W (+ low-rank term). dy act [M, N]; dx fp32 [M, K].
  virtual void linear_grad_input(ConstMatrix dy, const QuantizedMatrix& weight,
                                 const LowRank& low_rank, Matrix dx, bool accumulate) = 0;
  // out = left * right of the term; out fp32.
  virtual void low_rank_product(const LowRank& term, Matrix out) = 0;
  // out += x; both fp32.
  virtual void add(ConstMatrix x, Matrix out) = 0;
  // out = scale * x * a^T; x act [M, K], a act [r, K], out act [M, r].
  virtual void project(ConstMatrix x, ConstMatrix a, float scale, Matrix out) = 0;
  // grad += left^T * right; left act [M, r], right act [M, K], grad fp32 [r, K].
  virtual void outer_accumulate(ConstMatrix left, ConstMatrix right, Matrix grad) = 0;

  // RMSNorm (Zhang & Sennrich 2019): out = x * weight / sqrt(mean(x^2) + eps). x fp32, out act;
  // inverse_rms fp32 [T] is kept for the backward pass.
  virtual void rms_norm(ConstMatrix x, std::span<const float> weight, float eps, Matrix out,
                        std::span<float> inverse_rms) = 0;
  // dx += gradient of rms_norm; dy, x, dx fp32.
  virtual void rms_norm_grad(ConstMatrix dy, ConstMatrix x, std::span<const float> weight,
                             std::span<const float> inverse_rms, Matrix dx) = 0;

  // Rotary embedding on pairs (2i, 2i + 1) of each head, in place, position = row - start of its
  // sequence + first_position. cos and sin: fp32 [positions, head_dim / 2]. `inverse` rotates back
  // (the gradient).
  virtual void rope(Matrix x, const AttentionShape& shape, std::int64_t first_position,
                    ConstMatrix cos, ConstMatrix sin, bool inverse) = 0;

  // Causal attention inside each sequence, grouped heads, softmax scale 1/sqrt(head_dim), in tiles
  // (Dao et al. 2022): no T x T matrix. q, out act [T, heads * D]; k, v act [T, kv_heads * D];
  // log_sum_exp fp32 [heads, T].
  virtual void attention(ConstMatrix q, ConstMatrix k, ConstMatrix v, const AttentionShape& shape,
                         Matrix out, Matrix log_sum_exp) = 0;
  virtual void attention_grad(ConstMatrix d_out, ConstMatrix q, ConstMatrix k, ConstMatrix v,
                              ConstMatrix out, ConstMatrix log_sum_exp, const AttentionShape& shape,
                              Matrix dq, Matrix dk, Matrix dv) = 0;
  // One new token against the cache: q act [1, heads * D]; k, v act [n, kv_heads * D].
  virtual void attention_decode(ConstMatrix q, ConstMatrix k, ConstMatrix v,
                                const AttentionShape& shape, Matrix out) = 0;

  // out = silu(gate) * up; all act [T, ff].
  virtual void swiglu(ConstMatrix gate, ConstMatrix up, Matrix out) = 0;
  // From d_out (fp32): d_gate, d_up (act).
  virtual void swiglu_grad(ConstMatrix d_out, ConstMatrix gate, ConstMatrix up, Matrix d_gate,
                           Matrix d_up) = 0;

  // Per row i of logits (fp32 [n, V], destroyed): loss[i] = log(sum exp) - logit of targets[i], in
  // nats. With a non-empty grad (act [n, V], which may lie over the logits) also
  // grad = (softmax - one-hot) * scale.
  virtual void softmax_cross_entropy(Matrix logits, std::span<const std::int32_t> targets,
                                     float scale, std::span<double> loss, Matrix grad) = 0;

  // out = x, rounded to out's dtype; x fp32.
  virtual void convert(ConstMatrix x, Matrix out) = 0;
  // Dropout (inverted): out[i, j] = x[i, j] / keep where the random bits of element i * cols + j of
  // `stream` fall under keep, else 0. x and out act, or x and out fp32; out may be x.
  virtual void dropout(ConstMatrix x, const math::RandomStream& stream, float keep, Matrix out) = 0;
};

// The CPU's. Error(kUnsupported) for bf16 where the hardware lacks it (cpu_has_bf16).
std::unique_ptr<ModelOps> make_cpu_model_ops(DType act);

// Limits the model's kernels to an instruction set: "scalar", "avx2" or "avx512" (the names of
// nibble_isa_name). To be called before anything else here; later calls are Error(kWrongOrder)
// unless they repeat the name.
void limit_cpu_model_isa(std::string_view isa);

// Whether bf16 products run on the hardware (AVX-512 BF16), under the limit if any.
bool cpu_has_bf16();

}  // namespace nibble::backend
