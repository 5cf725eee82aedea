// SPDX-License-Identifier: Apache-2.0
#include "formats/safetensors.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "tests/formats/safetensors_bytes.h"
#include "tests/support/expect_error.h"
#include "tests/support/paths.h"

namespace nibble {
namespace {

using formats::SafeTensor;
using formats::SafetensorsFile;
using test::expect_error;
using test::safetensors;

std::string one(std::string_view value, std::size_t data = 8) {
  return safetensors("{\"w\":" + std::string(value) + "}", data);
}

TEST(Safetensors, AcceptsWhatIsLegal) {
  EXPECT_NO_THROW(SafetensorsFile(test::as_bytes(safetensors("{}", 0)), "f"));
  EXPECT_NO_THROW(SafetensorsFile(test::as_bytes(safetensors("{}      ", 0)), "f"));
  const std::string bytes =
      safetensors(R"({"late":{"dtype":"BF16","shape":[2,1],"data_offsets":[4,8]},)"
                  R"("scalar":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                  R"("none":{"dtype":"F32","shape":[3,0],"data_offsets":[4,4]}})",
                  8);
  const SafetensorsFile file(test::as_bytes(bytes), "f");
  ASSERT_EQ(file.tensors().size(), 3U);
  EXPECT_EQ(file.tensors()[0].name, "scalar");
  EXPECT_EQ(file.tensors()[1].name, "none");
  EXPECT_EQ(file.tensors()[2].name, "late");
  EXPECT_EQ(file.expect("late", "BF16", {2, 1}).bytes.size(), 4U);
  EXPECT_EQ(file.find("other"), nullptr);
}

TEST(Safetensors, ExpectNamesTheDifference) {
  const std::string bytes = one(R"({"dtype":"F32","shape":[2,1],"data_offsets":[0,8]})");
  const SafetensorsFile file(test::as_bytes(bytes), "f.st");
  EXPECT_NO_THROW(file.expect("w", "F32", {2, 1}));
  const StatusCode code = StatusCode::kCorrupt;
  expect_error(code, {"f.st", "'v'", "missing"}, [&] { file.expect("v", "F32", {2, 1}); });
  expect_error(code, {"'w'", "F32 [2, 1]", "BF16 [2, 1]"}, [&] {
    file.expect("w", "BF16", {2, 1});
  });
  expect_error(code, {"'w'", "F32 [2, 1]", "F32 [2]"}, [&] { file.expect("w", "F32", {2}); });
}

RC_GTEST_PROP(Safetensors, WhatIsWrittenIsReadBack, ()) {
  const std::vector<std::string> dtypes = {"F64", "F32", "F16",  "BF16",    "I64",
                                           "I32", "I16", "I8",   "U64",     "U32",
                                           "U16", "U8",  "BOOL", "F8_E4M3", "F8_E5M2"};
  const auto names = *rc::gen::unique<std::vector<std::string>>(
      rc::gen::map(rc::gen::inRange(0, 100000), [](int i) { return "t\"é" + std::to_string(i); }));
  std::vector<std::string> data;
  data.reserve(names.size());
  std::vector<SafeTensor> tensors;
  for (const std::string& name : names) {
    SafeTensor tensor{name, *rc::gen::elementOf(dtypes), {}, {}};
    tensor.shape = *rc::gen::container<std::vector<std::uint64_t>>(
        *rc::gen::inRange<std::size_t>(0, 4), rc::gen::inRange<std::uint64_t>(0, 4));
    std::uint64_t bytes = formats::safetensors_dtype_bytes(tensor.dtype);
    for (const std::uint64_t dim : tensor.shape) {
      bytes *= dim;
    }
    data.push_back(*rc::gen::container<std::string>(bytes, rc::gen::arbitrary<char>()));
    tensor.bytes = test::as_bytes(data.back());
    tensors.push_back(tensor);
  }
  const std::map<std::string, std::string> metadata = {{"format", "pt"}, {"κ", "\n\"\\"}};
  const test::TemporaryDirectory directory;
  formats::write_safetensors(directory.path() / "f", tensors, metadata);
  const SafetensorsFile file(directory.path() / "f");
  RC_ASSERT(file.metadata() == metadata);
  RC_ASSERT(file.tensors().size() == tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const SafeTensor& read = file.expect(tensors[i].name, tensors[i].dtype, tensors[i].shape);
    RC_ASSERT(std::equal(read.bytes.begin(), read.bytes.end(), tensors[i].bytes.begin(),
                         tensors[i].bytes.end()));
  }
}

TEST(Safetensors, WriterRefusesAndLeavesNothing) {
  const test::TemporaryDirectory directory;
  const std::string eight(8, 'x');
  const auto bytes = test::as_bytes(eight);
  const auto refuses = [&](const std::vector<SafeTensor>& tensors, const char* fragment,
                           const std::map<std::string, std::string>& metadata = {}) {
    expect_error(StatusCode::kInvalidArgument, {"f.st", fragment},
                 [&] { formats::write_safetensors(directory.path() / "f.st", tensors, metadata); });
    EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
  };
  refuses({{"w", "F32", {2}, bytes}, {"w", "F32", {2}, bytes}}, "two tensors");
  refuses({{"w", "F32", {3}, bytes}}, "12 bytes");
  refuses({{"w", "f32", {2}, bytes}}, "dtype");
  refuses({{"w", "U8", {1ULL << 32, 1ULL << 32}, bytes}}, "64 bits");
  refuses({{"__metadata__", "F32", {2}, bytes}}, "__metadata__");
  refuses({{"w\xFF", "F32", {2}, bytes}}, "UTF-8");
  refuses({{"w", "F32", {2}, bytes}}, "UTF-8", {{"k", "\xFF"}});
}

TEST(Safetensors, OpensTheGoldenFiles) {
  int count = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(test::golden_dir(), error)) {
    if (entry.path().extension() == ".safetensors") {
      EXPECT_NO_THROW(SafetensorsFile{entry.path()}) << entry.path();
      ++count;
    }
  }
  if (count == 0) {
    GTEST_SKIP() << "no golden files in " << test::golden_dir();
  }
}

}  // namespace
}  // namespace nibble
