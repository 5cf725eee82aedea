// SPDX-License-Identifier: Apache-2.0
#include "formats/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <limits>

#include "formats/checkpoint_manifest.h"
#include "os/fault.h"
#include "tests/formats/gguf_bytes.h"
#include "tests/support/expect_error.h"
#include "tests/support/paths.h"

namespace nibble {
namespace {

using formats::Checkpoint;
using formats::CheckpointWriter;
using formats::Json;
using test::expect_error;
namespace fs = std::filesystem;

const std::string kWeights(64, '\x21');
const std::string kMoments = std::string(40, '\x42') + std::string(8, '\x43');

void save(const fs::path& path, int step = 7) {
  CheckpointWriter writer(path);
  writer.add_component("adapter",
                       {{"a", "F32", {4, 2}, test::as_bytes(kWeights).first(32)},
                        {"b", "BF16", {16}, test::as_bytes(kWeights).last(32)}},
                       {{"format", "pt"}});
  writer.add_component("optimizer", {{"m", "U8", {40}, test::as_bytes(kMoments).first(40)},
                                     {"none", "F32", {0}, {}},
                                     {"scale", "F32", {2}, test::as_bytes(kMoments).last(8)}});
  writer.add_file("adapter_config.json", "{\"r\": 8}\n");
  writer.add_file("empty.txt", "");
  writer.commit({{"step", step}, {"loss", 1.25}, {"name", "é"}});
}

std::string read(const fs::path& path) { return os::read_file(path, 1 << 20); }
void overwrite(const fs::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
}

class CheckpointTest : public testing::Test {
 protected:
  test::TemporaryDirectory directory_;
  fs::path path_ = directory_.path() / "step-7";
};

TEST_F(CheckpointTest, RoundTrip) {
  save(path_);
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
  save(path_);
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
  save(path_);
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
  save(path_);
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
  save(path_);
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
  save(path_);
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
  save(path_);
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
  save(path_);
  Json manifest = formats::parse_json(read(path_ / "manifest.json"), "m");
  manifest.erase("xxh3");
  manifest["later"] = {1, 2};
  overwrite(path_ / "manifest.json", formats::encode_manifest(manifest));
  overwrite(path_ / "notes.txt", "mine");
  fs::create_directory(path_ / "plots");
  EXPECT_NO_THROW(Checkpoint{path_});
}

TEST_F(CheckpointTest, WriterRefusesAndLeavesNothing) {
  save(path_);
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

// Fault injection: the Nth operation on the disk fails (or the process dies there), for every N.
int operations_left = 0;
int fault_errno = 0;
int countdown(const char* /*operation*/, const fs::path& /*path*/) {
  if (--operations_left != 0) {
    return 0;
  }
  if (fault_errno == 0) {
    ::_exit(42);
  }
  return fault_errno;
}

TEST_F(CheckpointTest, EveryFailingOperationLeavesNothingOrAWhole) {
  for (const int error : {ENOSPC, EIO}) {
    int failures = 0;
    for (int n = 1;; ++n) {
      operations_left = n;
      fault_errno = error;
      os::fault_hook = countdown;
      bool failed = false;
      try {
        save(path_);
      } catch (const Error& e) {
        failed = true;
        EXPECT_EQ(static_cast<int>(e.code()), static_cast<int>(StatusCode::kIo));
      }
      os::fault_hook = nullptr;
      if (fs::exists(path_)) {
        EXPECT_NO_THROW(Checkpoint{path_}) << "operation " << n;
        fs::remove_all(path_);
      }
      EXPECT_TRUE(fs::is_empty(directory_.path())) << "operation " << n;
      if (!failed) {
        break;
      }
      ++failures;
    }
    EXPECT_GT(failures, 25);
  }
}

TEST_F(CheckpointTest, AKillAtAnyOperationLeavesNothingOrAWhole) {
  int kills = 0;
  for (int n = 1;; ++n) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      operations_left = n;
      fault_errno = 0;
      os::fault_hook = countdown;
      save(path_);
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    if (fs::exists(path_)) {
      EXPECT_NO_THROW(Checkpoint{path_}) << "operation " << n;
      fs::remove_all(path_);
    }
    os::remove_stale_staging(directory_.path());
    EXPECT_TRUE(fs::is_empty(directory_.path())) << "operation " << n;
    if (WEXITSTATUS(status) == 0) {
      break;
    }
    ASSERT_EQ(WEXITSTATUS(status), 42);
    ++kills;
  }
  EXPECT_GT(kills, 25);
}

}  // namespace
}  // namespace nibble
