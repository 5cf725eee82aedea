// SPDX-License-Identifier: Apache-2.0
// What nibble's readers and writers make of a file, in a form that another language can compare.
//   formats_dump gguf IN OUT           tensors decoded to float32 into OUT, a JSON summary printed
//   formats_dump safetensors IN OUT    raw tensor bytes into OUT, a JSON summary printed
//   formats_dump copy-gguf IN OUT      read and written again
//   formats_dump copy-safetensors IN OUT
// Exit status: 0, or 3 with the error printed where the file is refused.
#include <cstdio>
#include <fstream>

#include "core/status.h"
#include "formats/gguf.h"
#include "formats/json.h"
#include "formats/safetensors.h"

namespace {

using nibble::formats::GgufArray;
using nibble::formats::GgufFile;
using nibble::formats::GgufTensor;
using nibble::formats::GgufValueType;
using nibble::formats::GgufWriter;
using nibble::formats::Json;
using nibble::formats::SafetensorsFile;

void write_floats(std::ofstream& out, const GgufFile& file, const GgufTensor& tensor) {
  const auto& info = nibble::math::ggml_type_info(tensor.type);
  const auto data = file.data(tensor);
  float block[32];
  for (std::size_t at = 0; at < data.size(); at += info.block_bytes) {
    nibble::math::decode_ggml_block(tensor.type, data.data() + at, block);
    out.write(reinterpret_cast<const char*>(block),
              static_cast<std::streamsize>(info.block_elements * sizeof(float)));
  }
}

Json value_of(const nibble::formats::GgufKeyValue& entry) {
  return std::visit(
      [](const auto& value) -> Json {
        if constexpr (std::is_same_v<std::decay_t<decltype(value)>, GgufArray>) {
          if (value.element_type == GgufValueType::kString) {
            return Json(value.strings);
          }
          std::vector<int> bytes;
          for (const std::byte b : value.bytes) {
            bytes.push_back(static_cast<int>(b));
          }
          return Json(bytes);
        } else {
          return Json(value);
        }
      },
      entry.value);
}

void dump_gguf(const char* in, const char* out_path) {
  const GgufFile file{in};
  file.check_weights();
  std::ofstream out(out_path, std::ios::binary);
  Json summary{{"keys", Json::object()}, {"tensors", Json::array()}};
  for (const auto& entry : file.metadata()) {
    summary["keys"][std::string(entry.key)] = {static_cast<int>(entry.type), value_of(entry)};
  }
  for (const GgufTensor& tensor : file.tensors()) {
    const std::vector<std::uint64_t> dims(tensor.dims.begin(), tensor.dims.begin() + tensor.n_dims);
    summary["tensors"].push_back(
        {{"name", tensor.name}, {"type", static_cast<int>(tensor.type)}, {"dims", dims}});
    write_floats(out, file, tensor);
  }
  std::puts(summary.dump().c_str());
}

void copy_gguf(const char* in, const char* out) {
  const GgufFile file{in};
  GgufWriter writer;
  for (const auto& entry : file.metadata()) {
    const std::string key(entry.key);
    switch (entry.type) {
      case GgufValueType::kU32:
        writer.add_u32(key, file.u32(key));
        break;
      case GgufValueType::kF32:
        writer.add_f32(key, file.f32(key));
        break;
      case GgufValueType::kBool:
        writer.add_bool(key, file.boolean_or(key, false));
        break;
      case GgufValueType::kString:
        writer.add_string(key, std::string(file.string(key)));
        break;
      case GgufValueType::kArray: {
        const auto& array = std::get<GgufArray>(entry.value);
        if (array.element_type == GgufValueType::kString) {
          writer.add_string_array(key, {array.strings.begin(), array.strings.end()});
        } else if (array.element_type == GgufValueType::kI32) {
          std::vector<std::int32_t> values(array.count);
          std::memcpy(values.data(), array.bytes.data(), array.bytes.size());
          writer.add_i32_array(key, values);
        }
        break;
      }
      default:  // the writer has no such type
        break;
    }
  }
  for (const GgufTensor& tensor : file.tensors()) {
    writer.add_tensor(std::string(tensor.name), tensor.type,
                      {tensor.dims.begin(), tensor.dims.begin() + tensor.n_dims},
                      file.data(tensor));
  }
  writer.write(out);
}

void dump_safetensors(const char* in, const char* out_path) {
  const SafetensorsFile file{in};
  std::ofstream out(out_path, std::ios::binary);
  Json summary{{"metadata", file.metadata()}, {"tensors", Json::array()}};
  for (const auto& tensor : file.tensors()) {
    summary["tensors"].push_back(
        {{"name", tensor.name}, {"dtype", tensor.dtype}, {"shape", tensor.shape}});
    out.write(reinterpret_cast<const char*>(tensor.bytes.data()),
              static_cast<std::streamsize>(tensor.bytes.size()));
  }
  std::puts(summary.dump().c_str());
}

void copy_safetensors(const char* in, const char* out) {
  const SafetensorsFile file{in};
  nibble::formats::write_safetensors(out, file.tensors(), file.metadata());
}

}  // namespace

int main(int argc, char** argv) {
  const std::string command = argc == 4 ? argv[1] : "";
  try {
    if (command == "gguf") {
      dump_gguf(argv[2], argv[3]);
    } else if (command == "safetensors") {
      dump_safetensors(argv[2], argv[3]);
    } else if (command == "copy-gguf") {
      copy_gguf(argv[2], argv[3]);
    } else if (command == "copy-safetensors") {
      copy_safetensors(argv[2], argv[3]);
    } else {
      std::fputs("usage: formats_dump gguf|safetensors|copy-gguf|copy-safetensors IN OUT\n",
                 stderr);
      return 2;
    }
  } catch (const nibble::Error& error) {
    std::printf("%s\n", error.what());
    return 3;
  }
  return 0;
}
