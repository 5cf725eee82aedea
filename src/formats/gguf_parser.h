// SPDX-License-Identifier: Apache-2.0
// Parses a GGUF file in one pass; every claim of the file is checked before anything is sized by
// it. gguf_read.cc: header and metadata; gguf_tensors.cc: tensors.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/status.h"
#include "formats/byte_reader.h"
#include "formats/gguf.h"
#include "formats/gguf_layout.h"

namespace nibble::formats {

class GgufParser {
 public:
  using Index = std::unordered_map<std::string_view, std::size_t>;

  // All three outlive the parser.
  GgufParser(std::span<const std::byte> bytes, const std::string& name, const GgufLimits& limits)
      : bytes_(bytes), name_(name), limits_(limits), reader_(bytes, name) {}

  // To be called in this order.
  void read_header();
  void read_metadata(std::vector<GgufKeyValue>& out, Index& index);
  void read_tensors(std::vector<GgufTensor>& out, Index& index);

 private:
  template <class... Args>
  [[noreturn]] void fail_here(StatusCode code, std::uint64_t offset,
                              fmt::format_string<Args...> format, Args&&... args) const {
    fail(code, "{}: {} at offset {}: {}", name_, reader_.context(), offset,
         fmt::format(format, std::forward<Args>(args)...));
  }

  void check_version(std::uint32_t version) const;
  std::uint64_t read_count(std::string_view what, std::uint64_t limit);
  void read_alignment(const GgufKeyValue& entry);
  std::string_view read_string(std::string_view what, std::uint64_t limit);
  std::string_view read_name(std::string_view what, std::uint64_t limit);
  GgufValueType read_type();
  GgufValue read_value(GgufValueType type);
  void check_bools(std::uint64_t offset, std::span<const std::byte> values) const;
  GgufArray read_array();
  GgufTensor read_tensor();
  const math::GgmlTypeInfo& read_tensor_type();
  void place_tensors(std::vector<GgufTensor>& tensors) const;

  std::span<const std::byte> bytes_;
  const std::string& name_;
  const GgufLimits& limits_;
  ByteReader reader_;
  std::uint64_t tensor_count_ = 0;
  std::uint64_t key_count_ = 0;
  std::uint64_t alignment_ = kGgufDefaultAlignment;
};

}  // namespace nibble::formats
