// SPDX-License-Identifier: Apache-2.0
// Questions to an opened GGUF file: typed look-ups and the check of the weights.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/parallel.h"
#include "core/status.h"
#include "formats/gguf.h"
#include "formats/gguf_layout.h"
#include "formats/text_safety.h"

namespace nibble::formats {
namespace {

using math::GgmlType;

const GgufKeyValue& require(const GgufFile& file, std::string_view key) {
  const GgufKeyValue* const entry = file.find(key);
  if (entry == nullptr) {
    fail(StatusCode::kCorrupt, "{}: key '{}' is missing", file.name(), key);
  }
  return *entry;
}

void require_type(const GgufFile& file, const GgufKeyValue& entry, GgufValueType type) {
  if (entry.type != type) {
    fail(StatusCode::kCorrupt, "{}: key '{}' at offset {}: expected type {}, found {}", file.name(),
         printable(entry.key), entry.offset, gguf_value_type_name(type),
         gguf_value_type_name(entry.type));
  }
}

std::uint32_t u32_of(const GgufFile& file, const GgufKeyValue& entry) {
  require_type(file, entry, GgufValueType::kU32);
  return static_cast<std::uint32_t>(std::get<std::uint64_t>(entry.value));
}

float f32_of(const GgufFile& file, const GgufKeyValue& entry) {
  require_type(file, entry, GgufValueType::kF32);
  const auto value = static_cast<float>(std::get<double>(entry.value));
  if (!std::isfinite(value)) {
    fail(StatusCode::kCorrupt, "{}: key '{}' at offset {}: {} is not finite", file.name(),
         printable(entry.key), entry.offset, value);
  }
  return value;
}

std::string_view string_of(const GgufFile& file, const GgufKeyValue& entry) {
  require_type(file, entry, GgufValueType::kString);
  return std::get<std::string_view>(entry.value);
}

constexpr bool f16_finite(std::uint16_t bits) { return (bits & 0x7C00U) != 0x7C00U; }

// True if everything in this block that is a float is finite.
bool block_finite(GgmlType type, const std::byte* block) {
  switch (type) {
    case GgmlType::kF32:
      return (math::load_unaligned<std::uint32_t>(block) & 0x7F800000U) != 0x7F800000U;
    case GgmlType::kBF16:
      return (math::load_unaligned<std::uint16_t>(block) & 0x7F80U) != 0x7F80U;
    case GgmlType::kF16:
    case GgmlType::kQ4_0:
    case GgmlType::kQ8_0:
      return f16_finite(math::load_unaligned<std::uint16_t>(block));
    case GgmlType::kQ4_1:
      return f16_finite(math::load_unaligned<std::uint16_t>(block)) &&
             f16_finite(math::load_unaligned<std::uint16_t>(block + 2));
  }
  return false;
}

constexpr std::uint64_t kNone = std::numeric_limits<std::uint64_t>::max();

// The first block of [begin, end) that is not finite, or kNone.
std::uint64_t first_bad_block(GgmlType type, std::span<const std::byte> data, std::uint64_t begin,
                              std::uint64_t end) {
  const std::uint64_t block_bytes = math::ggml_type_info(type).block_bytes;
  for (std::uint64_t i = begin; i < end; ++i) {
    if (!block_finite(type, data.data() + i * block_bytes)) {
      return i;
    }
  }
  return kNone;
}

void check_tensor(const GgufFile& file, const GgufTensor& tensor) {
  constexpr std::uint64_t kChunkBlocks = 1 << 16;
  const math::GgmlTypeInfo& info = math::ggml_type_info(tensor.type);
  const std::uint64_t blocks = tensor.elements / info.block_elements;
  const std::uint64_t chunks = (blocks + kChunkBlocks - 1) / kChunkBlocks;
  const std::span<const std::byte> data = file.data(tensor);
  // The lowest bad block is named, whichever thread finds it first.
  std::atomic<std::uint64_t> bad{kNone};
  parallel_for(static_cast<std::int64_t>(chunks), [&](std::int64_t chunk) {
    const std::uint64_t begin = static_cast<std::uint64_t>(chunk) * kChunkBlocks;
    const std::uint64_t found =
        first_bad_block(tensor.type, data, begin, std::min(blocks, begin + kChunkBlocks));
    std::uint64_t lowest = bad.load();
    while (found < lowest && !bad.compare_exchange_weak(lowest, found)) {
    }
  });
  if (bad != kNone) {
    fail(StatusCode::kCorrupt, "{}: tensor '{}': block {} ({}) at offset {} is not finite",
         file.name(), printable(tensor.name), bad.load(), info.name,
         tensor.offset + bad * info.block_bytes);
  }
}

}  // namespace

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

std::span<const std::byte> GgufFile::data(const GgufTensor& tensor) const {
  return bytes_.subspan(tensor.offset, tensor.bytes);
}

const GgufKeyValue* GgufFile::find(std::string_view key) const {
  const auto found = key_index_.find(key);
  return found == key_index_.end() ? nullptr : &metadata_[found->second];
}

std::uint32_t GgufFile::u32(std::string_view key) const {
  return u32_of(*this, require(*this, key));
}

std::uint32_t GgufFile::u32_or(std::string_view key, std::uint32_t fallback) const {
  const GgufKeyValue* const entry = find(key);
  return entry == nullptr ? fallback : u32_of(*this, *entry);
}

float GgufFile::f32(std::string_view key) const { return f32_of(*this, require(*this, key)); }

float GgufFile::f32_or(std::string_view key, float fallback) const {
  const GgufKeyValue* const entry = find(key);
  return entry == nullptr ? fallback : f32_of(*this, *entry);
}

bool GgufFile::boolean_or(std::string_view key, bool fallback) const {
  const GgufKeyValue* const entry = find(key);
  if (entry == nullptr) {
    return fallback;
  }
  require_type(*this, *entry, GgufValueType::kBool);
  return std::get<bool>(entry->value);
}

std::string_view GgufFile::string(std::string_view key) const {
  return string_of(*this, require(*this, key));
}

std::string_view GgufFile::string_or(std::string_view key, std::string_view fallback) const {
  const GgufKeyValue* const entry = find(key);
  return entry == nullptr ? fallback : string_of(*this, *entry);
}

const GgufArray& GgufFile::array(std::string_view key, GgufValueType element_type) const {
  const GgufKeyValue& entry = require(*this, key);
  require_type(*this, entry, GgufValueType::kArray);
  const auto& array = std::get<GgufArray>(entry.value);
  if (array.element_type != element_type) {
    fail(StatusCode::kCorrupt,
         "{}: key '{}' at offset {}: expected an array of {}, found one of {}", name_,
         printable(key), entry.offset, gguf_value_type_name(element_type),
         gguf_value_type_name(array.element_type));
  }
  return array;
}

void GgufFile::check_weights() const {
  for (const GgufTensor& tensor : tensors_) {
    check_tensor(*this, tensor);
  }
}

}  // namespace nibble::formats
