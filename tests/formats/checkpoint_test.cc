// SPDX-License-Identifier: Apache-2.0
#include "formats/checkpoint.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "formats/checkpoint_manifest.h"
#include "tests/formats/checkpoint_fixture.h"
#include "tests/support/expect_error.h"

namespace nibble {
namespace {

using formats::Checkpoint;
using formats::CheckpointWriter;
using formats::Json;
using test::expect_error;
namespace fs = std::filesystem;

std::string read(const fs::path& path) { return os::read_file(path, 1 << 20); }
void overwrite(const fs::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
}

using CheckpointTest = test::CheckpointFixture;

TEST_F(CheckpointTest, RoundTrip) {
  test::save_checkpoint(path_);
  const Checkpoint checkpoint(path_);
  EXPECT_EQ(checkpoint.extra().at("step"), 7);
  EXPECT_EQ(checkpoint.extra().at("loss"), 1.25);
  EXPECT_EQ(checkpoint.path(), path_);
  const auto& adapter = checkpoint.component("adapter");
  EXPECT_EQ(adapter.metadata().at("format"), "pt");
  EXPECT_EQ(adapter.expect("a", "F32", {4, 2}).bytes.size(), 32U);
  EXPECT_EQ(checkpoint.component("optimizer").expect("m", "U8", {40}).bytes[39], std::byte{0x42});
  expect_error(StatusCode::kCorrupt, {"step-7", "'rng'", "missing"},
               [&] { checkpoint.component("rng"); });
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_.path()), {}), 1);
}

// The hash is what FORMAT.md says, not merely the same on both sides: known answers of XXH3-64.
TEST_F(CheckpointTest, HashesAreXxh3) {
  EXPECT_EQ(formats::xxh3_hex(std::string_view("")), "2d06800538d394c2");
  test::save_checkpoint(path_);
  const Json manifest = formats::parse_json(read(path_ / "manifest.json"), "m");
  EXPECT_EQ(manifest.at("files").at("empty.txt").at("xxh3"), "2d06800538d394c2");
  EXPECT_EQ(manifest.at("components").at("optimizer").at("tensors").at("none"), "2d06800538d394c2");
  EXPECT_EQ(manifest.at("version"), 1);
}

// In place: truncating and rewriting costs a flush to the disk each time.
void put_byte(const fs::path& path, std::size_t at, char byte) {
  std::fstream stream(path, std::ios::binary | std::ios::in | std::ios::out);
  stream.seekp(static_cast<std::streamoff>(at)).put(byte);
}

TEST_F(CheckpointTest, EveryDamagedByteIsFound) {
  test::save_checkpoint(path_);
  for (const char* name :
       {"adapter.safetensors", "optimizer.safetensors", "adapter_config.json", "manifest.json"}) {
    const std::string whole = read(path_ / name);
    for (std::size_t i = 0; i < whole.size(); ++i) {
      for (const char flip : {'\x01', '\x80'}) {
        put_byte(path_ / name, i, static_cast<char>(whole[i] ^ flip));
        try {
          const Checkpoint checkpoint(path_);
          ADD_FAILURE() << name << ": damage of byte " << i << " was not found";
        } catch (const Error& error) {
          EXPECT_NE(std::string(error.what()).find(name), std::string::npos) << error.what();
        }
      }
      put_byte(path_ / name, i, whole[i]);
    }
  }
  EXPECT_NO_THROW(Checkpoint{path_});
}

TEST_F(CheckpointTest, MessagesNameFileTensorAndOffset) {
  test::save_checkpoint(path_);
  const fs::path shard = path_ / "adapter.safetensors";
  const std::string whole = read(shard);
  std::string damaged = whole;
  damaged[damaged.size() - 1] ^= 1;
  overwrite(shard, damaged);
  expect_error(StatusCode::kCorrupt,
               {"adapter.safetensors", "tensor 'b'", "offset " + std::to_string(whole.size() - 32),
                "damaged"},
               [&] { Checkpoint{path_}; });
  overwrite(shard, whole.substr(0, whole.size() - 5));
  expect_error(StatusCode::kCorrupt,
               {"adapter.safetensors", "offset", std::to_string(whole.size())},
               [&] { Checkpoint{path_}; });
  overwrite(shard, whole + "x");
  expect_error(StatusCode::kCorrupt, {"adapter.safetensors", "offset"}, [&] { Checkpoint{path_}; });
  fs::remove(shard);
  expect_error(StatusCode::kCorrupt, {"adapter.safetensors", "missing"},
               [&] { Checkpoint{path_}; });
}

TEST_F(CheckpointTest, ManifestMissingOrCut) {
  test::save_checkpoint(path_);
  const fs::path manifest = path_ / "manifest.json";
  const std::string whole = read(manifest);
  for (std::size_t size = whole.size(); size-- > 0;) {
    fs::resize_file(manifest, size);
    expect_error(StatusCode::kCorrupt, {"manifest.json"}, [&] { Checkpoint{path_}; });
  }
  fs::remove(manifest);
  expect_error(StatusCode::kCorrupt, {"step-7", "no manifest.json"}, [&] { Checkpoint{path_}; });
  expect_error(StatusCode::kIo, {"absent"}, [&] { Checkpoint{directory_.path() / "absent"}; });
}

