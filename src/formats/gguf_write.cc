// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <unordered_set>
#include <utility>

#include "core/status.h"
#include "formats/byte_reader.h"
#include "formats/gguf.h"
#include "formats/gguf_layout.h"
#include "formats/text_safety.h"

namespace nibble::formats {
namespace {

template <class T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void append_string(std::string& out, std::string_view text) {
  append<std::uint64_t>(out, text.size());
  out += text;
}

void append_array_header(std::string& out, GgufValueType element, std::uint64_t count) {
  append(out, element);
  append(out, count);
}

void check_name(std::string_view what, std::string_view name, std::uint64_t max_bytes) {
  if (name.empty() || name.size() > max_bytes || !is_valid_utf8(name)) {
    fail(StatusCode::kInvalidArgument, "GGUF {} '{}' must be 1 to {} bytes of UTF-8", what,
         printable(name), max_bytes);
  }
}

}  // namespace

void GgufWriter::add_key(std::string key, GgufValueType type) {
  check_name("key", key, GgufLimits{}.max_key_bytes);
  if (key == kGgufAlignmentKey) {
    fail(StatusCode::kInvalidArgument, "GGUF key '{}' is the writer's own", key);
  }
  const auto [at, inserted] = keys_.insert(std::move(key));
  if (!inserted) {
    fail(StatusCode::kInvalidArgument, "GGUF key '{}' was added twice", *at);
  }
  append_string(metadata_, *at);
  append(metadata_, type);
}

void GgufWriter::add_string(std::string key, std::string_view value) {
  add_key(std::move(key), GgufValueType::kString);
  append_string(metadata_, value);
}

void GgufWriter::add_u32(std::string key, std::uint32_t value) {
  add_key(std::move(key), GgufValueType::kU32);
  append(metadata_, value);
}

void GgufWriter::add_f32(std::string key, float value) {
  if (!std::isfinite(value)) {
    fail(StatusCode::kInvalidArgument, "GGUF key '{}': {} is not finite", printable(key), value);
  }
  add_key(std::move(key), GgufValueType::kF32);
  append(metadata_, value);
}

void GgufWriter::add_bool(std::string key, bool value) {
  add_key(std::move(key), GgufValueType::kBool);
  append<std::uint8_t>(metadata_, value ? 1 : 0);
}

void GgufWriter::add_string_array(std::string key, const std::vector<std::string>& values) {
  add_key(std::move(key), GgufValueType::kArray);
  append_array_header(metadata_, GgufValueType::kString, values.size());
  for (const std::string& value : values) {
    append_string(metadata_, value);
  }
}

void GgufWriter::add_i32_array(std::string key, const std::vector<std::int32_t>& values) {
  add_key(std::move(key), GgufValueType::kArray);
  append_array_header(metadata_, GgufValueType::kI32, values.size());
  for (const std::int32_t value : values) {
    append(metadata_, value);
  }
}

void GgufWriter::add_tensor(std::string name, math::GgmlType type, std::vector<std::uint64_t> dims,
                            std::span<const std::byte> bytes) {
  check_name("tensor name", name, GgufLimits{}.max_tensor_name_bytes);
  const math::GgmlTypeInfo& info = math::ggml_type_info(type);
  if (dims.empty() || dims.size() > 4 || dims[0] % info.block_elements != 0) {
    fail(StatusCode::kInvalidArgument,
         "GGUF tensor '{}': needs 1 to 4 dimensions, the first a multiple of {} ({})", name,
         info.block_elements, info.name);
  }
  std::uint64_t elements = 1;
  std::uint64_t needed = 0;
  bool fits = true;
  for (const std::uint64_t dim : dims) {
    fits = fits && dim > 0 && multiply(elements, dim, elements);
  }
  fits = fits && multiply(elements / info.block_elements, info.block_bytes, needed);
  if (!fits || needed != bytes.size()) {
    fail(StatusCode::kInvalidArgument, "GGUF tensor '{}': its shape as {} does not hold {} bytes",
         name, info.name, bytes.size());
  }
  if (!tensor_names_.insert(name).second) {
    fail(StatusCode::kInvalidArgument, "GGUF tensor '{}' was added twice", name);
  }
  tensors_.push_back({std::move(name), type, std::move(dims), bytes});
}

void GgufWriter::write(const os::Path& path) const {
  std::string head(kGgufMagic);
  append(head, kGgufVersion);
  append<std::uint64_t>(head, tensors_.size());
  append<std::uint64_t>(head, keys_.size());
  head += metadata_;
  std::uint64_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    append_string(head, tensor.name);
    append<std::uint32_t>(head, static_cast<std::uint32_t>(tensor.dims.size()));
    for (const std::uint64_t dim : tensor.dims) {
      append(head, dim);
    }
    append(head, tensor.type);
    append(head, offset);
    offset = gguf_align(offset + tensor.bytes.size(), kGgufDefaultAlignment);
  }
  os::FileWriter writer(path);
  const auto pad = [&writer] {
    const std::uint64_t end = gguf_align(writer.position(), kGgufDefaultAlignment);
    writer.write(std::string(end - writer.position(), '\0'));
  };
  writer.write(head);
  pad();
  for (const Tensor& tensor : tensors_) {
    writer.write(tensor.bytes);
    pad();
  }
  writer.commit();
}

}  // namespace nibble::formats
