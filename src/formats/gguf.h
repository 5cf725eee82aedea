// SPDX-License-Identifier: Apache-2.0
// GGUF v3: reading (untrusted bytes, memory-mapped) and writing (adapters, test models).
// Every defect is Error(kCorrupt) that names the file, the key or tensor, and the byte offset;
// what is legal but beyond us (a tensor type, a version) is Error(kUnsupported).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

#include "math/formats/ggml_blocks.h"
#include "os/file.h"

namespace nibble::formats {

// Value types of GGUF metadata; ids are the file's.
enum class GgufValueType : std::uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// An array stays where it is in the file: `bytes` are its elements as stored (little endian, for
// fixed-size types); strings are views into the file.
struct GgufArray {
  GgufValueType element_type;
  std::uint64_t count;
  std::span<const std::byte> bytes;
  std::vector<std::string_view> strings;
};

using GgufValue =
    std::variant<std::uint64_t, std::int64_t, double, bool, std::string_view, GgufArray>;

struct GgufKeyValue {
  std::string_view key;
  GgufValueType type;
  GgufValue value;
  std::uint64_t offset;  // of the key, in the file
};

struct GgufTensor {
  std::string_view name;
  math::GgmlType type;
  std::uint32_t n_dims;
  std::array<std::uint64_t, 4> dims;  // ne order: dims[0] is the contiguous one (a row's length)
  std::uint64_t elements;
  std::uint64_t bytes;
  std::uint64_t offset;  // absolute, in the file

  std::uint64_t rows() const { return elements / dims[0]; }
};

struct GgufLimits {
  std::uint64_t max_keys = 65536;
  std::uint64_t max_tensors = 65536;
  std::uint64_t max_string_bytes = 16U << 20;
  std::uint64_t max_key_bytes = 65535;
  std::uint64_t max_tensor_name_bytes = 63;
};

class GgufFile {
 public:
  explicit GgufFile(const os::Path& path, const GgufLimits& limits = {});
  // Parses bytes that outlive the object (tests, fuzzing). `name` stands in messages.
  GgufFile(std::span<const std::byte> bytes, std::string name, const GgufLimits& limits = {});

  const std::string& name() const { return name_; }
  const std::vector<GgufKeyValue>& metadata() const { return metadata_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  std::uint64_t file_bytes() const { return bytes_.size(); }

  const GgufTensor* find_tensor(std::string_view name) const;  // nullptr if absent
  std::span<const std::byte> data(const GgufTensor& tensor) const;

  // Typed look-ups. The stored type must be exactly the one asked for; a missing key or another
  // type is an Error naming the key. The *_or forms allow absence, not another type.
  bool has(std::string_view key) const { return find(key) != nullptr; }
  const GgufKeyValue* find(std::string_view key) const;
  std::uint32_t u32(std::string_view key) const;
  std::uint32_t u32_or(std::string_view key, std::uint32_t fallback) const;
  float f32(std::string_view key) const;  // finite
  float f32_or(std::string_view key, float fallback) const;
  bool boolean_or(std::string_view key, bool fallback) const;
  std::string_view string(std::string_view key) const;
  std::string_view string_or(std::string_view key, std::string_view fallback) const;
  const GgufArray& array(std::string_view key, GgufValueType element_type) const;

  // Reads every tensor once: scales (and F32/F16/BF16 values) must be finite. Error names the
  // tensor and the block. One pass over the file at memory speed.
  void check_weights() const;

 private:
  void parse(const GgufLimits& limits);

  os::MappedFile map_;
  std::span<const std::byte> bytes_;
  std::string name_;
  std::vector<GgufKeyValue> metadata_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, std::size_t> key_index_, tensor_index_;
};

// Collects metadata and tensors, then writes the file whole (os::FileWriter). Tensor data is
// borrowed until write() returns.
class GgufWriter {
 public:
  void add_string(std::string key, std::string_view value);
  void add_u32(std::string key, std::uint32_t value);
  void add_f32(std::string key, float value);
  void add_bool(std::string key, bool value);
  void add_string_array(std::string key, const std::vector<std::string>& values);
  void add_i32_array(std::string key, const std::vector<std::int32_t>& values);
  // dims in ne order; bytes.size() must be what dims and type say.
  void add_tensor(std::string name, math::GgmlType type, std::vector<std::uint64_t> dims,
                  std::span<const std::byte> bytes);
  void write(const os::Path& path) const;

 private:
  struct Tensor {
    std::string name;
    math::GgmlType type;
    std::vector<std::uint64_t> dims;
    std::span<const std::byte> bytes;
  };
  void add_key(std::string key, GgufValueType type);

  std::string metadata_;  // encoded
  std::vector<Tensor> tensors_;
  std::unordered_set<std::string> keys_, tensor_names_;
};

}  // namespace nibble::formats