// A manifest that is wrong but carries a right checksum, as an attacker would write it.
TEST_F(CheckpointTest, HostileManifests) {
  test::save_checkpoint(path_);
  Json good = formats::parse_json(read(path_ / "manifest.json"), "m");
  good.erase("xxh3");
  const auto refuses = [&](StatusCode code, const std::vector<std::string>& fragments,
                           auto&& edit) {
    Json manifest = good;
    edit(manifest);
    overwrite(path_ / "manifest.json", formats::encode_manifest(manifest));
    std::vector<std::string> all = fragments;
    all.emplace_back("manifest.json");
    expect_error(code, all, [&] { Checkpoint{path_}; });
  };
  constexpr StatusCode kCorrupt = StatusCode::kCorrupt;
  refuses(StatusCode::kUnsupported, {"version 2"}, [](Json& m) { m["version"] = 2; });
  refuses(kCorrupt, {"'version'"}, [](Json& m) { m["version"] = 0; });
  refuses(kCorrupt, {"'version'"}, [](Json& m) { m["version"] = "1"; });
  refuses(kCorrupt, {"'format'"}, [](Json& m) { m["format"] = "other"; });
  for (const char* key : {"format", "version", "components", "files", "extra"}) {
    refuses(kCorrupt, {key, "missing"}, [&](Json& m) { m.erase(key); });
  }
  refuses(kCorrupt, {"'components'"}, [](Json& m) { m["components"] = Json::array(); });
  refuses(kCorrupt, {"adapter"}, [](Json& m) { m["components"]["adapter"] = 1; });
  for (const char* key : {"file", "bytes", "header", "tensors"}) {
    refuses(kCorrupt, {key, "missing"}, [&](Json& m) { m["components"]["adapter"].erase(key); });
    refuses(kCorrupt, {key}, [&](Json& m) { m["components"]["adapter"][key] = -1; });
  }
  refuses(kCorrupt, {"file"},
          [](Json& m) { m["components"]["adapter"]["file"] = "../x.safetensors"; });
  refuses(kCorrupt, {"tensors.a"}, [](Json& m) { m["components"]["adapter"]["tensors"]["a"] = 1; });
  refuses(kCorrupt, {"hexadecimal"},
          [](Json& m) { m["components"]["adapter"]["tensors"]["a"] = "2D06800538D394C2"; });
  for (const char* name :
       {"../../etc/passwd", "/etc/passwd", "..", "", ".hidden", "a/b", "a\\b", "manifest.json"}) {
    refuses(kCorrupt, {"plain file name"}, [&](Json& m) {
      m["files"][name] = {{"bytes", 1}, {"xxh3", "2d06800538d394c2"}};
    });
    refuses(kCorrupt, {"plain file name"},
            [&](Json& m) { m["components"][name] = m["components"]["adapter"]; });
  }
  overwrite(path_ / "manifest.json", "[]");
  expect_error(kCorrupt, {"manifest.json"}, [&] { Checkpoint{path_}; });
}

TEST_F(CheckpointTest, TensorSetsMustMatchTheManifest) {
  test::save_checkpoint(path_);
  Json manifest = formats::parse_json(read(path_ / "manifest.json"), "m");
  manifest.erase("xxh3");
  Json& tensors = manifest["components"]["adapter"]["tensors"];
  tensors["ghost"] = "2d06800538d394c2";
  overwrite(path_ / "manifest.json", formats::encode_manifest(manifest));
  expect_error(StatusCode::kCorrupt, {"'ghost'", "missing"}, [&] { Checkpoint{path_}; });
  tensors.erase("ghost");
  tensors.erase("b");
  overwrite(path_ / "manifest.json", formats::encode_manifest(manifest));
  expect_error(StatusCode::kCorrupt, {"'b'", "offset", "not in the manifest"},
               [&] { Checkpoint{path_}; });
}

TEST_F(CheckpointTest, UnknownFilesAndKeysAreIgnored) {
  test::save_checkpoint(path_);
  Json manifest = formats::parse_json(read(path_ / "manifest.json"), "m");
  manifest.erase("xxh3");
  manifest["later"] = {1, 2};
  overwrite(path_ / "manifest.json", formats::encode_manifest(manifest));
  overwrite(path_ / "notes.txt", "mine");
  fs::create_directory(path_ / "plots");
  EXPECT_NO_THROW(Checkpoint{path_});
}

TEST_F(CheckpointTest, WriterRefusesAndLeavesNothing) {
  test::save_checkpoint(path_);
  expect_error(StatusCode::kIo, {"step-7", "exists"}, [&] { CheckpointWriter{path_}; });
  {
    CheckpointWriter writer(directory_.path() / "other");
    writer.add_file("a", "1");
    const StatusCode code = StatusCode::kInvalidArgument;
    expect_error(code, {"'a'", "twice"}, [&] { writer.add_file("a", "2"); });
    expect_error(code, {"plain"}, [&] { writer.add_file("../a", "2"); });
    expect_error(code, {"plain"}, [&] { writer.add_file("manifest.json", "2"); });
    expect_error(code, {"plain"}, [&] { writer.add_component("", {}); });
    writer.add_component("c", {});
    expect_error(code, {"twice"}, [&] { writer.add_component("c", {}); });
    expect_error(code, {"twice"}, [&] { writer.add_file("c.safetensors", ""); });
    expect_error(code, {"JSON"}, [&] { writer.commit({{"x", std::nan("")}}); });
    expect_error(code, {"UTF-8"}, [&] { writer.commit({{"x", "\xFF"}}); });
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_.path()), {}), 1);
}

}  // namespace
}  // namespace nibble
