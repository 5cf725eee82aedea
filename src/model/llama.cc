// SPDX-License-Identifier: Apache-2.0
#include "model/llama.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>

#include "core/status.h"
#include "model/pass.h"

namespace nibble::model {
namespace {

// Tokens are rounded up to this, so that products keep few shapes; the rows added are zero.
constexpr std::int64_t kTokenStep = 32;

std::int64_t round_up(std::int64_t n) {
  return n == 1 ? 1 : (n + kTokenStep - 1) / kTokenStep * kTokenStep;  // one: generation
}

constexpr bool kNoTargets[kLinears] = {};

}  // namespace

struct Llama::Workspace {
  std::deque<Tensor> residual;    // input of each layer and output of the last; one if not kept
  std::deque<LayerCache> caches;  // one a layer, or one for all
  SharedScratch scratch;
  Tensor d_residual;
};

Llama::Llama(const formats::GgufFile& file, DType act, bool checkpointing)
    : config_(read_config(file)),
      weights_(read_weights(file, config_)),
      checkpointing_(checkpointing),
      train_ops_(backend::make_cpu_model_ops(act)),
      eval_ops_(backend::make_cpu_model_ops(DType::kF32)),
      workspace_(std::make_unique<Workspace>()) {}

Llama::~Llama() = default;

void Llama::need_rope(std::int64_t positions) {
  if (positions > config_.context) {
    fail(StatusCode::kInvalidArgument,
         "a sequence of {} tokens is longer than the model's context of {}", positions,
         config_.context);
  }
  const std::int64_t half = config_.head_dim / 2;
  rope_cos_.resize(static_cast<std::size_t>(std::max(positions, rope_positions_) * half));
  rope_sin_.resize(rope_cos_.size());
  for (; rope_positions_ < positions; ++rope_positions_) {
    for (std::int64_t i = 0; i < half; ++i) {
      const double angle =
          static_cast<double>(rope_positions_) *
          std::pow(static_cast<double>(config_.rope_base),
                   -2.0 * static_cast<double>(i) / static_cast<double>(config_.head_dim));
      rope_cos_[static_cast<std::size_t>(rope_positions_ * half + i)] =
          static_cast<float>(std::cos(angle));
      rope_sin_[static_cast<std::size_t>(rope_positions_ * half + i)] =
          static_cast<float>(std::sin(angle));
    }
  }
}

// Builds the context of a pass, runs the layers forward, and keeps what was asked for.
class ForwardBackward {
 public:
  ForwardBackward(Llama& model, const TokenBatch& batch, const LoraAdapter* adapter,
                  const TrainPass* train)
      : model_(model),
        work_(*model.workspace_),
        train_(train),
        pass_{model.config_,
              model.weights_,
              train == nullptr ? *model.eval_ops_ : *model.train_ops_,
              adapter,
              {batch.starts, model.config_.heads, model.config_.kv_heads, model.config_.head_dim},
              static_cast<std::int64_t>(batch.ids.size()),
              round_up(static_cast<std::int64_t>(batch.ids.size())),
              {},
              {},
              1.0F,
              0,
              0,
              work_.scratch} {
    check(batch);
    const std::int64_t half = model.config_.head_dim / 2;
    pass_.rope_cos = {model.rope_cos_.data(), DType::kF32, model.rope_positions_, half, half};
    pass_.rope_sin = {model.rope_sin_.data(), DType::kF32, model.rope_positions_, half, half};
    if (train != nullptr && adapter != nullptr) {
      pass_.dropout_keep = 1.0F - adapter->config().dropout;
      pass_.seed = train->seed;
      pass_.micro_step = train->micro_step;
    }
    resize();
  }

  const PassContext& context() const { return pass_; }

  // Returns the output of the last layer, fp32 [rows, width].
  Matrix forward(std::span<const std::int32_t> ids) {
    Tensor& first = work_.residual[0];
    first.clear_from(pass_.tokens);
    pass_.ops.embed(pass_.weights.embedding, ids, first.view().row_range(0, pass_.tokens));
    for (std::int64_t layer = 0; layer < pass_.config.layers; ++layer) {
      layer_forward(pass_, layer, residual(layer), residual(layer + 1), cache(layer), nullptr);
    }
    return residual(pass_.config.layers);
  }

