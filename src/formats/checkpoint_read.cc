// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "core/status.h"
#include "formats/checkpoint.h"
#include "formats/checkpoint_manifest.h"
#include "formats/text_safety.h"

namespace nibble::formats {
namespace {

void require_present(const os::Path& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    fail(StatusCode::kCorrupt, "{}: the manifest lists this file, and it is missing",
         path.string());
  }
}

void check_size(const std::string& name, std::uint64_t found, const Json& entry) {
  if (const auto expected = entry.at("bytes").get<std::uint64_t>(); found != expected) {
    fail(StatusCode::kCorrupt, "{}: {} bytes, the manifest says {} (differs from offset {})", name,
         found, expected, std::min(found, expected));
  }
}

void check_hash(const std::string& name, std::string_view what, std::uint64_t offset,
                std::span<const std::byte> bytes, const Json& expected) {
  const std::string found = xxh3_hex(bytes);
  if (found != expected.get_ref<const std::string&>()) {
    fail(StatusCode::kCorrupt,
         "{}: {} at offset {} ({} bytes) is damaged: XXH3-64 {}, the manifest says {}", name, what,
         offset, bytes.size(), found, expected.get_ref<const std::string&>());
  }
}

void check_file(const os::Path& path, const Json& entry) {
  require_present(path);
  const os::MappedFile map(path);
  check_size(map.name(), map.bytes().size(), entry);
  check_hash(map.name(), "the content", 0, map.bytes(), entry.at("xxh3"));
}

std::unique_ptr<SafetensorsFile> open_component(const os::Path& path, const Json& entry) {
  require_present(path);
  const os::MappedFile map(path);  // sizes first: a truncated shard is called that
  check_size(map.name(), map.bytes().size(), entry);
  auto file = std::make_unique<SafetensorsFile>(path);

  std::uint64_t data_bytes = 0;
  for (const SafeTensor& tensor : file->tensors()) {
    data_bytes += tensor.bytes.size();
  }
  std::uint64_t offset = map.bytes().size() - data_bytes;
  check_hash(map.name(), "the header", 0, map.bytes().first(offset), entry.at("header"));

  const Json& hashes = entry.at("tensors");
  for (const SafeTensor& tensor : file->tensors()) {
    const auto hash = hashes.find(tensor.name);
    if (hash == hashes.end()) {
      fail(StatusCode::kCorrupt, "{}: tensor '{}' at offset {} is not in the manifest", map.name(),
           printable(tensor.name), offset);
    }
    check_hash(map.name(), fmt::format("tensor '{}'", printable(tensor.name)), offset, tensor.bytes,
               *hash);
    offset += tensor.bytes.size();
  }
  if (file->tensors().size() != hashes.size()) {
    for (const auto& [name, ignored] : hashes.items()) {
      if (file->find(name) == nullptr) {
        fail(StatusCode::kCorrupt, "{}: tensor '{}' of the manifest is missing", map.name(),
             printable(name));
      }
    }
  }
  return file;
}

}  // namespace

Checkpoint::Checkpoint(const os::Path& directory) : path_(directory) {
  const os::Path manifest_path = directory / kManifestName;
  std::error_code error;
  if (std::filesystem::is_directory(directory, error) &&
      !std::filesystem::exists(manifest_path, error)) {
    fail(StatusCode::kCorrupt, "{}: no {}: not a nibble checkpoint, or not a whole one",
         directory.string(), kManifestName);
  }
  Json manifest =
      decode_manifest(os::read_file(manifest_path, kMaxManifestBytes), manifest_path.string());
  for (const auto& [name, entry] : manifest.at("components").items()) {
    const auto& file = entry.at("file").get_ref<const std::string&>();
    components_.emplace(name, open_component(directory / file, entry));
  }
  for (const auto& [name, entry] : manifest.at("files").items()) {
    check_file(directory / name, entry);
  }
  extra_ = std::move(manifest.at("extra"));
}

const SafetensorsFile& Checkpoint::component(std::string_view name) const {
  const auto found = components_.find(name);
  if (found == components_.end()) {
    fail(StatusCode::kCorrupt, "{}: component '{}' is missing", path_.string(), printable(name));
  }
  return *found->second;
}

}  // namespace nibble::formats
