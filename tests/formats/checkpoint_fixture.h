// SPDX-License-Identifier: Apache-2.0
// A small checkpoint with two components and two files.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "formats/checkpoint.h"
#include "tests/formats/gguf_bytes.h"
#include "tests/support/paths.h"

namespace nibble::test {

inline const std::string kWeights(64, '\x21');
inline const std::string kMoments = std::string(40, '\x42') + std::string(8, '\x43');

inline void save_checkpoint(const std::filesystem::path& path, int step = 7) {
  formats::CheckpointWriter writer(path);
  writer.add_component("adapter",
                       {{"a", "F32", {4, 2}, as_bytes(kWeights).first(32)},
                        {"b", "BF16", {16}, as_bytes(kWeights).last(32)}},
                       {{"format", "pt"}});
  writer.add_component("optimizer", {{"m", "U8", {40}, as_bytes(kMoments).first(40)},
                                     {"none", "F32", {0}, {}},
                                     {"scale", "F32", {2}, as_bytes(kMoments).last(8)}});
  writer.add_file("adapter_config.json", "{\"r\": 8}\n");
  writer.add_file("empty.txt", "");
  writer.commit({{"step", step}, {"loss", 1.25}, {"name", "é"}});
}

class CheckpointFixture : public testing::Test {
 protected:
  TemporaryDirectory directory_;
  std::filesystem::path path_ = directory_.path() / "step-7";
};

}  // namespace nibble::test
