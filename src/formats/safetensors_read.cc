// SPDX-License-Identifier: Apache-2.0
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <utility>

#include "core/status.h"
#include "formats/byte_reader.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "formats/text_safety.h"

namespace nibble::formats {
namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr std::uint64_t kLengthBytes = 8;

struct Dtype {
  std::string_view name;
  std::uint64_t bytes;
};
constexpr std::array<Dtype, 15> kDtypes = {{{"F64", 8},
                                            {"F32", 4},
                                            {"F16", 2},
                                            {"BF16", 2},
                                            {"I64", 8},
                                            {"I32", 4},
                                            {"I16", 2},
                                            {"I8", 1},
                                            {"U64", 8},
                                            {"U32", 4},
                                            {"U16", 2},
                                            {"U8", 1},
                                            {"BOOL", 1},
                                            {"F8_E4M3", 1},
                                            {"F8_E5M2", 1}}};
// What the format also knows.
constexpr std::array<std::string_view, 7> kForeignDtypes = {
    "F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64"};

// Reads one header. Positions of JSON members are lost in parsing; for a message the tensor's name
// is searched in the text.
class HeaderReader {
 public:
  HeaderReader(std::span<const std::byte> file, const std::string& name)
      : name_(name), size_(file.size()) {
    ByteReader reader(file, name);
    reader.set_context("header");
    const auto length = reader.read<std::uint64_t>("its length");
    if (length > kMaxHeaderBytes) {
      fail(StatusCode::kCorrupt, "{}: header: length {} at offset 0 exceeds the limit of {}", name_,
           length, kMaxHeaderBytes);
    }
    const auto text = reader.take(length, "the JSON text");
    text_ = {reinterpret_cast<const char*>(text.data()), text.size()};
    if (!text_.starts_with('{')) {
      fail(StatusCode::kCorrupt, "{}: header: offset {} must hold '{{'", name_, kLengthBytes);
    }
    data_ = file.subspan(reader.position());
  }

  void read(std::map<std::string, std::string>& metadata, std::vector<SafeTensor>& tensors) {
    const Json header = parse_json(text_, name_ + ": header", kLengthBytes);
    for (const auto& [key, value] : header.items()) {
      if (key == "__metadata__") {
        read_metadata(value, metadata);
      } else {
        tensors.push_back(read_tensor(key, value));
      }
    }
    check_layout(tensors);
  }

 private:
  template <class... Args>
  [[noreturn]] void fail_at(StatusCode code, std::string_view tensor,
                            fmt::format_string<Args...> format, Args&&... args) const {
    const std::size_t found = text_.find(Json(std::string(tensor)).dump());
    const std::uint64_t offset = kLengthBytes + (found == std::string_view::npos ? 0 : found);
    fail(code, "{}: tensor '{}' (header offset {}): {}", name_, printable(tensor), offset,
         fmt::format(format, std::forward<Args>(args)...));
  }

