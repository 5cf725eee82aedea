// SPDX-License-Identifier: Apache-2.0
// The checkpoint container (specified in FORMAT.md beside this file): a directory of safetensors
// shards, one per component, small text files beside them, and manifest.json, written last, with
// the XXH3-64 of every tensor and every other file. It appears whole or not at all.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/json.h"
#include "formats/safetensors.h"
#include "os/file.h"

namespace nibble::formats {

class CheckpointWriter {
 public:
  explicit CheckpointWriter(const os::Path& directory);  // must not exist
  ~CheckpointWriter();

  // Writes component + ".safetensors". Tensors are borrowed during the call.
  void add_component(std::string_view component, const std::vector<SafeTensor>& tensors,
                     const std::map<std::string, std::string>& metadata = {});
  // Any other file (adapter_config.json, README.md).
  void add_file(std::string_view name, std::string_view content);
  // `extra` is stored in the manifest under "extra" and given back by Checkpoint::extra().
  void commit(const Json& extra);

 private:
  os::StagedDirectory directory_;
  Json manifest_;
};

// Opens a checkpoint and verifies everything in it: manifest version, presence and sizes of files,
// XXH3-64 of every tensor and file. Error(kCorrupt) names file, tensor and offset.
class Checkpoint {
 public:
  explicit Checkpoint(const os::Path& directory);

  const SafetensorsFile& component(std::string_view name) const;  // Error(kCorrupt) if absent
  const Json& extra() const { return extra_; }
  const os::Path& path() const { return path_; }

 private:
  os::Path path_;
  Json extra_;
  std::map<std::string, std::unique_ptr<SafetensorsFile>, std::less<>> components_;
};

}  // namespace nibble::formats
