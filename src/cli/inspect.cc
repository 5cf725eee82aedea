// SPDX-License-Identifier: Apache-2.0
// nibble inspect: what is in a model file.
#include <fmt/format.h>

#include <map>
#include <memory>

#include "cli/command.h"
#include "core/status.h"
#include "formats/gguf.h"
#include "formats/json.h"

namespace nibble::cli {
namespace {

using formats::GgufArray;
using formats::GgufFile;
using formats::GgufTensor;
using formats::Json;

struct InspectCommand {
  std::string file;
  bool json = false, check = false;
};

// Arrays are told by their length, with their first elements when they are text.
Json value_json(const formats::GgufValue& value) {
  return std::visit(
      [](const auto& v) -> Json {
        if constexpr (std::is_same_v<std::decay_t<decltype(v)>, GgufArray>) {
          Json json{{"count", v.count}};
          Json first = Json::array();
          for (std::size_t i = 0; i < v.strings.size() && i < 3; ++i) {
            first.push_back(std::string(v.strings[i]));
          }
          if (!first.empty()) {
            json["first"] = std::move(first);
          }
          return json;
        } else if constexpr (std::is_same_v<std::decay_t<decltype(v)>, std::string_view>) {
          return std::string(v);
        } else {
          return v;
        }
      },
      value);
}

Json dims_json(const GgufTensor& tensor) {
  Json dims = Json::array();
  for (std::uint32_t i = 0; i < tensor.n_dims; ++i) {
    dims.push_back(tensor.dims[i]);
  }
  return dims;
}

Json document(const GgufFile& file) {
  Json metadata = Json::object(), tensors = Json::array();
  for (const auto& entry : file.metadata()) {
    metadata[std::string(entry.key)] = value_json(entry.value);
  }
  std::uint64_t parameters = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    parameters += tensor.elements;
    tensors.push_back({{"name", std::string(tensor.name)},
                       {"type", math::ggml_type_info(tensor.type).name},
                       {"dims", dims_json(tensor)},
                       {"bytes", tensor.bytes},
                       {"offset", tensor.offset}});
  }
  return {{"file", file.name()},
          {"bytes", file.file_bytes()},
          {"parameters", parameters},
          {"metadata", std::move(metadata)},
          {"tensors", std::move(tensors)}};
}

std::string shortened(const std::string& text) {
  constexpr std::size_t kLine = 96;
  return text.size() <= kLine ? text : text.substr(0, kLine) + "...";
}

void print_text(const GgufFile& file) {
  const Json json = document(file);
  fmt::print("{}: GGUF v3, {} bytes, {} parameters\n\nmetadata ({})\n", file.name(),
             file.file_bytes(), json["parameters"].dump(), file.metadata().size());
  for (const auto& [key, value] : json["metadata"].items()) {
    fmt::print("  {:<44} {}\n", key,
               shortened(value.dump(-1, ' ', false, Json::error_handler_t::replace)));
  }
  std::map<std::string, std::pair<std::uint64_t, std::uint64_t>> by_type;
  fmt::print("\ntensors ({})\n", file.tensors().size());
  for (const GgufTensor& tensor : file.tensors()) {
    const char* type = math::ggml_type_info(tensor.type).name;
    fmt::print("  {:<32} {:<5} {:<16} {:>12} bytes at {}\n", tensor.name, type,
               dims_json(tensor).dump(), tensor.bytes, tensor.offset);
    ++by_type[type].first;
    by_type[type].second += tensor.bytes;
  }
  fmt::print("\n");
  for (const auto& [type, sum] : by_type) {
    fmt::print("  {:<5} {:>5} tensors {:>14} bytes\n", type, sum.first, sum.second);
  }
}

}  // namespace

void add_inspect(CLI::App& app, int* exit_code) {
  auto c = std::make_shared<InspectCommand>();
  CLI::App* sub = app.add_subcommand("inspect", "metadata, tensors and sizes of a model file");
  sub->add_option("file,-m,--model", c->file, "GGUF file")->required();
  sub->add_flag("--json", c->json, "print one JSON object");
  sub->add_flag("--check-weights", c->check, "also read every tensor: scales must be finite");
  sub->callback([c, exit_code] {
    const GgufFile file{os::Path(c->file)};
    if (c->check) {
      file.check_weights();
    }
    if (c->json) {
      fmt::print("{}\n", document(file).dump(-1, ' ', false, Json::error_handler_t::replace));
    } else {
      print_text(file);
    }
    *exit_code = 0;
  });
}

}  // namespace nibble::cli