  void read_metadata(const Json& value, std::map<std::string, std::string>& metadata) const {
    if (!value.is_object()) {
      fail_at(StatusCode::kCorrupt, "__metadata__", "must be an object");
    }
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) {
        fail_at(StatusCode::kCorrupt, "__metadata__", "the value of '{}' must be a string",
                printable(key));
      }
      metadata.emplace(key, text.get_ref<const std::string&>());
    }
  }

  std::uint64_t unsigned_of(const Json& value, std::string_view tensor,
                            std::string_view what) const {
    if (!value.is_number_unsigned()) {
      fail_at(StatusCode::kCorrupt, tensor, "{} must be unsigned integers", what);
    }
    return value.get<std::uint64_t>();
  }

  const Json& member(const Json& object, const char* key, std::string_view tensor) const {
    const auto found = object.find(key);
    if (found == object.end()) {
      fail_at(StatusCode::kCorrupt, tensor, "'{}' is missing", key);
    }
    return *found;
  }

  SafeTensor read_tensor(const std::string& name, const Json& value) const {
    if (!value.is_object()) {
      fail_at(StatusCode::kCorrupt, name, "must be an object");
    }
    for (const auto& [key, ignored] : value.items()) {
      if (key != "dtype" && key != "shape" && key != "data_offsets") {
        fail_at(StatusCode::kCorrupt, name, "unknown key '{}'", printable(key));
      }
    }
    SafeTensor tensor;
    tensor.name = name;
    tensor.dtype = read_dtype(name, member(value, "dtype", name));
    const Json& shape = member(value, "shape", name);
    const Json& offsets = member(value, "data_offsets", name);
    if (!shape.is_array()) {
      fail_at(StatusCode::kCorrupt, name, "'shape' must be an array");
    }
    if (!offsets.is_array() || offsets.size() != 2) {
      fail_at(StatusCode::kCorrupt, name, "'data_offsets' must be two numbers");
    }
    std::uint64_t bytes = safetensors_dtype_bytes(tensor.dtype);
    for (const Json& dim : shape) {
      tensor.shape.push_back(unsigned_of(dim, name, "'shape'"));
      if (!multiply(bytes, tensor.shape.back(), bytes)) {
        fail_at(StatusCode::kCorrupt, name, "the shape's size does not fit 64 bits");
      }
    }
    const std::uint64_t begin = unsigned_of(offsets[0], name, "'data_offsets'");
    const std::uint64_t end = unsigned_of(offsets[1], name, "'data_offsets'");
    if (begin > end || end > data_.size()) {
      fail_at(StatusCode::kCorrupt, name, "data offsets [{}, {}] lie outside the file's {} bytes",
              begin, end, data_.size());
    }
    if (end - begin != bytes) {
      fail_at(StatusCode::kCorrupt, name, "shape and dtype need {} bytes, the offsets hold {}",
              bytes, end - begin);
    }
    tensor.bytes = data_.subspan(begin, bytes);
    return tensor;
  }

  std::string read_dtype(std::string_view tensor, const Json& value) const {
    if (!value.is_string()) {
      fail_at(StatusCode::kCorrupt, tensor, "'dtype' must be a string");
    }
    auto dtype = value.get<std::string>();
    if (std::ranges::find(kForeignDtypes, dtype) != kForeignDtypes.end()) {
      fail_at(StatusCode::kUnsupported, tensor, "dtype {} is not supported", dtype);
    }
    if (safetensors_dtype_bytes(dtype) == 0) {
      fail_at(StatusCode::kCorrupt, tensor, "unknown dtype '{}'", printable(dtype));
    }
    return dtype;
  }

  // No holes, no overlap, the last tensor ends with the file: nothing can hide between.
  void check_layout(std::vector<SafeTensor>& tensors) const {
    const auto begin = [&](const SafeTensor& tensor) {
      return static_cast<std::uint64_t>(tensor.bytes.data() - data_.data());
    };
    std::ranges::stable_sort(tensors, [&](const SafeTensor& a, const SafeTensor& b) {
      return std::pair(begin(a), a.bytes.size()) < std::pair(begin(b), b.bytes.size());
    });
    std::uint64_t expected = 0;
    for (const SafeTensor& tensor : tensors) {
      if (begin(tensor) != expected) {
        fail_at(StatusCode::kCorrupt, tensor.name,
                "its data begins at {}, but the one before ends at {}: tensors must neither "
                "overlap nor leave holes",
                begin(tensor), expected);
      }
      expected += tensor.bytes.size();
    }
    if (expected != data_.size()) {
      fail(StatusCode::kCorrupt, "{}: {} bytes at offset {} belong to no tensor", name_,
           data_.size() - expected, size_ - (data_.size() - expected));
    }
  }

  const std::string& name_;
  std::uint64_t size_;
  std::string_view text_;
  std::span<const std::byte> data_;
};

}  // namespace

std::uint64_t safetensors_dtype_bytes(std::string_view dtype) {
  const auto found = std::ranges::find(kDtypes, dtype, &Dtype::name);
  return found == kDtypes.end() ? 0 : found->bytes;
}

SafetensorsFile::SafetensorsFile(const os::Path& path)
    : map_(path), bytes_(map_.bytes()), name_(map_.name()) {
  parse();
}

SafetensorsFile::SafetensorsFile(std::span<const std::byte> bytes, std::string name)
    : bytes_(bytes), name_(std::move(name)) {
  parse();
}

void SafetensorsFile::parse() { HeaderReader(bytes_, name_).read(metadata_, tensors_); }

const SafeTensor* SafetensorsFile::find(std::string_view tensor) const {
  const auto found = std::ranges::find(tensors_, tensor, &SafeTensor::name);
  return found == tensors_.end() ? nullptr : &*found;
}

const SafeTensor& SafetensorsFile::expect(std::string_view tensor, std::string_view dtype,
                                          const std::vector<std::uint64_t>& shape) const {
  const SafeTensor* const found = find(tensor);
  if (found == nullptr) {
    fail(StatusCode::kCorrupt, "{}: tensor '{}' is missing", name_, printable(tensor));
  }
  if (found->dtype != dtype || found->shape != shape) {
    fail(StatusCode::kCorrupt, "{}: tensor '{}' at offset {} is {} [{}], expected {} [{}]", name_,
         printable(tensor), found->bytes.data() - bytes_.data(), found->dtype,
         fmt::join(found->shape, ", "), dtype, fmt::join(shape, ", "));
  }
  return *found;
}

}  // namespace nibble::formats
