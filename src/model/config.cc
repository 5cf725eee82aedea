// SPDX-License-Identifier: Apache-2.0
#include "model/config.h"

#include <cmath>
#include <set>
#include <type_traits>
#include <variant>

#include "core/status.h"
#include "formats/text_safety.h"

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

// Keys of features that change the arithmetic and are not implemented, and the one value of each
// that asks for nothing.
void refuse_unsupported_keys(const GgufFile& file) {
  struct Refused {
    const char* key;
    double neutral;
  };
  static constexpr Refused kRefused[] = {
      {"llama.rope.scaling.type", NAN},  // but "none"
      {"llama.rope.scaling.factor", 1},
      {"llama.rope.scale_linear", 1},
      {"llama.attention.sliding_window", 0},
      {"llama.attention.causal", 1},
      {"llama.attention.clamp_kqv", 0},
      {"llama.attention.max_alibi_bias", 0},
      {"llama.attention.scale", NAN},
      {"llama.attn_logit_softcapping", 0},
      {"llama.final_logit_softcapping", 0},
      {"llama.use_parallel_residual", 0},
      {"llama.expert_count", 0},
      {"llama.logit_scale", 1},
      {"llama.residual_scale", 1},
      {"llama.embedding_scale", 1},
  };
  for (const auto& [key, neutral] : kRefused) {
    const formats::GgufKeyValue* found = file.find(key);
    if (found == nullptr) {
      continue;
    }
    const bool harmless = std::visit(
        [neutral = neutral](const auto& value) {
          using T = std::remove_cvref_t<decltype(value)>;
          if constexpr (std::is_arithmetic_v<T>) {
            return static_cast<double>(value) == neutral;
          } else if constexpr (std::is_same_v<T, std::string_view>) {
            return value == "none";
          } else {
            return false;
          }
        },
        found->value);
    if (!harmless) {
      fail(StatusCode::kUnsupported,
           "{}: key \"{}\" at offset {} asks for a feature that nibble does not have", file.name(),
           key, found->offset);
    }
  }
  // How many files hold the model, this one included.
  if (const auto* split = file.find("split.count"); split != nullptr) {
    const auto* count = std::get_if<std::uint64_t>(&split->value);
    if (count == nullptr || *count > 1) {
      fail(StatusCode::kUnsupported,
           "{}: key \"split.count\" at offset {}: models in several files are not supported",
           file.name(), split->offset);
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

// Heads divide one another and the width; head_dim as the file says or as it follows.
void read_head_shape(const GgufFile& file, LlamaConfig& config) {
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
  // Current converters always write it, and models whose values differ from the keys are few.
  const std::uint32_t value_length =
      file.u32_or("llama.attention.value_length", static_cast<std::uint32_t>(config.head_dim));
  if (value_length != config.head_dim) {
    fail(StatusCode::kUnsupported,
         "{}: key \"llama.attention.value_length\": {}, while a head's keys have {}", file.name(),
         value_length, config.head_dim);
  }
  const std::uint32_t rope_dims =
      file.u32_or("llama.rope.dimension_count", static_cast<std::uint32_t>(config.head_dim));
  if (rope_dims != config.head_dim || rope_dims % 2 != 0) {
    fail(StatusCode::kUnsupported,
         "{}: key \"llama.rope.dimension_count\": {} of a head's {} dimensions; nibble rotates all",
         file.name(), rope_dims, config.head_dim);
  }
}

// Rows of the embedding, which every other count must agree with.
std::int64_t read_vocabulary(const GgufFile& file) {
  const GgufTensor* embedding = file.find_tensor("token_embd.weight");
  if (embedding == nullptr) {
    fail(StatusCode::kCorrupt, "{}: tensor \"token_embd.weight\" is missing", file.name());
  }
  const auto vocabulary = static_cast<std::int64_t>(embedding->rows());
  if (vocabulary > (1 << 22)) {
    fail(StatusCode::kCorrupt, "{}: tensor \"token_embd.weight\" at offset {}: {} tokens",
         file.name(), embedding->offset, vocabulary);
  }
  const std::uint32_t said =
      file.u32_or("llama.vocab_size", static_cast<std::uint32_t>(vocabulary));
  if (said != vocabulary) {
    fail(StatusCode::kCorrupt,
         "{}: key \"llama.vocab_size\" says {}, token_embd.weight has {} rows", file.name(), said,
         vocabulary);
  }
  // The tokenizer's list, where there is one: ids must mean rows of the embedding.
  if (file.has("tokenizer.ggml.tokens")) {
    const auto tokens = static_cast<std::int64_t>(
        file.array("tokenizer.ggml.tokens", formats::GgufValueType::kString).count);
    if (tokens != vocabulary) {
      fail(StatusCode::kCorrupt,
           "{}: key \"tokenizer.ggml.tokens\" has {} tokens, token_embd.weight has {} rows",
           file.name(), tokens, vocabulary);
    }
  }
  return vocabulary;
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
         file.name(), formats::printable(architecture));
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
  read_head_shape(file, config);
  config.rms_epsilon = file.f32("llama.attention.layer_norm_rms_epsilon");
  config.rope_base = file.f32_or("llama.rope.freq_base", 10000.0F);
  if (!(config.rms_epsilon > 0) || !(config.rope_base > 0)) {
    fail(StatusCode::kCorrupt,
         "{}: keys \"llama.attention.layer_norm_rms_epsilon\" and \"llama.rope.freq_base\" must be "
         "positive: {}, {}",
         file.name(), config.rms_epsilon, config.rope_base);
  }
  config.vocabulary = read_vocabulary(file);
  return config;
}

LlamaWeights read_weights(const GgufFile& file, const LlamaConfig& config) {
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
      const std::string name = prefix + kLinearInfo[i].gguf + ".weight";
      l.linear[i] =
          matrix(file, name, linear_inputs(config, which), linear_outputs(config, which), used);
    }
  }
  // A tensor that is left over belongs to arithmetic that is not done here (norms of q and k,
  // biases, experts): running without it would be an approximation.
  for (const GgufTensor& tensor : file.tensors()) {
    if (!used.contains(tensor.name)) {
      fail(StatusCode::kUnsupported,
           "{}: tensor \"{}\" at offset {} is not part of the llama architecture that nibble runs",
           file.name(), formats::printable(tensor.name), tensor.offset);
    }
  }
  return weights;
}

}  // namespace nibble::model
