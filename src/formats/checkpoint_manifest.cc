// SPDX-License-Identifier: Apache-2.0
#include "formats/checkpoint_manifest.h"

#define XXH_INLINE_ALL  // header only: libxxhash must not become a run-time dependency
#include <xxhash.h>

#include <algorithm>

#include "core/status.h"
#include "formats/text_safety.h"

namespace nibble::formats {
namespace {

constexpr std::string_view kZeroes = "0000000000000000";
// What follows the digits of the checksum, at the end of the file.
constexpr std::string_view kTail = "\"\n}\n";

bool is_hex_digits(std::string_view text) {
  return text.size() == kZeroes.size() && std::ranges::all_of(text, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

// Checks on one manifest; `where` names it.
class Validator {
 public:
  explicit Validator(std::string_view where) : where_(where) {}

  const Json& member(const Json& object, std::string_view path, const char* key) const {
    const auto found = object.find(key);
    if (found == object.end()) {
      fail(StatusCode::kCorrupt, "{}: key '{}{}' is missing", where_, path, key);
    }
    return *found;
  }

  void require(bool condition, std::string_view path, std::string_view expected) const {
    if (!condition) {
      fail(StatusCode::kCorrupt, "{}: key '{}' must be {}", where_, printable(path), expected);
    }
  }

  void hash(const Json& value, std::string_view path) const {
    require(value.is_string() && is_hex_digits(value.get_ref<const std::string&>()), path,
            "16 lower-case hexadecimal digits");
  }

  void entry_name(const std::string& name, std::string_view path) const {
    require(is_plain_file_name(name) && name != kManifestName, fmt::format("{}.{}", path, name),
            "a plain file name");
  }

  void component(const std::string& name, const Json& value) const {
    const std::string path = "components." + name;
    require(value.is_object(), path, "an object");
    const Json& file = member(value, path + ".", "file");
    require(file.is_string() && file.get_ref<const std::string&>() == name + ".safetensors",
            path + ".file", "the component's name and '.safetensors'");
    require(member(value, path + ".", "bytes").is_number_unsigned(), path + ".bytes",
            "an unsigned integer");
    hash(member(value, path + ".", "header"), path + ".header");
    const Json& tensors = member(value, path + ".", "tensors");
    require(tensors.is_object(), path + ".tensors", "an object");
    for (const auto& [tensor, digits] : tensors.items()) {
      hash(digits, fmt::format("{}.tensors.{}", path, tensor));
    }
  }

  void file(const std::string& name, const Json& value) const {
    const std::string path = "files." + name;
    require(value.is_object(), path, "an object");
    require(member(value, path + ".", "bytes").is_number_unsigned(), path + ".bytes",
            "an unsigned integer");
    hash(member(value, path + ".", "xxh3"), path + ".xxh3");
  }

  void all(const Json& manifest) const {
    const Json& components = member(manifest, "", "components");
    require(components.is_object(), "components", "an object");
    for (const auto& [name, value] : components.items()) {
      entry_name(name, "components");
      component(name, value);
    }
    const Json& files = member(manifest, "", "files");
    require(files.is_object(), "files", "an object");
    for (const auto& [name, value] : files.items()) {
      entry_name(name, "files");
      file(name, value);
    }
    static_cast<void>(member(manifest, "", "extra"));
  }

 private:
  std::string_view where_;
};

// Before the checksum: a later version may compute it in another way.
void check_version(const Json& manifest, std::string_view where) {
  const Validator validator(where);
  validator.require(manifest.is_object(), "", "an object at the top");
  const Json& format = validator.member(manifest, "", "format");
  validator.require(format.is_string() && format.get_ref<const std::string&>() == kManifestFormat,
                    "format", "'nibble-checkpoint'");
  const Json& version = validator.member(manifest, "", "version");
  validator.require(version.is_number_unsigned() && version.get<std::uint64_t>() >= 1, "version",
                    "a positive integer");
  if (version.get<std::uint64_t>() > kManifestVersion) {
    fail(StatusCode::kUnsupported,
         "{}: checkpoint version {} is newer than this nibble reads (up to {})", where,
         version.get<std::uint64_t>(), kManifestVersion);
  }
}

void check_checksum(std::string_view text, std::string_view where) {
  const std::size_t after = kZeroes.size() + kTail.size();
  if (!text.ends_with(kTail) || text.size() < after) {
    fail(StatusCode::kCorrupt, "{}: the checksum 'xxh3' is not at the end (offset {})", where,
         text.size());
  }
  const std::size_t at = text.size() - after;
  std::string zeroed(text);
  zeroed.replace(at, kZeroes.size(), kZeroes);
  if (xxh3_hex(zeroed) != text.substr(at, kZeroes.size())) {
    fail(StatusCode::kCorrupt,
         "{}: damaged: its bytes do not match the checksum 'xxh3' at offset {}", where, at);
  }
}

}  // namespace

std::string xxh3_hex(std::span<const std::byte> bytes) {
  return fmt::format("{:016x}", XXH3_64bits(bytes.data(), bytes.size()));
}

std::string xxh3_hex(std::string_view text) { return xxh3_hex(std::as_bytes(std::span(text))); }

bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name.size() <= 128 && name.front() != '.' &&
         std::ranges::all_of(name, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-';
         });
}

std::string encode_manifest(const Json& manifest) {
  Json whole = manifest;
  whole["xxh3"] = kZeroes;
  std::string text;
  try {
    text = whole.dump(1) + "\n";
  } catch (const Json::exception&) {
    fail(StatusCode::kInvalidArgument, "checkpoint manifest: a string is not UTF-8");
  }
  // What JSON cannot hold (NaN, great depth) would only be found by the next reader.
  if (parse_json(text, "checkpoint manifest") != whole) {
    fail(StatusCode::kInvalidArgument, "checkpoint manifest: a value cannot be stored as JSON");
  }
  text.replace(text.size() - kTail.size() - kZeroes.size(), kZeroes.size(), xxh3_hex(text));
  return text;
}

Json decode_manifest(std::string_view text, std::string_view where) {
  Json manifest = parse_json(text, where);
  check_version(manifest, where);
  check_checksum(text, where);
  Validator(where).all(manifest);
  return manifest;
}

}  // namespace nibble::formats
