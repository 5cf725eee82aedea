// SPDX-License-Identifier: Apache-2.0
#include "model/workspace.h"

#include <algorithm>

namespace nibble::model {

void LayerCache::resize(const LlamaConfig& config, DType act, std::int64_t rows, std::int64_t rank,
                        const bool (&targets)[kLinears]) {
  const std::int64_t query = config.heads * config.head_dim;
  const std::int64_t key = config.kv_heads * config.head_dim;
  attention_in.resize(act, rows, config.width);
  q.resize(act, rows, query);
  k.resize(act, rows, key);
  v.resize(act, rows, key);
  attention_out.resize(act, rows, query);
  log_sum_exp.resize(DType::kF32, config.heads, rows);
  middle.resize(DType::kF32, rows, config.width);
  feed_forward_in.resize(act, rows, config.width);
  gate.resize(act, rows, config.feed_forward);
  up.resize(act, rows, config.feed_forward);
  for (int i = 0; i < kLinears; ++i) {
    if (targets[i]) {
      low_rank[i].resize(act, rows, rank);
    }
  }
  for (auto& values : inverse_rms) {
    values.resize(static_cast<std::size_t>(rows));
  }
}

void SharedScratch::resize_forward(const LlamaConfig& config, DType act, std::int64_t rows) {
  activated.resize(act, rows, config.feed_forward);
  dropped.resize(act, rows,
                 std::max({config.feed_forward, config.width, config.heads * config.head_dim}));
}

void SharedScratch::resize_backward(const LlamaConfig& config, DType act, std::int64_t rows,
                                    std::int64_t rank) {
  const std::int64_t query = config.heads * config.head_dim;
  const std::int64_t key = config.kv_heads * config.head_dim;
  dy.resize(act, rows, config.width);
  d_activated.resize(DType::kF32, rows, config.feed_forward);
  d_gate.resize(act, rows, config.feed_forward);
  d_up.resize(act, rows, config.feed_forward);
  d_normed.resize(DType::kF32, rows, config.width);
  d_low_rank.resize(act, rows, rank);
  d_attention.resize(DType::kF32, rows, query);
  d_attention_act.resize(act, rows, query);
  dq.resize(act, rows, query);
  dk.resize(act, rows, key);
  dv.resize(act, rows, key);
}

}  // namespace nibble::model
