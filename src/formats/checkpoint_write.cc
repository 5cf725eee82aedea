// SPDX-License-Identifier: Apache-2.0
#include "core/status.h"
#include "formats/checkpoint.h"
#include "formats/checkpoint_manifest.h"
#include "formats/text_safety.h"

namespace nibble::formats {
namespace {

// `file` is the name on disk of what the caller calls `name`.
void check_new_name(const Json& manifest, std::string_view name, std::string_view file,
                    const os::Path& directory) {
  if (!is_plain_file_name(name) || name == kManifestName) {
    fail(StatusCode::kInvalidArgument, "{}: '{}' is not a plain file name", directory.string(),
         printable(name));
  }
  bool taken = manifest.at("files").contains(std::string(file));
  for (const auto& [component, entry] : manifest.at("components").items()) {
    taken = taken || entry.at("file").get_ref<const std::string&>() == file;
  }
  if (taken) {
    fail(StatusCode::kInvalidArgument, "{}: '{}' was added twice", directory.string(), file);
  }
}

}  // namespace

CheckpointWriter::CheckpointWriter(const os::Path& directory)
    : directory_(directory),
      manifest_{{"format", kManifestFormat},
                {"version", kManifestVersion},
                {"library", NIBBLE_LIBRARY_VERSION},
                {"components", Json::object()},
                {"files", Json::object()}} {}

CheckpointWriter::~CheckpointWriter() = default;

void CheckpointWriter::add_component(std::string_view component,
                                     const std::vector<SafeTensor>& tensors,
                                     const std::map<std::string, std::string>& metadata) {
  const std::string file = std::string(component) + ".safetensors";
  check_new_name(manifest_, component, file, directory_.staging());
  const os::Path path = directory_.staging() / file;
  write_safetensors(path, tensors, metadata);

  // The hashes of tensors come from the caller's memory, not from the file: what the disk or the
  // writer spoils on the way is found when the checkpoint is read.
  Json hashes = Json::object();
  std::uint64_t data_bytes = 0;
  for (const SafeTensor& tensor : tensors) {
    hashes[tensor.name] = xxh3_hex(tensor.bytes);
    data_bytes += tensor.bytes.size();
  }
  const os::MappedFile written(path);
  const std::uint64_t bytes = written.bytes().size();
  manifest_["components"][std::string(component)] = {
      {"file", file},
      {"bytes", bytes},
      {"header", xxh3_hex(written.bytes().first(bytes - data_bytes))},
      {"tensors", std::move(hashes)}};
}

void CheckpointWriter::add_file(std::string_view name, std::string_view content) {
  check_new_name(manifest_, name, name, directory_.staging());
  os::write_file(directory_.staging() / name, content);
  manifest_["files"][std::string(name)] = {{"bytes", content.size()}, {"xxh3", xxh3_hex(content)}};
}

void CheckpointWriter::commit(const Json& extra) {
  Json manifest = manifest_;
  manifest["extra"] = extra;
  os::write_file(directory_.staging() / kManifestName, encode_manifest(manifest));
  directory_.commit();
}

}  // namespace nibble::formats