  // From the gradient of forward()'s result, in work_.d_residual.
  void backward() {
    const Matrix dx = work_.d_residual.view();
    for (std::int64_t layer = pass_.config.layers - 1; layer >= 0; --layer) {
      if (model_.checkpointing_) {  // the layer's output goes where nothing is kept
        layer_forward(pass_, layer, residual(layer), work_.residual.back().view(), cache(layer),
                      nullptr);
      }
      layer_backward(pass_, layer, residual(layer), cache(layer), dx);
    }
  }

 private:
  void check(const TokenBatch& batch) {
    std::int64_t longest = 0;
    for (std::size_t s = 0; s + 1 < batch.starts.size(); ++s) {
      longest = std::max(longest, batch.starts[s + 1] - batch.starts[s]);
    }
    for (const std::int32_t id : batch.ids) {
      if (id < 0 || id >= model_.config_.vocabulary) {
        fail(StatusCode::kInvalidArgument, "token id {} is outside the vocabulary of {}", id,
             model_.config_.vocabulary);
      }
    }
    for (const std::int32_t id : batch.targets) {
      if (id >= model_.config_.vocabulary) {
        fail(StatusCode::kInvalidArgument, "target id {} is outside the vocabulary of {}", id,
             model_.config_.vocabulary);
      }
    }
    model_.need_rope(longest);
  }

  void resize() {
    const LlamaConfig& config = pass_.config;
    const DType act = pass_.ops.act();
    const bool training = train_ != nullptr;
    const std::int64_t rank = pass_.adapter == nullptr ? 0 : pass_.adapter->config().rank;
    const std::int64_t kept = training ? config.layers + 1 : 1;
    const std::int64_t caches = training && !model_.checkpointing_ ? config.layers : 1;
    while (static_cast<std::int64_t>(work_.residual.size()) < kept) {
      work_.residual.emplace_back();
    }
    while (static_cast<std::int64_t>(work_.caches.size()) < caches) {
      work_.caches.emplace_back();
    }
    for (std::int64_t i = 0; i < kept; ++i) {
      work_.residual[static_cast<std::size_t>(i)].resize(DType::kF32, pass_.rows, config.width);
    }
    for (std::int64_t i = 0; i < caches; ++i) {
      work_.caches[static_cast<std::size_t>(i)].resize(
          config, act, pass_.rows, rank,
          pass_.adapter == nullptr ? kNoTargets : pass_.adapter->config().targets);
    }
    work_.scratch.resize_forward(config, act, pass_.rows);
    if (training) {
      work_.scratch.resize_backward(config, act, pass_.rows, rank);
      work_.d_residual.resize(DType::kF32, pass_.rows, config.width);
      work_.d_residual.clear_from(0);
    }
  }

  Matrix residual(std::int64_t layer) {
    return work_.residual[train_ != nullptr ? static_cast<std::size_t>(layer) : 0].view();
  }
  LayerCache& cache(std::int64_t layer) {
    return work_
        .caches[train_ != nullptr && !model_.checkpointing_ ? static_cast<std::size_t>(layer) : 0];
  }

