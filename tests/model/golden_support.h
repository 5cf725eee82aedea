// SPDX-License-Identifier: Apache-2.0
// Golden data of kind "model": found by its metadata, and driven by what its JSON says, so that
// another set (other texts, seeds, ranks, targets, batches) is tested by the same code.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <regex>
#include <string>
#include <vector>

#include "formats/json.h"
#include "formats/safetensors.h"
#include "model/llama.h"
#include "os/file.h"
#include "support/golden_rng.h"
#include "support/paths.h"

namespace nibble::test {

using formats::Json;

struct GoldenModel {
  std::unique_ptr<formats::SafetensorsFile> tensors;
  Json json;
  std::string name;

  template <class T>
  std::vector<T> values(const std::string& tensor) const {
    const formats::SafeTensor* found = tensors->find(tensor);
    if (found == nullptr) {
      ADD_FAILURE() << name << ": no tensor " << tensor;
      return {};
    }
    std::vector<T> out(found->bytes.size() / sizeof(T));
    std::memcpy(out.data(), found->bytes.data(), found->bytes.size());
    return out;
  }
};

// Every .safetensors of kind "model" with a .json beside it.
inline std::vector<GoldenModel> golden_models() {
  std::vector<GoldenModel> out;
  if (!std::filesystem::is_directory(golden_dir())) {
    return out;
  }
  for (const auto& entry : std::filesystem::directory_iterator(golden_dir())) {
    std::filesystem::path json = entry.path();
    json.replace_extension(".json");
    if (entry.path().extension() != ".safetensors" || !std::filesystem::exists(json)) {
      continue;
    }
    auto tensors = std::make_unique<formats::SafetensorsFile>(entry.path());
    const auto& metadata = tensors->metadata();
    const auto recipe = metadata.find("recipe");
    const auto kind = metadata.find("kind");
    const bool is_model =
        (kind != metadata.end() && kind->second == "model") ||
        (recipe != metadata.end() &&
         formats::parse_json(recipe->second, tensors->name()).value("kind", "") == "model");
    if (is_model) {
      const std::string text = os::read_file(json, 64U << 20);
      out.push_back(
          {std::move(tensors), formats::parse_json(text, json.string()), json.filename().string()});
    }
  }
  return out;
}

// The real model and the golden data made from it; skips, saying what is missing.
class GoldenTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!real_model()) {
      GTEST_SKIP() << "no real model: set NIBBLE_TEST_MODEL or put it into models/";
    }
    goldens_ = golden_models();
    if (goldens_.empty()) {
      GTEST_SKIP() << "no golden data of kind \"model\" in " << golden_dir();
    }
    file_ = std::make_unique<formats::GgufFile>(*real_model());
  }

  std::vector<GoldenModel> goldens_;
  std::unique_ptr<formats::GgufFile> file_;
};

// "uniform(seed,n,stream=5000+layer*2+(0 q,1 v))*f32(1/24)": which stream a layer's target has, and
// the factor.
struct InitRecipe {
  std::uint64_t first = 0, per_layer = 0;
  float factor = 0;  // 0: zeros

  static InitRecipe parse(const std::string& text) {
    static const std::regex pattern(
        R"(.*stream=(\d+)\+layer\*(\d+)\+.*f32\(([0-9.eE+-]+)(?:/([0-9.eE+-]+))?\).*)");
    std::smatch match;
    if (!std::regex_match(text, match, pattern)) {
      ADD_FAILURE() << "an initialisation that the test cannot read: " << text;
      return {};
    }
    const double below = match[4].matched ? std::stod(match[4].str()) : 1;
    return {std::stoull(match[1].str()), std::stoull(match[2].str()),
            static_cast<float>(std::stod(match[3].str()) / below)};
  }
};

// Row of a GGUF q or k matrix (pairs side by side) that holds row `row` of the Hugging Face one
// (halves of a head): the converter's permutation.
inline std::int64_t gguf_row(model::Linear which, std::int64_t row, std::int64_t dim) {
  if (which != model::Linear::kQuery && which != model::Linear::kKey) {
    return row;
  }
  const std::int64_t in_head = row % dim;
  return row - in_head + in_head % (dim / 2) * 2 + in_head / (dim / 2);
}

