// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <utility>

#include "formats/gguf_layout.h"
#include "formats/gguf_parser.h"
#include "formats/text_safety.h"

namespace nibble::formats {

static_assert(std::endian::native == std::endian::little, "values are read as they are stored");

void GgufParser::read_header() {
  reader_.set_context("header");
  const auto magic = reader_.take(4, "the magic");
  if (std::memcmp(magic.data(), kGgufMagic.data(), 4) != 0) {
    fail(StatusCode::kCorrupt, "{}: header: offset 0 holds '{}', not the magic 'GGUF'", name_,
         printable({reinterpret_cast<const char*>(magic.data()), 4}));
  }
  check_version(reader_.read<std::uint32_t>("the version"));
  tensor_count_ = read_count("tensor count", limits_.max_tensors);
  key_count_ = read_count("key count", limits_.max_keys);
}

void GgufParser::check_version(std::uint32_t version) const {
  if (version == 3) {
    return;
  }
  if (version != 0 && (version & 0xFFFFU) == 0) {
    fail_here(StatusCode::kUnsupported, 4,
              "the file is big-endian GGUF; nibble reads little-endian");
  }
  if (version == 0) {
    fail_here(StatusCode::kCorrupt, 4, "GGUF version 0 does not exist");
  }
  fail_here(StatusCode::kUnsupported, 4, "GGUF version {} is not supported, only version 3",
            version);
}

std::uint64_t GgufParser::read_count(std::string_view what, std::uint64_t limit) {
  const std::uint64_t offset = reader_.position();
  const auto count = reader_.read<std::uint64_t>(what);
  if (count > limit) {
    fail_here(StatusCode::kCorrupt, offset, "{} {} exceeds the limit of {}", what, count, limit);
  }
  return count;
}

void GgufParser::read_metadata(std::vector<GgufKeyValue>& out, Index& index) {
  // A key takes at least 13 bytes: the file's length bounds what is reserved.
  out.reserve(std::min(key_count_, reader_.remaining() / 13));
  for (std::uint64_t i = 0; i < key_count_; ++i) {
    GgufKeyValue entry;
    entry.offset = reader_.position();
    reader_.set_context(fmt::format("key #{}", i));
    entry.key = read_name("key", limits_.max_key_bytes);
    reader_.set_context(fmt::format("key '{}'", printable(entry.key)));
    if (!index.emplace(entry.key, out.size()).second) {
      fail_here(StatusCode::kCorrupt, entry.offset, "appears twice");
    }
    entry.type = read_type();
    entry.value = read_value(entry.type);
    if (entry.key == kGgufAlignmentKey) {
      read_alignment(entry);
    }
    out.push_back(std::move(entry));
  }
}

void GgufParser::read_alignment(const GgufKeyValue& entry) {
  if (entry.type != GgufValueType::kU32) {
    fail_here(StatusCode::kCorrupt, entry.offset, "must be of type u32, is {}",
              gguf_value_type_name(entry.type));
  }
  alignment_ = std::get<std::uint64_t>(entry.value);
  if (!std::has_single_bit(alignment_) || alignment_ < kGgufMinAlignment ||
      alignment_ > kGgufMaxAlignment) {
    fail_here(StatusCode::kCorrupt, entry.offset,
              "alignment {} is not a power of two between {} and {}", alignment_, kGgufMinAlignment,
              kGgufMaxAlignment);
  }
}

std::string_view GgufParser::read_string(std::string_view what, std::uint64_t limit) {
  const std::uint64_t offset = reader_.position();
  const auto length = reader_.read<std::uint64_t>("the length of a string");
  if (length > limit) {
    fail_here(StatusCode::kCorrupt, offset, "the {} is {} bytes long, the limit is {}", what,
              length, limit);
  }
  const auto text = reader_.take(length, what);
  return {reinterpret_cast<const char*>(text.data()), text.size()};
}

// A key or tensor name: a non-empty string of UTF-8.
std::string_view GgufParser::read_name(std::string_view what, std::uint64_t limit) {
  const std::uint64_t offset = reader_.position();
  const std::string_view text = read_string(what, limit);
  if (text.empty()) {
    fail_here(StatusCode::kCorrupt, offset, "the {} is empty", what);
  }
  if (const std::size_t bad = find_invalid_utf8(text); bad != std::string_view::npos) {
    fail_here(StatusCode::kCorrupt, offset + 8 + bad, "the {} '{}' is not UTF-8", what,
              printable(text));
  }
  return text;
}

GgufValueType GgufParser::read_type() {
  const std::uint64_t offset = reader_.position();
  const auto id = reader_.read<std::uint32_t>("the value type");
  if (id > kGgufMaxValueType) {
    fail_here(StatusCode::kCorrupt, offset, "value type {} does not exist", id);
  }
  return static_cast<GgufValueType>(id);
}

GgufValue GgufParser::read_value(GgufValueType type) {
  constexpr std::string_view kWhat = "the value";
  switch (type) {
    case GgufValueType::kU8:
      return std::uint64_t{reader_.read<std::uint8_t>(kWhat)};
    case GgufValueType::kI8:
      return std::int64_t{reader_.read<std::int8_t>(kWhat)};
    case GgufValueType::kU16:
      return std::uint64_t{reader_.read<std::uint16_t>(kWhat)};
    case GgufValueType::kI16:
      return std::int64_t{reader_.read<std::int16_t>(kWhat)};
    case GgufValueType::kU32:
      return std::uint64_t{reader_.read<std::uint32_t>(kWhat)};
    case GgufValueType::kI32:
      return std::int64_t{reader_.read<std::int32_t>(kWhat)};
    case GgufValueType::kU64:
      return reader_.read<std::uint64_t>(kWhat);
    case GgufValueType::kI64:
      return reader_.read<std::int64_t>(kWhat);
    case GgufValueType::kF32:
      return double{reader_.read<float>(kWhat)};
    case GgufValueType::kF64:
      return reader_.read<double>(kWhat);
    case GgufValueType::kBool:
      check_bools(reader_.position(), reader_.take(1, kWhat));
      return bytes_[reader_.position() - 1] == std::byte{1};
    case GgufValueType::kString:
      return read_string(kWhat, limits_.max_string_bytes);
    case GgufValueType::kArray:
      return read_array();
  }
  fail(StatusCode::kInternal, "{}: value type {}", name_, static_cast<std::uint32_t>(type));
}

void GgufParser::check_bools(std::uint64_t offset, std::span<const std::byte> values) const {
  const auto bad = std::ranges::find_if(values, [](std::byte b) { return b > std::byte{1}; });
  if (bad != values.end()) {
    fail_here(StatusCode::kCorrupt, offset + static_cast<std::uint64_t>(bad - values.begin()),
              "a bool holds {}, neither 0 nor 1", static_cast<int>(*bad));
  }
}

GgufArray GgufParser::read_array() {
  const std::uint64_t offset = reader_.position();
  GgufArray array{read_type(), 0, {}, {}};
  if (array.element_type == GgufValueType::kArray) {
    fail_here(StatusCode::kCorrupt, offset, "arrays of arrays are not allowed");
  }
  const std::uint64_t count_offset = reader_.position();
  array.count = reader_.read<std::uint64_t>("the array's length");
  const bool strings = array.element_type == GgufValueType::kString;
  // A string takes at least its length.
  const std::uint64_t element = strings ? 8 : gguf_value_bytes(array.element_type);
  if (array.count > reader_.remaining() / element) {
    fail_here(StatusCode::kCorrupt, count_offset,
              "an array of {} elements of at least {} bytes, the file has {} more", array.count,
              element, reader_.remaining());
  }
  if (!strings) {
    const std::uint64_t data_offset = reader_.position();
    array.bytes = reader_.take(array.count * element, "the array");
    if (array.element_type == GgufValueType::kBool) {
      check_bools(data_offset, array.bytes);
    }
    return array;
  }
  const std::uint64_t begin = reader_.position();
  array.strings.reserve(array.count);
  for (std::uint64_t i = 0; i < array.count; ++i) {
    array.strings.push_back(read_string("array element", limits_.max_string_bytes));
  }
  array.bytes = bytes_.subspan(begin, reader_.position() - begin);
  return array;
}

GgufFile::GgufFile(const os::Path& path, const GgufLimits& limits)
    : map_(path), bytes_(map_.bytes()), name_(map_.name()) {
  parse(limits);
}

GgufFile::GgufFile(std::span<const std::byte> bytes, std::string name, const GgufLimits& limits)
    : bytes_(bytes), name_(std::move(name)) {
  parse(limits);
}

void GgufFile::parse(const GgufLimits& limits) {
  GgufParser parser(bytes_, name_, limits);
  parser.read_header();
  parser.read_metadata(metadata_, key_index_);
  parser.read_tensors(tensors_, tensor_index_);
}

}  // namespace nibble::formats
