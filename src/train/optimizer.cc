// SPDX-License-Identifier: Apache-2.0
#include "train/optimizer.h"

#include <nibble/nibble.h>

#include <algorithm>
#include <cmath>

#include "core/status.h"

namespace nibble::train {
namespace {

void check(nibble_status status) {
  if (status != NIBBLE_OK) {
    throw Error(static_cast<StatusCode>(status), nibble_last_error());
  }
}

template <class T>
T sized() {
  T desc{};
  desc.struct_size = sizeof(T);
  return desc;
}

}  // namespace

void Optimizer::Destroy::operator()(nibble_optimizer* optimizer) const {
  nibble_optimizer_destroy(optimizer);
}

Optimizer::Optimizer(model::LoraAdapter& adapter, const FinetuneOptions& options) {
  auto desc = sized<nibble_optimizer_desc>();
  desc.rule = "adamw";
  desc.state_format = find_optimizer(options.optimizer)->state_format;
  desc.learning_rate = options.learning_rate;
  desc.beta1 = options.beta1;
  desc.beta2 = options.beta2;
  desc.eps = options.epsilon;
  desc.weight_decay = options.weight_decay;
  nibble_optimizer* raw = nullptr;
  check(nibble_optimizer_create(&raw, &desc));
  handle_.reset(raw);
  // In the descriptor zero means default; here a zero is a zero.
  for (const auto& [name, value] : {std::pair{"beta1", options.beta1},
                                    {"beta2", options.beta2},
                                    {"eps", options.epsilon},
                                    {"weight_decay", options.weight_decay}}) {
    check(nibble_optimizer_set_hyper(raw, name, value));
  }
  const std::int64_t r = adapter.config().rank;
  for (model::LoraPair& pair : adapter.pairs()) {
    add(pair.gguf_name() + ".lora_a", r, pair.inputs, pair.a, pair.a_grad);
    add(pair.gguf_name() + ".lora_b", r, pair.outputs, pair.b_transposed, pair.b_transposed_grad);
  }
}

void Optimizer::add(const std::string& name, std::int64_t rows, std::int64_t cols, float* values,
                    const float* grad) {
  const std::int64_t shape[] = {rows, cols};
  auto desc = sized<nibble_param_desc>();
  desc.name = name.c_str();
  desc.shape = shape;
  desc.n_dims = 2;
  std::int64_t index = 0;
  std::uint64_t bytes = 0;
  check(nibble_optimizer_add_param(handle_.get(), &desc, &index, &bytes));
  check(nibble_optimizer_bind(handle_.get(), index, values));
  names_.push_back(name);
  grads_.push_back(grad);
  counts_.push_back(rows * cols);
  state_bytes_ += bytes;
}

Optimizer::StepResult Optimizer::step(double learning_rate, double max_grad_norm) {
  StepResult result{};
  const auto n = static_cast<std::int64_t>(grads_.size());
  check(nibble_global_norm(grads_.data(), counts_.data(), nullptr, n, &result.grad_norm,
                           &result.non_finite));
  if (result.non_finite > 0 || !std::isfinite(result.grad_norm)) {
    result.non_finite = std::max<std::int64_t>(1, result.non_finite);
    return result;
  }
  check(nibble_optimizer_set_learning_rate(handle_.get(), learning_rate));
  auto desc = sized<nibble_step_desc>();
  desc.grads = grads_.data();
  desc.n_grads = n;
  desc.grads_are_finite = 1;
  desc.grad_scale =
      max_grad_norm > 0 ? std::min(1.0, max_grad_norm / (result.grad_norm + 1e-6)) : 1.0;
  check(nibble_optimizer_step(handle_.get(), &desc));
  return result;
}

std::int64_t Optimizer::step_count() const {
  std::int64_t count = 0;
  check(nibble_optimizer_step_count(handle_.get(), &count));
  return count;
}

std::vector<formats::SafeTensor> Optimizer::states() const {
  std::vector<formats::SafeTensor> tensors;
  for (std::size_t p = 0; p < names_.size(); ++p) {
    std::int64_t count = 0;
    check(nibble_optimizer_state_count(handle_.get(), static_cast<std::int64_t>(p), &count));
    for (std::int64_t s = 0; s < count; ++s) {
      auto info = sized<nibble_state_info>();
      check(nibble_optimizer_state_info(handle_.get(), static_cast<std::int64_t>(p), s, &info));
      tensors.push_back({names_[p] + "." + info.name,
                         info.dtype,
                         {static_cast<std::uint64_t>(info.count)},
                         {static_cast<const std::byte*>(info.data), info.bytes}});
    }
  }
  return tensors;
}

void Optimizer::load(const formats::SafetensorsFile& file, std::int64_t step_count) {
  // All is looked up before anything is changed.
  std::vector<const formats::SafeTensor*> sources;
  for (const formats::SafeTensor& mine : states()) {
    sources.push_back(&file.expect(mine.name, mine.dtype, mine.shape));
  }
  std::size_t next = 0;
  for (std::size_t p = 0; p < names_.size(); ++p) {
    std::int64_t count = 0;
    check(nibble_optimizer_state_count(handle_.get(), static_cast<std::int64_t>(p), &count));
    for (std::int64_t s = 0; s < count; ++s, ++next) {
      check(nibble_optimizer_load_state(handle_.get(), static_cast<std::int64_t>(p), s,
                                        sources[next]->bytes.data(), sources[next]->bytes.size()));
    }
  }
  check(nibble_optimizer_set_step_count(handle_.get(), step_count));
}

}  // namespace nibble::train