  Llama& model_;
  Llama::Workspace& work_;
  const TrainPass* train_;
  PassContext pass_;
};

double Llama::loss(const TokenBatch& batch, const LoraAdapter* adapter) {
  ForwardBackward run(*this, batch, adapter, nullptr);
  return head_loss(run.context(), run.forward(batch.ids), batch.targets, 1, {}, nullptr);
}

std::vector<double> Llama::token_losses(const TokenBatch& batch, const LoraAdapter* adapter) {
  ForwardBackward run(*this, batch, adapter, nullptr);
  std::vector<double> losses;
  head_loss(run.context(), run.forward(batch.ids), batch.targets, 1, {}, &losses);
  return losses;
}

double Llama::loss_and_grad(const TokenBatch& batch, LoraAdapter& adapter, const TrainPass& pass) {
  ForwardBackward run(*this, batch, &adapter, &pass);
  const Matrix out = run.forward(batch.ids);
  const double loss = head_loss(run.context(), out, batch.targets, pass.scale,
                                workspace_->d_residual.view(), nullptr);
  run.backward();
  return loss;
}

std::vector<float> Llama::logits(std::span<const std::int32_t> ids, const LoraAdapter* adapter) {
  const std::int64_t starts[] = {0, static_cast<std::int64_t>(ids.size())};
  ForwardBackward run(*this, {ids, {}, starts}, adapter, nullptr);
  std::vector<float> out(ids.size() * static_cast<std::size_t>(config_.vocabulary));
  head_logits(run.context(), run.forward(ids), 0, static_cast<std::int64_t>(ids.size()),
              out.data());
  return out;
}

std::unique_ptr<Llama::Session> Llama::start_session(const LoraAdapter* adapter,
                                                     std::int64_t capacity) {
  return std::make_unique<Session>(*this, adapter, capacity);
}

Llama::Session::Session(Llama& model, const LoraAdapter* adapter, std::int64_t capacity)
    : model_(model), adapter_(adapter), capacity_(capacity) {
  model.need_rope(capacity);
  const LlamaConfig& c = model.config_;
  cache_.reserve(static_cast<std::size_t>(2 * c.layers * capacity * c.kv_heads * c.head_dim *
                                          backend::dtype_bytes(DType::kF32)));
  logits_.resize(static_cast<std::size_t>(c.vocabulary));
}

Llama::Session::~Session() = default;

const std::vector<float>& Llama::Session::append(std::span<const std::int32_t> ids) {
  const auto count = static_cast<std::int64_t>(ids.size());
  if (count == 0 || position_ + count > capacity_) {
    fail(StatusCode::kInvalidArgument, "{} tokens after {} do not fit a session of {}", count,
         position_, capacity_);
  }
  const std::int64_t starts[] = {0, count};
  ForwardBackward run(model_, {ids, {}, starts}, adapter_, nullptr);
  const PassContext& pass = run.context();
  const LlamaConfig& c = model_.config_;
  const DType act = pass.ops.act();
  const std::int64_t key = c.kv_heads * c.head_dim;
  Workspace& work = *model_.workspace_;
  const Matrix x = work.residual[0].view();
  work.residual[0].clear_from(count);
  pass.ops.embed(pass.weights.embedding, ids, x.row_range(0, count));
  auto* bytes = static_cast<std::byte*>(cache_.data());
  const std::int64_t plane = capacity_ * key * backend::dtype_bytes(act);
  for (std::int64_t layer = 0; layer < c.layers; ++layer) {
    const CacheSlot slot{{bytes + 2 * layer * plane, act, capacity_, key, key},
                         {bytes + (2 * layer + 1) * plane, act, capacity_, key, key},
                         position_};
    layer_forward(pass, layer, x, x, work.caches[0], &slot);
  }
  head_logits(pass, x, count - 1, 1, logits_.data());
  position_ += count;
  return logits_;
}

std::uint64_t Llama::activation_bytes(std::int64_t tokens, std::int64_t rank) const {
  const std::int64_t act = backend::dtype_bytes(train_ops_->act()), rows = round_up(tokens);
  const std::int64_t query = config_.heads * config_.head_dim;
  const std::int64_t key = config_.kv_heads * config_.head_dim;
  const std::int64_t layer =
      act * (2 * config_.width + 2 * query + 2 * key + 2 * config_.feed_forward + kLinears * rank) +
      4 * (config_.width + config_.heads + 2);
  const std::int64_t shared =
      act * (4 * config_.feed_forward + 2 * config_.width + 2 * query + 2 * key + rank) +
      4 * (config_.feed_forward + 2 * config_.width + query);
  const std::int64_t kept = checkpointing_ ? 1 : config_.layers;
  const std::int64_t head =
      std::min(kHeadChunk, rows) * 4 * (config_.vocabulary + 4 * config_.width);
  return static_cast<std::uint64_t>(
      rows * (4 * config_.width * (config_.layers + 1) + kept * layer + shared) + head);
}

}  // namespace nibble::model
