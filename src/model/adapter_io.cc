// SPDX-License-Identifier: Apache-2.0
#include "model/adapter_io.h"

#include <cmath>
#include <cstring>
#include <set>

#include "core/status.h"

namespace nibble::model {
namespace {

using formats::Json;
using formats::SafeTensor;

constexpr const char* kPrefix = "base_model.model.";
constexpr std::uint64_t kMaxConfigBytes = 16U << 20;

// Row of GGUF's weight that holds row `hf` of Hugging Face's: inside a head, pairs (2i, 2i + 1)
// there are (i, i + D/2) here.
std::int64_t gguf_row(const LoraPair& pair, const LlamaConfig& model, std::int64_t hf) {
  if (pair.which != Linear::kQuery && pair.which != Linear::kKey) {
    return hf;
  }
  const std::int64_t dim = model.head_dim, inside = hf % dim;
  return hf - inside + inside % (dim / 2) * 2 + inside / (dim / 2);
}

std::string a_name(const LoraPair& pair) { return kPrefix + pair.hf_path() + ".lora_A.weight"; }
std::string b_name(const LoraPair& pair) { return kPrefix + pair.hf_path() + ".lora_B.weight"; }

std::uint64_t u64(std::int64_t n) { return static_cast<std::uint64_t>(n); }

std::span<const std::byte> bytes_of(const float* values, std::int64_t count) {
  return {reinterpret_cast<const std::byte*>(values), static_cast<std::size_t>(count) * 4};
}

// A tensor of the file, with nothing but numbers in it.
const float* finite_values(const formats::SafetensorsFile& file, const std::string& tensor,
                           std::uint64_t rows, std::uint64_t cols) {
  const SafeTensor& found = file.expect(tensor, "F32", {rows, cols});
  const auto* values = reinterpret_cast<const float*>(found.bytes.data());
  for (std::uint64_t i = 0; i < rows * cols; ++i) {
    float value = 0;
    std::memcpy(&value, values + i, sizeof value);  // the file may lay it anywhere
    if (!std::isfinite(value)) {
      fail(StatusCode::kCorrupt, "{}: tensor '{}': element {} is not finite ({})", file.name(),
           tensor, i, value);
    }
  }
  return values;
}

}  // namespace

PeftTensors::PeftTensors(const LoraAdapter& adapter, const LlamaConfig& model) {
  const std::int64_t r = adapter.config().rank;
  for (const LoraPair& pair : adapter.pairs()) {
    list_.push_back(
        {a_name(pair), "F32", {u64(r), u64(pair.inputs)}, bytes_of(pair.a, r * pair.inputs)});
    std::vector<float>& b = values_.emplace_back(static_cast<std::size_t>(r * pair.outputs));
    for (std::int64_t row = 0; row < pair.outputs; ++row) {
      const std::int64_t from = gguf_row(pair, model, row);
      for (std::int64_t i = 0; i < r; ++i) {
        b[static_cast<std::size_t>(row * r + i)] = pair.b_transposed[i * pair.outputs + from];
      }
    }
    list_.push_back(
        {b_name(pair), "F32", {u64(pair.outputs), u64(r)}, bytes_of(b.data(), r * pair.outputs)});
  }
}

Json peft_config(const LoraConfig& config, const std::string& base_model) {
  Json targets = Json::array();
  for (int i = 0; i < kLinears; ++i) {
    if (config.targets[i]) {
      targets.push_back(kLinearInfo[i].hf);
    }
  }
  // Whole numbers stay integers: some readers of lora_alpha insist on it.
  const Json alpha = std::floor(config.alpha) == config.alpha
                         ? Json(static_cast<std::int64_t>(config.alpha))
                         : Json(config.alpha);
  return {{"peft_type", "LORA"},
          {"task_type", "CAUSAL_LM"},
          {"base_model_name_or_path", base_model},
          {"r", config.rank},
          {"lora_alpha", alpha},
          {"lora_dropout", static_cast<double>(config.dropout)},
          {"use_rslora", config.rslora},
          {"use_dora", false},
          {"bias", "none"},
          {"fan_in_fan_out", false},
          {"init_lora_weights", true},
          {"inference_mode", true},
          {"target_modules", targets},
          {"modules_to_save", nullptr},
          {"rank_pattern", Json::object()},
          {"alpha_pattern", Json::object()},
          {"layers_to_transform", nullptr}};
}

void load_peft_tensors(const formats::SafetensorsFile& file, const LlamaConfig& model,
                       LoraAdapter& adapter) {
  const std::int64_t r = adapter.config().rank;
  struct Source {
    const float *a, *b;
  };
  std::vector<Source> sources;  // everything is checked before anything is written
  for (const LoraPair& pair : adapter.pairs()) {
    sources.push_back({finite_values(file, a_name(pair), u64(r), u64(pair.inputs)),
                       finite_values(file, b_name(pair), u64(pair.outputs), u64(r))});
  }
  if (file.tensors().size() != 2 * adapter.pairs().size()) {
    fail(StatusCode::kUnsupported, "{}: {} tensors where {} belong to the adapter's layers",
         file.name(), file.tensors().size(), 2 * adapter.pairs().size());
  }
  for (std::size_t p = 0; p < sources.size(); ++p) {
    LoraPair& pair = adapter.pairs()[p];
    std::memcpy(pair.a, sources[p].a, static_cast<std::size_t>(r * pair.inputs) * 4);
    for (std::int64_t row = 0; row < pair.outputs; ++row) {
      const std::int64_t to = gguf_row(pair, model, row);
      for (std::int64_t i = 0; i < r; ++i) {
        std::memcpy(&pair.b_transposed[i * pair.outputs + to], sources[p].b + row * r + i, 4);
      }
    }
  }
  adapter.refresh();
}

namespace {

// Settings of PEFT that change the arithmetic in ways the model does not have.
void refuse_unsupported(const Json& config, const std::string& name) {
  const auto set = [&](const char* key) {
    const auto found = config.find(key);
    return found != config.end() && !found->is_null() && *found != Json(false) &&
           !(found->is_structured() && found->empty());
  };
  for (const char* key : {"use_dora", "modules_to_save", "rank_pattern", "alpha_pattern",
                          "layers_to_transform", "fan_in_fan_out", "lora_bias"}) {
    if (set(key)) {
      fail(StatusCode::kUnsupported, "{}: key \"{}\" is set to something nibble does not have",
           name, key);
    }
  }
  if (config.value("peft_type", "LORA") != "LORA" || config.value("bias", "none") != "none") {
    fail(StatusCode::kUnsupported,
         "{}: keys \"peft_type\" and \"bias\" must be \"LORA\" and "
         "\"none\"",
         name);
  }
}

LoraConfig read_peft_config(const Json& json, const std::string& name) {
  if (!json.is_object()) {
    fail(StatusCode::kCorrupt, "{}: not a JSON object", name);
  }
  LoraConfig config;
  try {
    refuse_unsupported(json, name);
    config.rank = json.at("r").get<std::int64_t>();
    config.alpha = json.at("lora_alpha").get<double>();
    config.rslora = json.value("use_rslora", false);
    const Json& targets = json.at("target_modules");
    if (targets.is_string()) {
      parse_targets({targets.get<std::string>()}, config);
    } else {
      parse_targets(targets.get<std::vector<std::string>>(), config);
    }
  } catch (const Json::exception& error) {
    fail(StatusCode::kCorrupt, "{}: {}", name, error.what());
  }
  if (config.rank < 1 || config.rank > 4096 || !std::isfinite(config.alpha)) {
    fail(StatusCode::kCorrupt, "{}: key \"r\": {} or \"lora_alpha\": {} is out of range", name,
         config.rank, config.alpha);
  }
  return config;
}

}  // namespace

LoraAdapter load_peft_adapter(const os::Path& directory, const LlamaConfig& model) {
  const os::Path config_path = directory / "adapter_config.json";
  const Json json =
      formats::parse_json(os::read_file(config_path, kMaxConfigBytes), config_path.string());
  const LoraConfig config = read_peft_config(json, config_path.string());
  const formats::SafetensorsFile file(directory / "adapter_model.safetensors");
  LoraAdapter adapter(model, config, 0);
  load_peft_tensors(file, model, adapter);
  return adapter;
}

void write_lora_gguf(const os::Path& path, const LoraAdapter& adapter,
                     const formats::GgufFile& base) {
  const LoraConfig& config = adapter.config();
  formats::GgufWriter writer;
  writer.add_string("general.architecture", base.string("general.architecture"));
  writer.add_string("general.type", "adapter");
  writer.add_string("general.name", "LoRA adapter");
  writer.add_string("adapter.type", "lora");
  writer.add_f32("adapter.lora.alpha", config.scale() * static_cast<float>(config.rank));
  std::vector<std::vector<float>> values;
  values.reserve(adapter.pairs().size());
  for (const LoraPair& pair : adapter.pairs()) {
    const std::int64_t r = config.rank;
    std::vector<float>& b = values.emplace_back(static_cast<std::size_t>(r * pair.outputs));
    for (std::int64_t row = 0; row < pair.outputs; ++row) {
      for (std::int64_t i = 0; i < r; ++i) {
        b[static_cast<std::size_t>(row * r + i)] = pair.b_transposed[i * pair.outputs + row];
      }
    }
    const std::string name = pair.gguf_name() + ".weight";
    writer.add_tensor(name + ".lora_a", math::GgmlType::kF32, {u64(pair.inputs), u64(r)},
                      bytes_of(pair.a, r * pair.inputs));
    writer.add_tensor(name + ".lora_b", math::GgmlType::kF32, {u64(r), u64(pair.outputs)},
                      bytes_of(b.data(), r * pair.outputs));
  }
  writer.write(path);
}

}  // namespace nibble::model
