// SPDX-License-Identifier: Apache-2.0
// LoRA (Hu et al. 2021): y = W x + s B A x with frozen W, A [r, in], B [out, r], s = alpha / r, or
// alpha / sqrt(r) with rsLoRA (Kalajdzievski 2023).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend/matrix.h"
#include "core/buffer.h"
#include "model/config.h"

namespace nibble::model {

struct LoraConfig {
  std::int64_t rank = 16;
  double alpha = 16;
  float dropout = 0;
  bool rslora = false;
  bool targets[kLinears] = {true, true, true, true, true, true, true};

  float scale() const;
};

// Names as users write them: "all", or a list of q_proj or attn_q style names, in any mixture.
// Error(kInvalidArgument) lists the names.
void parse_targets(const std::vector<std::string>& names, LoraConfig& config);

// One adapted linear layer. B is held transposed ([r, out]): so every product reads rows.
struct LoraPair {
  std::int64_t layer;
  Linear which;
  std::int64_t inputs, outputs;
  float *a, *b_transposed;            // fp32 [r, inputs], [r, outputs]
  float *a_grad, *b_transposed_grad;  // the same shapes
  std::string gguf_name() const;      // blk.3.attn_q
  std::string hf_path() const;        // model.layers.3.self_attn.q_proj
};

class LoraAdapter {
 public:
  // A ~ U(-1/sqrt(in), 1/sqrt(in)) (Kaiming uniform with a = sqrt(5), PEFT's default) from
  // (seed, name); B = 0.
  LoraAdapter(const LlamaConfig& model, const LoraConfig& config, std::uint64_t seed);

  const LoraConfig& config() const { return config_; }
  std::vector<LoraPair>& pairs() { return pairs_; }
  const std::vector<LoraPair>& pairs() const { return pairs_; }
  // nullptr if that linear layer is not adapted.
  const LoraPair* find(std::int64_t layer, Linear which) const;
  std::int64_t parameter_count() const { return count_; }
  // The first pair with a value that is not finite; nullptr if there is none.
  const LoraPair* non_finite() const;

  // A and B^T in fp32, or rounded to bf16 as of the last refresh().
  backend::ConstMatrix a(const LoraPair& pair, backend::DType dtype) const;
  backend::ConstMatrix b_transposed(const LoraPair& pair, backend::DType dtype) const;
  // To be called after the parameters changed.
  void refresh();
  void zero_grad();

 private:
  backend::ConstMatrix view(const float* values, std::int64_t cols, backend::DType dtype) const;

  LoraConfig config_;
  std::int64_t count_ = 0;
  Buffer values_, grads_, rounded_;
  std::vector<LoraPair> pairs_;
  std::vector<std::int32_t> index_;  // [layer * kLinears + which] -> pair, -1
};

}  // namespace nibble::model
