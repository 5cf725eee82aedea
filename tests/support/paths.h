// SPDX-License-Identifier: Apache-2.0
// Where tests find what lies outside the repository.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

namespace nibble::test {

inline std::optional<std::filesystem::path> existing(const std::filesystem::path& path) {
  return std::filesystem::exists(path) ? std::optional(path) : std::nullopt;
}

// NIBBLE_GOLDEN_DIR, else shared/golden beside the checkout, else the small set in tests/golden.
inline std::filesystem::path golden_dir() {
  if (const char* dir = std::getenv("NIBBLE_GOLDEN_DIR"); dir != nullptr && *dir != '\0') {
    return dir;
  }
  const std::filesystem::path source = NIBBLE_SOURCE_DIR;
  return existing(source / "../shared/golden").value_or(source / "tests/golden");
}

// The real model (SmolLM2-135M-Instruct Q4_1): NIBBLE_TEST_MODEL, else models/ in the checkout,
// where tests/run.sh and the quickstart put it. Tests that need it skip without it.
inline std::optional<std::filesystem::path> real_model() {
  if (const char* path = std::getenv("NIBBLE_TEST_MODEL"); path != nullptr && *path != '\0') {
    return path;
  }
  return existing(std::filesystem::path(NIBBLE_SOURCE_DIR) /
                  "models/SmolLM2-135M-Instruct.Q4_1.gguf");
}

// A fresh empty directory, removed with its content at the end of the scope.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "nibble-test-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace nibble::test
