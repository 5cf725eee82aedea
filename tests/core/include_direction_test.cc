// SPDX-License-Identifier: Apache-2.0
// Includes point one way: math <- {os, core} <- {formats, backend} <- {optim, offload, comm} <-
// capi <- {text, model} <- train <- cli; cpu and cuda see only math, os, core and backend. The
// trainer's folders use the optimizers through nibble.h alone.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/support/paths.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

const std::map<std::string, int>& layers() {
  static const std::map<std::string, int> kLayers = {
      {"math", 0},  {"os", 1},      {"core", 1}, {"formats", 2}, {"backend", 2},
      {"optim", 3}, {"offload", 3}, {"comm", 3}, {"capi", 4},    {"text", 5},
      {"model", 5}, {"train", 6},   {"cli", 7}};
  return kLayers;
}

// Why a file of `from` may not include `include`; empty if it may.
std::string objection(const std::string& from, const std::string& include) {
  if (include.starts_with("nibble_") && include.ends_with(".inc")) {
    return "";  // a table that CMake writes into the build directory
  }
  const std::string to = include.substr(0, include.find('/'));
  if (include.find('/') == std::string::npos) {
    return "not written from the root of src";
  }
  if (from == "cpu" || from == "cuda") {
    if (from == "cuda" && include == "cuda_host/device.h") {
      return "";  // what tests put in CUDA's place
    }
    static const std::set<std::string> kSeen = {"math", "os", "core", "backend"};
    return to == from || kSeen.count(to) != 0 ? "" : from + " may not see " + to;
  }
  if (to == "nibble") {
    return layers().at(from) >= layers().at("capi") || from == "optim" ? "" : "below the C API";
  }
  const auto layer = layers().find(to);
  if (layer == layers().end()) {
    return "unknown folder " + to;
  }
  if (layer->second > layers().at(from)) {
    return to + " stands above " + from;
  }
  static const std::set<std::string> kInsideTheLibrary = {"optim", "offload", "comm", "capi"};
  if (layers().at(from) > layers().at("capi") && kInsideTheLibrary.count(to) != 0) {
    return "the trainer uses optimizers through nibble.h only";
  }
  return "";
}

std::vector<std::string> quoted_includes(const fs::path& file) {
  std::vector<std::string> found;
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    const std::size_t hash = line.find_first_not_of(" \t");
    if (hash == std::string::npos || line.compare(hash, 1, "#") != 0) {
      continue;
    }
    const std::size_t word = line.find_first_not_of(" \t", hash + 1);
    const std::size_t open = line.find('"');
    if (word != std::string::npos && line.compare(word, 7, "include") == 0 &&
        open != std::string::npos) {
      found.push_back(line.substr(open + 1, line.find('"', open + 1) - open - 1));
    }
  }
  return found;
}

TEST(IncludeDirection, TheRuleItself) {
  EXPECT_EQ(objection("core", "os/file.h"), "");
  EXPECT_EQ(objection("formats", "math/bf16.h"), "");
  EXPECT_EQ(objection("cli", "text/tokenizer.h"), "");
  EXPECT_EQ(objection("train", "nibble/nibble.h"), "");
  EXPECT_EQ(objection("math", "nibble_rule_files.inc"), "");
  EXPECT_NE(objection("math", "core/status.h"), "");
  EXPECT_NE(objection("os", "formats/json.h"), "");
  EXPECT_NE(objection("text", "train/loop.h"), "");
  EXPECT_NE(objection("train", "optim/optimizer.h"), "");
  EXPECT_NE(objection("cpu", "formats/gguf.h"), "");
  EXPECT_NE(objection("core", "status.h"), "");
}

TEST(IncludeDirection, HoldsInEveryFile) {
  const fs::path root = NIBBLE_SOURCE_DIR;
  int files = 0;
  for (const char* top : {"src", "cpu", "cuda"}) {
    if (!fs::exists(root / top)) {
      continue;
    }
    for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
      static const std::set<std::string> kSources = {".h", ".cc", ".cu", ".cuh", ".def"};
      if (!entry.is_regular_file() || kSources.count(entry.path().extension().string()) == 0) {
        continue;
      }
      const fs::path relative = fs::relative(entry.path(), root);
      const std::string from =
          std::string(top) == "src" ? std::next(relative.begin())->string() : top;
      ASSERT_TRUE(from == top || layers().count(from) != 0) << relative << ": unknown folder";
      for (const std::string& include : quoted_includes(entry.path())) {
        const std::string why = objection(from, include);
        EXPECT_EQ(why, "") << relative << " includes \"" << include << "\"";
      }
      ++files;
    }
  }
  EXPECT_GT(files, 20);
}

TEST(IncludeDirection, EveryFolderSaysWhatItIsFor) {
  for (const auto& entry : fs::directory_iterator(fs::path(NIBBLE_SOURCE_DIR) / "src")) {
    if (entry.is_directory()) {
      const fs::path page = entry.path() / "README.md";
      EXPECT_TRUE(fs::exists(page) && fs::file_size(page) > 100) << page;
    }
  }
}

}  // namespace
}  // namespace nibble
