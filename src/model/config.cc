// SPDX-License-Identifier: Apache-2.0
#include "model/config.h"

#include <cmath>
#include <set>

#include "core/status.h"

namespace nibble::model {
namespace {

using formats::GgufFile;
using formats::GgufTensor;

std::int64_t bounded(const GgufFile& file, const std::string& key, std::uint32_t low,
                     std::uint32_t high) {
  const std::uint32_t value = file.u32(key);
  if (value < low || value > high) {
    fail(StatusCode::kCorrupt, "{}: key \"{}\" at offset {}: {} is outside [{}, {}]", file.name(),
         key, file.find(key)->offset, value, low, high);
  }
  return value;
}

// Keys of features that change the arithmetic and are not implemented.
void refuse_unsupported_keys(const GgufFile& file) {
  static constexpr const char* kRefused[] = {
      "llama.rope.scaling.type",
      "llama.rope.scaling.factor",
      "llama.rope.scale_linear",
      "llama.attention.sliding_window",
      "llama.expert_count",
      "llama.attention.clamp_kqv",
      "llama.logit_scale",
      "llama.residual_scale",
      "llama.embedding_scale",
      "llama.attention.scale",
      "llama.attention.value_length",
      "split.count",
  };
  for (const char* key : kRefused) {
    const formats::GgufKeyValue* found = file.find(key);
    if (found == nullptr) {
      continue;
    }
    const auto* text = std::get_if<std::string_view>(&found->value);
    const auto* number = std::get_if<std::uint64_t>(&found->value);
    const bool harmless = (text != nullptr && *text == "none") ||
                          (number != nullptr && *number == 0) ||
                          (std::string_view(key) == "split.count" && number && *number <= 1);
    if (!harmless) {
      fail(StatusCode::kUnsupported,
           "{}: key \"{}\" at offset {} asks for a feature that nibble does not have", file.name(),
           key, found->offset);
    }
  }
}

const GgufTensor& expect_tensor(const GgufFile& file, const std::string& name, std::int64_t inputs,
                                std::int64_t outputs, std::set<std::string_view>& used) {
  const GgufTensor* tensor = file.find_tensor(name);
  if (tensor == nullptr) {
    fail(StatusCode::kCorrupt, "{}: tensor \"{}\" is missing", file.name(), name);
  }
  const auto rows = static_cast<std::int64_t>(tensor->rows());
  if (static_cast<std::int64_t>(tensor->dims[0]) != inputs || rows != outputs ||
      tensor->n_dims > 2) {
    fail(StatusCode::kCorrupt,
         "{}: tensor \"{}\" at offset {} has shape [{}, {}], expected [{}, {}]", file.name(), name,
         tensor->offset, tensor->dims[0], rows, inputs, outputs);
  }
  used.insert(tensor->name);
  return *tensor;
}

QuantizedMatrix matrix(const GgufFile& file, const std::string& name, std::int64_t inputs,
                       std::int64_t outputs, std::set<std::string_view>& used) {
  const GgufTensor& tensor = expect_tensor(file, name, inputs, outputs, used);
  return {tensor.type, file.data(tensor).data(), outputs, inputs};
}

std::vector<float> vector(const GgufFile& file, const std::string& name, std::int64_t size,
                          std::set<std::string_view>& used) {
  const GgufTensor& tensor = expect_tensor(file, name, size, 1, used);
  const math::GgmlTypeInfo& info = math::ggml_type_info(tensor.type);
  if (info.block_elements != 1) {
    fail(StatusCode::kUnsupported, "{}: tensor \"{}\" at offset {} is a quantised norm ({})",
         file.name(), name, tensor.offset, info.name);
  }
  std::vector<float> values(static_cast<std::size_t>(size));
  const std::byte* data = file.data(tensor).data();
  for (std::int64_t i = 0; i < size; ++i) {
    math::decode_ggml_block(tensor.type, data + i * info.block_bytes,
                            &values[static_cast<std::size_t>(i)]);
  }
  return values;
}

}  // namespace

std::int64_t linear_inputs(const LlamaConfig& config, Linear which) {
  switch (which) {
    case Linear::kOutput:
      return config.heads * config.head_dim;
    case Linear::kDown:
      return config.feed_forward;
    default:
      return config.width;
  }
}

std::int64_t linear_outputs(const LlamaConfig& config, Linear which) {
  switch (which) {
    case Linear::kQuery:
      return config.heads * config.head_dim;
    case Linear::kKey:
    case Linear::kValue:
      return config.kv_heads * config.head_dim;
    case Linear::kGate:
    case Linear::kUp:
      return config.feed_forward;
    default:
      return config.width;
  }
}

LlamaConfig read_config(const GgufFile& file) {
  const std::string_view architecture = file.string("general.architecture");
  if (architecture != "llama") {
    fail(StatusCode::kUnsupported,
         "{}: architecture \"{}\" (general.architecture) is not supported; "
         "this version runs: llama",
         file.name(), architecture);
  }
  refuse_unsupported_keys(file);
  LlamaConfig config{};
  config.layers = bounded(file, "llama.block_count", 1, 1024);
  config.width = bounded(file, "llama.embedding_length", 1, 1 << 17);
  config.feed_forward = bounded(file, "llama.feed_forward_length", 1, 1 << 20);
  config.heads = bounded(file, "llama.attention.head_count", 1, 4096);
  config.kv_heads = file.has("llama.attention.head_count_kv")
                        ? bounded(file, "llama.attention.head_count_kv", 1, 4096)
                        : config.heads;
  config.context = bounded(file, "llama.context_length", 1, 1 << 20);
  if (config.heads % config.kv_heads != 0) {
    fail(StatusCode::kCorrupt,
         "{}: key \"llama.attention.head_count_kv\": {} does not divide {} heads", file.name(),
         config.kv_heads, config.heads);
  }
  if (file.has("llama.attention.key_length")) {
    config.head_dim = bounded(file, "llama.attention.key_length", 2, 1024);
  } else if (config.width % config.heads == 0) {
    config.head_dim = config.width / config.heads;
  } else {
    fail(StatusCode::kCorrupt,
         "{}: key \"llama.attention.head_count\": {} does not divide the width {}", file.name(),
         config.heads, config.width);
  }
  const std::uint32_t rope_dims =
      file.u32_or("llama.rope.dimension_count", static_cast<std::uint32_t>(config.head_dim));
  if (rope_dims != config.head_dim || rope_dims % 2 != 0) {
    fail(StatusCode::kUnsupported,
         "{}: key \"llama.rope.dimension_count\": {} of a head's {} dimensions; nibble rotates all",
         file.name(), rope_dims, config.head_dim);
  }
  config.rms_epsilon = file.f32("llama.attention.layer_norm_rms_epsilon");
  config.rope_base = file.f32_or("llama.rope.freq_base", 10000.0F);
  if (!(config.rms_epsilon > 0) || !(config.rope_base > 0)) {
    fail(StatusCode::kCorrupt,
         "{}: keys \"llama.attention.layer_norm_rms_epsilon\" and \"llama.rope.freq_base\" must be "
         "positive: {}, {}",
         file.name(), config.rms_epsilon, config.rope_base);
  }
  const GgufTensor* embedding = file.find_tensor("token_embd.weight");
  if (embedding == nullptr) {
    fail(StatusCode::kCorrupt, "{}: tensor \"token_embd.weight\" is missing", file.name());
  }
  config.vocabulary = static_cast<std::int64_t>(embedding->rows());
  if (config.vocabulary > (1 << 22)) {
    fail(StatusCode::kCorrupt, "{}: tensor \"token_embd.weight\" at offset {}: {} tokens",
         file.name(), embedding->offset, config.vocabulary);
  }
  const std::uint32_t said =
      file.u32_or("llama.vocab_size", static_cast<std::uint32_t>(config.vocabulary));
  if (said != config.vocabulary) {
    fail(StatusCode::kCorrupt,
         "{}: key \"llama.vocab_size\" says {}, token_embd.weight has {} rows", file.name(), said,
         config.vocabulary);
  }
  return config;
}

LlamaWeights read_weights(const GgufFile& file, const LlamaConfig& config,
                          std::vector<std::string>* unused) {
  if (const GgufTensor* factors = file.find_tensor("rope_freqs.weight"); factors != nullptr) {
    fail(StatusCode::kUnsupported,
         "{}: tensor \"rope_freqs.weight\" at offset {}: scaled rotary frequencies are not "
         "supported",
         file.name(), factors->offset);
  }
  std::set<std::string_view> used;
  LlamaWeights weights;
  weights.embedding = matrix(file, "token_embd.weight", config.width, config.vocabulary, used);
  weights.tied = file.find_tensor("output.weight") == nullptr;
  weights.head = weights.tied
                     ? weights.embedding
                     : matrix(file, "output.weight", config.width, config.vocabulary, used);
  weights.output_norm = vector(file, "output_norm.weight", config.width, used);
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = fmt::format("blk.{}.", layer);
    LayerWeights& l = weights.layers.emplace_back();
    l.attention_norm = vector(file, prefix + "attn_norm.weight", config.width, used);
    l.feed_forward_norm = vector(file, prefix + "ffn_norm.weight", config.width, used);
    for (int i = 0; i < kLinears; ++i) {
      const auto which = static_cast<Linear>(i);
      const std::string base = prefix + kLinearInfo[i].gguf;
      if (const GgufTensor* bias = file.find_tensor(base + ".bias"); bias != nullptr) {
        fail(StatusCode::kUnsupported, "{}: tensor \"{}\" at offset {}: biases are not supported",
             file.name(), bias->name, bias->offset);
      }
      l.linear[i] = matrix(file, base + ".weight", linear_inputs(config, which),
                           linear_outputs(config, which), used);
    }
  }
  for (const GgufTensor& tensor : file.tensors()) {
    if (unused != nullptr && !used.contains(tensor.name)) {
      unused->emplace_back(tensor.name);
    }
  }
  return weights;
}

}  // namespace nibble::model
