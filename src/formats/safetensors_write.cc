// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <set>

#include "core/status.h"
#include "formats/byte_reader.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "formats/text_safety.h"

namespace nibble::formats {
namespace {

void check_text(const os::Path& path, std::string_view text) {
  if (!is_valid_utf8(text)) {
    fail(StatusCode::kInvalidArgument, "{}: '{}' is not UTF-8", path.string(), printable(text));
  }
}

void check_tensor(const os::Path& path, const SafeTensor& tensor) {
  check_text(path, tensor.name);
  if (tensor.name == "__metadata__") {
    fail(StatusCode::kInvalidArgument, "{}: '__metadata__' cannot name a tensor", path.string());
  }
  std::uint64_t bytes = safetensors_dtype_bytes(tensor.dtype);
  if (bytes == 0) {
    fail(StatusCode::kInvalidArgument, "{}: tensor '{}': unknown dtype '{}'", path.string(),
         tensor.name, tensor.dtype);
  }
  for (const std::uint64_t dim : tensor.shape) {
    if (!multiply(bytes, dim, bytes)) {
      fail(StatusCode::kInvalidArgument, "{}: tensor '{}': the shape's size does not fit 64 bits",
           path.string(), tensor.name);
    }
  }
  if (bytes != tensor.bytes.size()) {
    fail(StatusCode::kInvalidArgument, "{}: tensor '{}': shape and dtype need {} bytes, got {}",
         path.string(), tensor.name, bytes, tensor.bytes.size());
  }
}

std::string make_header(const os::Path& path, const std::vector<SafeTensor>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  std::set<std::string_view> names;
  Json::object_t members;
  members.reserve(tensors.size() + 1);
  if (!metadata.empty()) {
    for (const auto& [key, value] : metadata) {
      check_text(path, key);
      check_text(path, value);
    }
    members.emplace_back("__metadata__", Json(metadata));
  }
  std::uint64_t end = 0;
  for (const SafeTensor& tensor : tensors) {
    check_tensor(path, tensor);
    if (!names.insert(tensor.name).second) {
      fail(StatusCode::kInvalidArgument, "{}: two tensors are named '{}'", path.string(),
           tensor.name);
    }
    const std::uint64_t begin = end;
    end += tensor.bytes.size();
    members.emplace_back(
        tensor.name,
        Json{{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}});
  }
  std::string header = Json(std::move(members)).dump();
  // Spaces, so that the data begins at a multiple of 8.
  header.append((8 - header.size() % 8) % 8, ' ');
  return header;
}

}  // namespace

void write_safetensors(const os::Path& path, const std::vector<SafeTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  static_assert(std::endian::native == std::endian::little);
  const std::string header = make_header(path, tensors, metadata);
  const std::uint64_t length = header.size();
  os::FileWriter writer(path);
  writer.write(std::as_bytes(std::span(&length, 1)));
  writer.write(header);
  for (const SafeTensor& tensor : tensors) {
    writer.write(tensor.bytes);
  }
  writer.commit();
}

}  // namespace nibble::formats
