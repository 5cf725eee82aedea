// SPDX-License-Identifier: Apache-2.0
// The decoder: forward, loss, and gradients of the LoRA parameters, with the base frozen in its
// quantised bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/model_ops.h"
#include "model/config.h"
#include "model/lora.h"

namespace nibble::model {

// Sequences side by side, without padding (text::Batch). targets[i]: the id to predict at position
// i, -1 for none. starts: first row of each sequence, and the end of the last.
struct TokenBatch {
  std::span<const std::int32_t> ids, targets;
  std::span<const std::int64_t> starts;
};

struct TrainPass {
  float scale = 1;               // gradients are those of scale * (sum of losses)
  std::uint64_t seed = 0;        // of dropout
  std::uint32_t micro_step = 0;  // of dropout: counts the passes of a run
};

class Llama {
 public:
  // `file` must outlive the model. `act` is the dtype of the products in training passes
  // (loss_and_grad). Passes without a gradient always take fp32: in bf16 their rounding shows in
  // the third decimal of the loss (README.md), and they are a small share of the time. With
  // checkpointing only the input of each layer is kept for the backward pass and the rest is
  // computed again (Chen et al. 2016): the same bits.
  Llama(const formats::GgufFile& file, backend::DType act, bool checkpointing);
  ~Llama();

  const LlamaConfig& config() const { return config_; }
  const LlamaWeights& weights() const { return weights_; }

  // Sum over targets of the cross-entropy, in nats. `adapter` may be null.
  double loss(const TokenBatch& batch, const LoraAdapter* adapter);
  // The same, and adds the gradients of pass.scale times it to the adapter's.
  double loss_and_grad(const TokenBatch& batch, LoraAdapter& adapter, const TrainPass& pass);
  // Logits of every position of one sequence, [ids.size(), vocabulary].
  std::vector<float> logits(std::span<const std::int32_t> ids, const LoraAdapter* adapter);
  // Per-position loss (nats) of one batch, in order of position, for positions with a target.
  std::vector<double> token_losses(const TokenBatch& batch, const LoraAdapter* adapter);

  // Generation: keeps keys and values of up to `capacity` positions.
  class Session;
  std::unique_ptr<Session> start_session(const LoraAdapter* adapter, std::int64_t capacity);

  // Upper bound of the bytes that loss_and_grad takes for batches of up to `tokens` tokens.
  std::uint64_t activation_bytes(std::int64_t tokens, std::int64_t rank) const;

 private:
  friend class ForwardBackward;
  LlamaConfig config_;
  LlamaWeights weights_;
  bool checkpointing_;
  std::unique_ptr<backend::ModelOps> train_ops_, eval_ops_;
  std::vector<float> rope_cos_, rope_sin_;  // [context, head_dim / 2], filled as far as needed
  std::int64_t rope_positions_ = 0;
  struct Workspace;
  std::unique_ptr<Workspace> workspace_;

  void need_rope(std::int64_t positions);
};

class Llama::Session {
 public:
  Session(Llama& model, const LoraAdapter* adapter, std::int64_t capacity);
  ~Session();
  // Appends tokens; returns the logits after the last one. Error(kInvalidArgument) past capacity.
  const std::vector<float>& append(std::span<const std::int32_t> ids);
  std::int64_t position() const { return position_; }

 private:
  Llama& model_;
  const LoraAdapter* adapter_;
  std::int64_t capacity_, position_ = 0;
  Buffer cache_;
  std::vector<float> logits_;
};

}  // namespace nibble::model