// One LoRA training run of the golden data.
struct GoldenRun {
  GoldenRun(const GoldenModel& golden, std::string variant, const model::LlamaConfig& config)
      : golden(golden), name(std::move(variant)), dim(config.head_dim) {
    const Json& lora = golden.json.at("lora");
    targets = lora.at("targets").get<std::vector<std::string>>();
    lora_config.rank = lora.at("r");
    lora_config.alpha = lora.at("alpha");
    model::parse_targets(targets, lora_config);
    adapter = std::make_unique<model::LoraAdapter>(config, lora_config, 1);
    const std::string ending = name.substr(name.rfind('_') + 1);
    const InitRecipe a = InitRecipe::parse(lora.at("A_init"));
    InitRecipe b;
    if (const auto recipe = lora.find("B_init_" + ending); recipe != lora.end()) {
      b = InitRecipe::parse(*recipe);
    }
    random_b = b.factor != 0;
    const std::uint64_t seed = lora.at("seed");
    for (model::LoraPair& pair : adapter->pairs()) {
      initialise(pair, a, b, seed);
    }
    adapter->refresh();
    read_batch(lora);
  }

  // Index in "targets" of a pair's layer.
  std::uint64_t target(const model::LoraPair& pair) const {
    for (std::size_t i = 0; i < targets.size(); ++i) {
      if (targets[i] == model::linear_info(pair.which).hf ||
          targets[i] == model::linear_info(pair.which).gguf) {
        return i;
      }
    }
    ADD_FAILURE() << pair.gguf_name();
    return 0;
  }

  // Where element (o, r) of the golden B [out, r] is in ours.
  std::int64_t b_at(const model::LoraPair& pair, std::int64_t o, std::int64_t r) const {
    return r * pair.outputs + gguf_row(pair.which, o, dim);
  }

  // Values of a golden A (or B) and ours in its order.
  std::vector<float> a_of(const model::LoraPair& pair, const float* a) const {
    return {a, a + lora_config.rank * pair.inputs};
  }
  std::vector<float> b_of(const model::LoraPair& pair, const float* b) const {
    std::vector<float> out;
    for (std::int64_t o = 0; o < pair.outputs; ++o) {
      for (std::int64_t r = 0; r < lora_config.rank; ++r) {
        out.push_back(b[b_at(pair, o, r)]);
      }
    }
    return out;
  }

  model::TokenBatch batch() const { return {ids, labels, starts}; }
  float scale() const { return 1.0F / static_cast<float>(count); }  // mean over the labels

  const GoldenModel& golden;
  std::string name;
  std::int64_t dim, count = 0;
  bool random_b = false;
  std::vector<std::string> targets;
  model::LoraConfig lora_config{.targets = {}};
  std::unique_ptr<model::LoraAdapter> adapter;
  std::vector<std::int32_t> ids, labels;
  std::vector<std::int64_t> starts{0};

 private:
  void initialise(model::LoraPair& pair, const InitRecipe& a, const InitRecipe& b,
                  std::uint64_t seed) const {
    const std::int64_t rank = lora_config.rank;
    const std::uint64_t index = target(pair) + static_cast<std::uint64_t>(pair.layer) * a.per_layer;
    for (std::int64_t i = 0; i < rank * pair.inputs; ++i) {
      pair.a[i] = golden_uniform(seed, a.first + index, static_cast<std::uint64_t>(i)) * a.factor;
    }
    const std::uint64_t b_index =
        target(pair) + static_cast<std::uint64_t>(pair.layer) * b.per_layer;
    for (std::int64_t o = 0; o < pair.outputs; ++o) {
      for (std::int64_t r = 0; r < rank; ++r) {
        const auto element = static_cast<std::uint64_t>(o * rank + r);
        pair.b_transposed[b_at(pair, o, r)] =
            b.factor == 0 ? 0 : golden_uniform(seed, b.first + b_index, element) * b.factor;
      }
    }
  }

  // Rows of the batch; each token's label is the next one of its row.
  void read_batch(const Json& lora) {
    const std::int64_t rows = lora.at("batch").at(0), length = lora.at("batch").at(1);
    ids = golden.values<std::int32_t>("lora_batch");
    ASSERT_EQ(static_cast<std::int64_t>(ids.size()), rows * length);
    labels.assign(ids.size(), -1);
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t t = 0; t + 1 < length; ++t) {
        labels[static_cast<std::size_t>(row * length + t)] =
            ids[static_cast<std::size_t>(row * length + t + 1)];
        ++count;
      }
      starts.push_back((row + 1) * length);
    }
  }
};

inline double norm2(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) {
    sum += static_cast<double>(value) * static_cast<double>(value);
  }
  return std::sqrt(sum);
}

}  // namespace nibble::test
