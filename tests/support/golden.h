// SPDX-License-Identifier: Apache-2.0
// The golden files: found in the golden directory, chosen by the recipe in their metadata.
#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "formats/json.h"
#include "formats/safetensors.h"
#include "support/paths.h"

namespace nibble::test {

struct GoldenFile {
  std::string name;
  formats::Json recipe;
  std::shared_ptr<formats::SafetensorsFile> file;

  bool has(const std::string& key) const { return file->find(key) != nullptr; }
  std::string text(const char* key) const {
    const auto it = recipe.find(key);
    return it != recipe.end() && it->is_string() ? it->get<std::string>() : "";
  }

  template <class T>
  std::vector<T> values(const std::string& key) const {
    const formats::SafeTensor* tensor = file->find(key);
    if (tensor == nullptr || tensor->bytes.size() % sizeof(T) != 0) {
      throw std::runtime_error(name + ": no tensor " + key + " of this type");
    }
    std::vector<T> out(tensor->bytes.size() / sizeof(T));
    std::memcpy(out.data(), tensor->bytes.data(), tensor->bytes.size());
    return out;
  }
};

inline GoldenFile open_golden(const std::filesystem::path& path) {
  GoldenFile out{path.filename().string(), formats::Json::object(),
                 std::make_shared<formats::SafetensorsFile>(path)};
  const auto recipe = out.file->metadata().find("recipe");
  if (recipe != out.file->metadata().end()) {
    out.recipe = formats::parse_json(recipe->second, out.name);
  }
  return out;
}

// All files of a kind, by name.
inline std::vector<GoldenFile> golden_files(const std::string& kind) {
  std::vector<std::filesystem::path> paths;
  if (std::filesystem::is_directory(golden_dir())) {
    for (const auto& entry : std::filesystem::directory_iterator(golden_dir())) {
      if (entry.path().extension() == ".safetensors") {
        paths.push_back(entry.path());
      }
    }
  }
  std::sort(paths.begin(), paths.end());
  std::vector<GoldenFile> out;
  for (const auto& path : paths) {
    GoldenFile file = open_golden(path);
    if (file.text("kind") == kind) {
      out.push_back(std::move(file));
    }
  }
  return out;
}

}  // namespace nibble::test
