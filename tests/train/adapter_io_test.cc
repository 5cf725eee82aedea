// SPDX-License-Identifier: Apache-2.0
// Adapters on disk: names, shapes, the order of rows, and the way back.
#include "model/adapter_io.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "core/status.h"
#include "support/expect_error.h"
#include "support/paths.h"

namespace nibble::model {
namespace {

LlamaConfig tiny() { return {2, 32, 48, 4, 2, 8, 50, 128, 1e-5F, 1e4F}; }

LoraAdapter adapter(const LoraConfig& config) {
  LoraAdapter result(tiny(), config, 5);
  float next = 0.25F;
  for (LoraPair& pair : result.pairs()) {
    for (std::int64_t i = 0; i < config.rank * pair.outputs; ++i) {
      pair.b_transposed[i] = next;
      next += 0.5F;
    }
  }
  return result;
}

float element(const formats::SafeTensor& tensor, std::size_t at) {
  float value = 0;
  std::memcpy(&value, tensor.bytes.data() + at * 4, 4);
  return value;
}

// Row i of a head in Hugging Face's order is row 2i (first half) or 2(i - D/2) + 1 in GGUF's.
TEST(AdapterIo, RowsOfQueryAndKeyAreInHuggingFaceOrder) {
  LoraConfig config;
  config.rank = 3;
  const LoraAdapter made = adapter(config);
  const PeftTensors tensors(made, tiny());
  ASSERT_EQ(tensors.list().size(), 2U * 2 * kLinears);
  for (const formats::SafeTensor& tensor : tensors.list()) {
    if (tensor.name.find("layers.1.") == std::string::npos ||
        tensor.name.find("lora_B") == std::string::npos) {
      continue;
    }
    const bool permuted = tensor.name.find("q_proj") != std::string::npos ||
                          tensor.name.find("k_proj") != std::string::npos;
    for (const LoraPair& pair : made.pairs()) {
      if (tensor.name != "base_model.model." + pair.hf_path() + ".lora_B.weight") {
        continue;
      }
      ASSERT_EQ(tensor.shape,
                (std::vector<std::uint64_t>{static_cast<std::uint64_t>(pair.outputs), 3}));
      for (std::int64_t row = 0; row < pair.outputs; ++row) {
        const std::int64_t head = row / 8, i = row % 8;
        const std::int64_t from = !permuted ? row : head * 8 + (i < 4 ? 2 * i : 2 * (i - 4) + 1);
        for (std::int64_t r = 0; r < 3; ++r) {
          EXPECT_EQ(element(tensor, static_cast<std::size_t>(row * 3 + r)),
                    pair.b_transposed[r * pair.outputs + from]);
        }
      }
    }
  }
}

TEST(AdapterIo, DirectoryComesBackToTheBit) {
  const test::TemporaryDirectory directory;
  LoraConfig config;
  config.rank = 2;
  config.alpha = 7.5;
  config.rslora = true;
  parse_targets({"q_proj", "ffn_down"}, config);
  const LoraAdapter made = adapter(config);
  formats::write_safetensors(directory.path() / "adapter_model.safetensors",
                             PeftTensors(made, tiny()).list(), {});
  os::write_file(directory.path() / "adapter_config.json", peft_config(config, "base").dump());
  const LoraAdapter read = load_peft_adapter(directory.path(), tiny());
  EXPECT_EQ(read.config().scale(), made.config().scale());
  ASSERT_EQ(read.pairs().size(), made.pairs().size());
  for (std::size_t p = 0; p < made.pairs().size(); ++p) {
    const LoraPair &x = made.pairs()[p], &y = read.pairs()[p];
    EXPECT_EQ(std::memcmp(x.a, y.a, static_cast<std::size_t>(2 * x.inputs) * 4), 0);
    EXPECT_EQ(
        std::memcmp(x.b_transposed, y.b_transposed, static_cast<std::size_t>(2 * x.outputs) * 4),
        0);
  }
}

TEST(AdapterIo, ValuesThatAreNoNumbersAreFound) {
  const test::TemporaryDirectory directory;
  LoraAdapter made = adapter({});
  EXPECT_EQ(made.non_finite(), nullptr);
  const LoraPair& last = made.pairs().back();
  for (float* value : {&last.a[15 * last.inputs], &last.b_transposed[16 * last.outputs - 1]}) {
    const float before = *value;
    *value = -std::numeric_limits<float>::infinity();
    EXPECT_EQ(made.non_finite(), &last);
    formats::write_safetensors(directory.path() / "adapter_model.safetensors",
                               PeftTensors(made, tiny()).list(), {});
    os::write_file(directory.path() / "adapter_config.json", peft_config({}, "base").dump());
    const char* name = value == &last.a[15 * last.inputs] ? "lora_A" : "lora_B";
    test::expect_error(StatusCode::kCorrupt, {"adapter_model.safetensors", last.hf_path(), name},
                       [&] { load_peft_adapter(directory.path(), tiny()); });
    *value = before;
  }
}

TEST(AdapterIo, WhatTheModelCannotDoIsRefusedByName) {
  const test::TemporaryDirectory directory;
  for (const auto& [key, value] :
       std::map<std::string, formats::Json>{{"use_dora", true},
                                            {"rank_pattern", {{"q_proj", 4}}},
                                            {"modules_to_save", {"lm_head"}}}) {
    formats::Json config = peft_config({}, "base");
    config[key] = value;
    os::write_file(directory.path() / "adapter_config.json", config.dump());
    try {
      load_peft_adapter(directory.path(), tiny());
      ADD_FAILURE() << key;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), StatusCode::kUnsupported);
      EXPECT_NE(std::string(error.what()).find(key), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace nibble::model
