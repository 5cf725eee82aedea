// SPDX-License-Identifier: Apache-2.0
// What a model file says of its architecture. Only "llama" here; what a file needs beyond what is
// implemented (rope scaling, biases, experts...) is refused by name, never approximated.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend/matrix.h"
#include "formats/gguf.h"

namespace nibble::model {

using backend::QuantizedMatrix;

struct LlamaConfig {
  std::int64_t layers, width, feed_forward, heads, kv_heads, head_dim, vocabulary, context;
  float rms_epsilon, rope_base;
};

// The seven linear layers of a decoder layer, by their names in GGUF and in Hugging Face models.
enum class Linear : std::uint8_t { kQuery, kKey, kValue, kOutput, kGate, kUp, kDown };
inline constexpr int kLinears = 7;

struct LinearInfo {
  const char* gguf;     // blk.<layer>.<gguf>.weight
  const char* hf;       // the name in --lora-target
  const char* hf_path;  // model.layers.<layer>.<hf_path>.weight
};
inline constexpr LinearInfo kLinearInfo[kLinears] = {
    {"attn_q", "q_proj", "self_attn.q_proj"},   {"attn_k", "k_proj", "self_attn.k_proj"},
    {"attn_v", "v_proj", "self_attn.v_proj"},   {"attn_output", "o_proj", "self_attn.o_proj"},
    {"ffn_gate", "gate_proj", "mlp.gate_proj"}, {"ffn_up", "up_proj", "mlp.up_proj"},
    {"ffn_down", "down_proj", "mlp.down_proj"},
};
constexpr const LinearInfo& linear_info(Linear which) {
  return kLinearInfo[static_cast<int>(which)];
}

// Inputs and outputs of a linear layer.
std::int64_t linear_inputs(const LlamaConfig& config, Linear which);
std::int64_t linear_outputs(const LlamaConfig& config, Linear which);

struct LayerWeights {
  std::vector<float> attention_norm, feed_forward_norm;
  QuantizedMatrix linear[kLinears];
};

// Views into the file, which must outlive them; norms are copied.
struct LlamaWeights {
  QuantizedMatrix embedding;
  QuantizedMatrix head;  // the embedding when tied
  bool tied;
  std::vector<float> output_norm;
  std::vector<LayerWeights> layers;
};

// Error(kUnsupported) names what the file needs and nibble lacks; Error(kCorrupt) a missing key or
// tensor, a wrong shape, a value out of range.
LlamaConfig read_config(const formats::GgufFile& file);

// Every tensor the architecture needs, each with exactly its shape, and no other: a tensor that is
// left over is refused, because whatever it is for would not be done.
LlamaWeights read_weights(const formats::GgufFile& file, const LlamaConfig& config);

}  // namespace nibble::model
