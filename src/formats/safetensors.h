// SPDX-License-Identifier: Apache-2.0
// safetensors: reading (untrusted, memory-mapped) and writing. The rules are the format's own and
// stricter where its text is: no holes, no overlap, no duplicate keys, the data ends with the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "os/file.h"

namespace nibble::formats {

struct SafeTensor {
  std::string name;
  std::string dtype;  // "F64" "F32" "F16" "BF16" "I64" "I32" "I16" "I8" "U64" "U32" "U16" "U8"
                      // "BOOL" "F8_E4M3" "F8_E5M2"
  std::vector<std::uint64_t> shape;
  std::span<const std::byte> bytes;  // for reading: into the map; for writing: borrowed
};

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const os::Path& path);
  SafetensorsFile(std::span<const std::byte> bytes, std::string name);  // bytes outlive the object

  const std::string& name() const { return name_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::vector<SafeTensor>& tensors() const { return tensors_; }  // in order of offset
  const SafeTensor* find(std::string_view tensor) const;               // nullptr if absent
  // The tensor with this dtype and shape, or an Error(kCorrupt) that names file and tensor.
  const SafeTensor& expect(std::string_view tensor, std::string_view dtype,
                           const std::vector<std::uint64_t>& shape) const;

 private:
  void parse();

  os::MappedFile map_;
  std::span<const std::byte> bytes_;
  std::string name_;
  std::map<std::string, std::string> metadata_;
  std::vector<SafeTensor> tensors_;
};

// Bytes of one element; 0 for an unknown dtype.
std::uint64_t safetensors_dtype_bytes(std::string_view dtype);

// Writes the file whole or not at all. Tensors are stored in the given order, 8-byte aligned where
// the order of sizes allows it without holes.
void write_safetensors(const os::Path& path, const std::vector<SafeTensor>& tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace nibble::formats
