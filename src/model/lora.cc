// SPDX-License-Identifier: Apache-2.0
#include "model/lora.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/status.h"
#include "math/philox.h"

namespace nibble::model {

using backend::ConstMatrix;
using backend::DType;

float LoraConfig::scale() const {
  const auto r = static_cast<double>(rank);
  return static_cast<float>(alpha / (rslora ? std::sqrt(r) : r));
}

void parse_targets(const std::vector<std::string>& names, LoraConfig& config) {
  bool chosen[kLinears] = {};
  for (const std::string& name : names) {
    bool known = name == "all" || name == "all-linear";
    for (int i = 0; i < kLinears; ++i) {
      const bool match = known || name == kLinearInfo[i].gguf || name == kLinearInfo[i].hf;
      chosen[i] = chosen[i] || match;
      if (match && name != "all" && name != "all-linear") {
        known = true;
        break;
      }
    }
    if (!known) {
      std::string list;
      for (const LinearInfo& info : kLinearInfo) {
        list += fmt::format(", {} ({})", info.hf, info.gguf);
      }
      fail(StatusCode::kInvalidArgument, "--lora-target: unknown layer \"{}\"; known: all{}", name,
           list);
    }
  }
  std::memcpy(config.targets, chosen, sizeof chosen);
}

std::string LoraPair::gguf_name() const {
  return fmt::format("blk.{}.{}", layer, linear_info(which).gguf);
}
std::string LoraPair::hf_path() const {
  return fmt::format("model.layers.{}.{}", layer, linear_info(which).hf_path);
}

LoraAdapter::LoraAdapter(const LlamaConfig& model, const LoraConfig& config, std::uint64_t seed)
    : config_(config), index_(static_cast<std::size_t>(model.layers * kLinears), -1) {
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    for (int i = 0; i < kLinears; ++i) {
      if (!config.targets[i]) {
        continue;
      }
      const auto which = static_cast<Linear>(i);
      const std::int64_t in = linear_inputs(model, which), out = linear_outputs(model, which);
      index_[static_cast<std::size_t>(layer * kLinears + i)] =
          static_cast<std::int32_t>(pairs_.size());
      pairs_.push_back({layer, which, in, out, nullptr, nullptr, nullptr, nullptr});
      count_ += config.rank * (in + out);
    }
  }
  if (pairs_.empty()) {
    fail(StatusCode::kInvalidArgument, "--lora-target: no layer is to be trained");
  }
  const auto bytes = static_cast<std::size_t>(count_) * sizeof(float);
  values_.reserve(bytes);
  grads_.reserve(bytes);
  auto* value = static_cast<float*>(values_.data());
  auto* grad = static_cast<float*>(grads_.data());
  for (LoraPair& pair : pairs_) {
    const std::int64_t a_size = config.rank * pair.inputs, b_size = config.rank * pair.outputs;
    pair.a = value;
    pair.a_grad = grad;
    pair.b_transposed = value + a_size;
    pair.b_transposed_grad = grad + a_size;
    value += a_size + b_size;
    grad += a_size + b_size;
    const std::string name = pair.gguf_name() + ".lora_a";
    const math::RandomStream random{seed, math::tensor_id(name.c_str()), 0,
                                    math::RandomPurpose::kInit};
    const float bound = 1.0F / std::sqrt(static_cast<float>(pair.inputs));
    for (std::int64_t i = 0; i < a_size; ++i) {
      pair.a[i] = (2.0F * random.uniform(static_cast<std::uint64_t>(i)) - 1.0F) * bound;
    }
    std::memset(pair.b_transposed, 0, static_cast<std::size_t>(b_size) * sizeof(float));
  }
  zero_grad();
  refresh();
}

const LoraPair* LoraAdapter::find(std::int64_t layer, Linear which) const {
  const std::int32_t at =
      index_[static_cast<std::size_t>(layer * kLinears + static_cast<int>(which))];
  return at < 0 ? nullptr : &pairs_[static_cast<std::size_t>(at)];
}

const LoraPair* LoraAdapter::non_finite() const {
  const auto finite = [](float value) { return std::isfinite(value); };
  for (const LoraPair& pair : pairs_) {
    if (!std::all_of(pair.a, pair.a + config_.rank * pair.inputs, finite) ||
        !std::all_of(pair.b_transposed, pair.b_transposed + config_.rank * pair.outputs, finite)) {
      return &pair;
    }
  }
  return nullptr;
}

ConstMatrix LoraAdapter::view(const float* values, std::int64_t cols, DType dtype) const {
  if (dtype == DType::kF32) {
    return {values, DType::kF32, config_.rank, cols, cols};
  }
  const auto* first = static_cast<const float*>(values_.data());
  return {static_cast<const math::bf16*>(rounded_.data()) + (values - first), DType::kBf16,
          config_.rank, cols, cols};
}

ConstMatrix LoraAdapter::a(const LoraPair& pair, DType dtype) const {
  return view(pair.a, pair.inputs, dtype);
}
ConstMatrix LoraAdapter::b_transposed(const LoraPair& pair, DType dtype) const {
  return view(pair.b_transposed, pair.outputs, dtype);
}

void LoraAdapter::refresh() {
  rounded_.reserve(static_cast<std::size_t>(count_) * sizeof(math::bf16));
  const auto* from = static_cast<const float*>(values_.data());
  auto* to = static_cast<math::bf16*>(rounded_.data());
  for (std::int64_t i = 0; i < count_; ++i) {
    to[i] = math::float_to_bf16(from[i]);
  }
}

void LoraAdapter::zero_grad() {
  std::memset(grads_.data(), 0, static_cast<std::size_t>(count_) * sizeof(float));
}

}  // namespace nibble::model
