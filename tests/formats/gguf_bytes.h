// SPDX-License-Identifier: Apache-2.0
// GGUF files written by hand, field by field, so that any field can be wrong.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::test {

template <class T>
std::string le(T value) {
  std::string out(sizeof value, '\0');
  std::memcpy(out.data(), &value, sizeof value);
  return out;
}
inline std::string u32(std::uint32_t value) { return le(value); }
inline std::string u64(std::uint64_t value) { return le(value); }
inline std::string text(std::string_view value) { return u64(value.size()) + std::string(value); }

// A key with its type and the bytes of its value.
inline std::string kv(std::string_view key, std::uint32_t type, const std::string& value) {
  return text(key) + u32(type) + value;
}
inline std::string array(std::uint32_t element_type, std::uint64_t count, const std::string& data) {
  return u32(element_type) + u64(count) + data;
}
inline std::string info(std::string_view name, const std::vector<std::uint64_t>& dims,
                        std::uint32_t type, std::uint64_t offset) {
  std::string out = text(name) + u32(static_cast<std::uint32_t>(dims.size()));
  for (const std::uint64_t dim : dims) {
    out += u64(dim);
  }
  return out + u32(type) + u64(offset);
}

struct GgufBytes {
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::vector<std::string> keys = {};
  std::vector<std::string> tensors = {};
  std::string data = {};
  std::uint64_t alignment = 32;

  std::string bytes() const { return bytes(tensors.size(), keys.size()); }
  std::string bytes(std::uint64_t tensor_count, std::uint64_t key_count) const {
    std::string out = magic + u32(version) + u64(tensor_count) + u64(key_count);
    for (const std::string& key : keys) {
      out += key;
    }
    for (const std::string& tensor : tensors) {
      out += tensor;
    }
    if (!data.empty()) {
      out.resize((out.size() + alignment - 1) / alignment * alignment);
    }
    return out + data;
  }
};

inline std::span<const std::byte> as_bytes(std::string_view content) {
  return std::as_bytes(std::span(content));
}

}  // namespace nibble::test
