// SPDX-License-Identifier: Apache-2.0
// Adapters on disk: PEFT's layout (adapter_model.safetensors with adapter_config.json) and the
// LoRA-GGUF that llama.cpp loads.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "formats/json.h"
#include "formats/safetensors.h"
#include "model/lora.h"
#include "os/file.h"

namespace nibble::model {

// The adapter's tensors as PEFT names and shapes them: base_model.model.<path>.lora_A.weight [r,
// in], .lora_B.weight [out, r]. GGUF files of the llama architecture hold the rows of q and k
// permuted for the pairwise rotary embedding; PEFT's are in Hugging Face's order, so rows of B are
// permuted back. Exact in both directions.
class PeftTensors {
 public:
  PeftTensors(const LoraAdapter& adapter, const LlamaConfig& model);
  const std::vector<formats::SafeTensor>& list() const { return list_; }

 private:
  std::vector<std::vector<float>> values_;
  std::vector<formats::SafeTensor> list_;
};

// adapter_config.json. `base_model` is what loaders should look for ("" is allowed).
formats::Json peft_config(const LoraConfig& config, const std::string& base_model);

// Sets the adapter's parameters from tensors in PEFT's layout. Error(kCorrupt) names what is
// missing, misshapen or not finite; the adapter is unchanged then.
void load_peft_tensors(const formats::SafetensorsFile& file, const LlamaConfig& model,
                       LoraAdapter& adapter);

// An adapter directory as PEFT (or nibble) wrote it. Error(kUnsupported) names what nibble's model
// cannot do (DoRA, rank patterns, modules_to_save...); unknown keys are ignored, as PEFT's own
// readers must.
LoraAdapter load_peft_adapter(const os::Path& directory, const LlamaConfig& model);

// The same adapter for llama.cpp: tensors <base>.weight.lora_a ne = [in, r] and .lora_b ne = [r,
// out], fp32; adapter.lora.alpha carries the scale (alpha * sqrt(r) with rsLoRA, since the reader
// divides by r).
void write_lora_gguf(const os::Path& path, const LoraAdapter& adapter,
                     const formats::GgufFile& base);

}  // namespace nibble::model
