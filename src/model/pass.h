// SPDX-License-Identifier: Apache-2.0
// One pass over the decoder's layers: what Llama is made of.
#pragma once

#include <span>

#include "backend/model_ops.h"
#include "model/llama.h"
#include "model/workspace.h"

namespace nibble::model {

// Everything a pass reads, and the scratch it writes.
struct PassContext {
  const LlamaConfig& config;
  const LlamaWeights& weights;
  backend::ModelOps& ops;
  const LoraAdapter* adapter;  // may be null
  backend::AttentionShape shape;
  std::int64_t tokens;  // rows that the batch fills
  std::int64_t rows;    // rows of the buffers: tokens rounded up
  ConstMatrix rope_cos, rope_sin;
  float dropout_keep;  // 1: none
  std::uint64_t seed;
  std::uint32_t micro_step;
  SharedScratch& scratch;
};

// Where generation keeps keys and values of a layer: rows [position, position + tokens) are
// written, and with decode == true attention reads rows [0, position + 1).
struct CacheSlot {
  Matrix k, v;  // act [capacity, kv_heads * D]
  std::int64_t position;
};

// out = decoder layer of x; both fp32 [rows, width]; out may be x. `slot` may be null (training).
void layer_forward(const PassContext& pass, std::int64_t layer, ConstMatrix x, Matrix out,
                   LayerCache& cache, const CacheSlot* slot);

// dx (fp32 [rows, width]): gradient of the layer's output on entry, of its input on return (not
// computed for layer 0, below which nothing is trained). Adds to the adapter's gradients.
void layer_backward(const PassContext& pass, std::int64_t layer, ConstMatrix x, LayerCache& cache,
                    Matrix dx);

// Sum of cross-entropies over `targets` (row i of x, where targets[i] >= 0), through the final norm
// and the head, in chunks: never more than kHeadChunk rows of logits. With d_x (fp32, zeroed) also
// its gradient times scale. `losses`, if given, receives each term in order of row.
inline constexpr std::int64_t kHeadChunk = 256;
double head_loss(const PassContext& pass, ConstMatrix x, std::span<const std::int32_t> targets,
                 float scale, Matrix d_x, std::vector<double>* losses);

// Logits of rows [first, first + n) of x, fp32 [n, vocabulary].
void head_logits(const PassContext& pass, ConstMatrix x, std::int64_t first, std::int64_t n,
                 float* out);

}  // namespace nibble::model
