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
using test::u64;

struct Case {
  const char* name;
  std::string bytes;
  StatusCode code;
  std::vector<std::string> fragments;
};

std::string one(std::string_view value, std::size_t data = 8) {
  return safetensors("{\"w\":" + std::string(value) + "}", data);
}

std::vector<Case> container_cases() {
  constexpr StatusCode kCorrupt = StatusCode::kCorrupt;
  const std::string w8 = R"("w":{"dtype":"U8","shape":[8],"data_offsets":[0,8]})";
  return {
      {"Empty", "", kCorrupt, {"header", "offset 0"}},
      {"SevenBytes", "1234567", kCorrupt, {"header"}},
      {"LengthZero", u64(0), kCorrupt, {"offset 8"}},
      {"LengthBeyondFile", u64(100) + "{}", kCorrupt, {"100 bytes", "offset 8"}},
      {"LengthMinus1", u64(~std::uint64_t{0}) + "{}", kCorrupt, {"100000000", "offset 0"}},
      {"LengthOverLimit", u64(100'000'001) + "{}", kCorrupt, {"100000001"}},
      {"LeadingSpace", safetensors(" {}", 0), kCorrupt, {"offset 8"}},
      {"LeadingBom", safetensors("\xEF\xBB\xBF{}", 0), kCorrupt, {"offset 8"}},
      {"ArrayAtTop", safetensors("[]", 0), kCorrupt, {"offset 8"}},
      {"NotJson", safetensors("{\"w\"", 0), kCorrupt, {"invalid JSON"}},
      {"TwoDocuments", safetensors("{}{}", 0), kCorrupt, {"invalid JSON"}},
      {"NotUtf8", safetensors("{\"\xFF\":1}", 0), kCorrupt, {"invalid JSON"}},
      {"NulPadding", safetensors(std::string("{}\0\0", 4), 0), kCorrupt, {"NUL"}},
      {"DeepNesting", safetensors("{\"a\":" + std::string(99, '['), 0), kCorrupt, {"deeper"}},
      {"DuplicateTensor",
       safetensors("{" + w8 + "," + w8 + "}", 8),
       kCorrupt,
       {"duplicate", "'w'"}},
      {"DuplicateMetadata",
       safetensors(R"({"__metadata__":{},"__metadata__":{}})", 0),
       kCorrupt,
       {"duplicate"}},
      {"DuplicateMember",
       one(R"({"dtype":"U8","dtype":"U8","shape":[8],"data_offsets":[0,8]})"),
       kCorrupt,
       {"duplicate", "'dtype'"}},
      {"MetadataArray", safetensors(R"({"__metadata__":[]})", 0), kCorrupt, {"__metadata__"}},
      {"MetadataNumber",
       safetensors(R"({"__metadata__":{"a":1}})", 0),
       kCorrupt,
       {"'a'", "string"}},
      {"DataWithoutTensor", safetensors("{}", 3), kCorrupt, {"3 bytes", "offset 10"}},
      {"DataAfterLast", safetensors("{" + w8 + "}", 9), kCorrupt, {"1 bytes"}},
      {"HoleAtStart",
       one(R"({"dtype":"U8","shape":[7],"data_offsets":[1,8]})"),
       kCorrupt,
       {"'w'", "holes"}},
      {"HoleBetween",
       safetensors(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                   R"("b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}})",
                   5),
       kCorrupt,
       {"'b'", "holes"}},
      {"Overlap",
       safetensors(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                   R"("b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})",
                   7),
       kCorrupt,
       {"'b'", "overlap"}},
      {"SameData",
       safetensors(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                   R"("b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
                   4),
       kCorrupt,
       {"overlap"}},
  };
}

std::vector<Case> tensor_cases() {
  constexpr StatusCode kCorrupt = StatusCode::kCorrupt;
  constexpr StatusCode kUnsupported = StatusCode::kUnsupported;
  return {
      {"NotObject", one("[1]"), kCorrupt, {"object"}},
      {"Null", one("null"), kCorrupt, {"object"}},
      {"NoDtype", one(R"({"shape":[8],"data_offsets":[0,8]})"), kCorrupt, {"'dtype' is missing"}},
      {"NoShape", one(R"({"dtype":"U8","data_offsets":[0,8]})"), kCorrupt, {"'shape' is missing"}},
      {"NoOffsets", one(R"({"dtype":"U8","shape":[8]})"), kCorrupt, {"'data_offsets' is missing"}},
      {"UnknownMember",
       one(R"({"dtype":"U8","shape":[8],"data_offsets":[0,8],"x":1})"),
       kCorrupt,
       {"'x'"}},
      {"DtypeUnknown",
       one(R"({"dtype":"F31","shape":[2],"data_offsets":[0,8]})"),
       kCorrupt,
       {"F31"}},
      {"DtypeLowerCase",
       one(R"({"dtype":"f32","shape":[2],"data_offsets":[0,8]})"),
       kCorrupt,
       {"f32"}},
      {"DtypeNumber", one(R"({"dtype":4,"shape":[2],"data_offsets":[0,8]})"), kCorrupt, {"string"}},
      {"DtypeComplex",
       one(R"({"dtype":"C64","shape":[1],"data_offsets":[0,8]})"),
       kUnsupported,
       {"C64"}},
      {"DtypeF4", one(R"({"dtype":"F4","shape":[16],"data_offsets":[0,8]})"), kUnsupported, {"F4"}},
      {"ShapeNotArray",
       one(R"({"dtype":"U8","shape":8,"data_offsets":[0,8]})"),
       kCorrupt,
       {"array"}},
      {"ShapeNegative",
       one(R"({"dtype":"U8","shape":[-8],"data_offsets":[0,8]})"),
       kCorrupt,
       {"unsigned"}},
      {"ShapeFloat",
       one(R"({"dtype":"U8","shape":[8.0],"data_offsets":[0,8]})"),
       kCorrupt,
       {"unsigned"}},
      {"ShapeString",
       one(R"({"dtype":"U8","shape":["8"],"data_offsets":[0,8]})"),
       kCorrupt,
       {"unsigned"}},
      {"ShapeBeyond64Bits",
       one(R"({"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,8]})"),
       kCorrupt,
       {"unsigned"}},
      {"ShapeWrapsToZero",
       one(R"({"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]})", 0),
       kCorrupt,
       {"64 bits"}},
      {"ShapeWrapsToEight",
       one(R"({"dtype":"F64","shape":[2305843009213693953],"data_offsets":[0,8]})"),
       kCorrupt,
       {"64 bits"}},
      {"OffsetsOne", one(R"({"dtype":"U8","shape":[8],"data_offsets":[8]})"), kCorrupt, {"two"}},
      {"OffsetsThree",
       one(R"({"dtype":"U8","shape":[8],"data_offsets":[0,8,8]})"),
       kCorrupt,
       {"two"}},
      {"OffsetsObject",
       one(R"({"dtype":"U8","shape":[8],"data_offsets":{"a":0,"b":8}})"),
       kCorrupt,
       {"two"}},
      {"OffsetsNegative",
       one(R"({"dtype":"U8","shape":[8],"data_offsets":[-8,0]})"),
       kCorrupt,
       {"unsigned"}},
      {"OffsetsFloat",
       one(R"({"dtype":"U8","shape":[8],"data_offsets":[0,8.0]})"),
       kCorrupt,
       {"unsigned"}},
      {"OffsetsReversed",
       one(R"({"dtype":"U8","shape":[8],"data_offsets":[8,0]})"),
       kCorrupt,
       {"outside"}},
      {"OffsetsBeyond",
       one(R"({"dtype":"U8","shape":[9],"data_offsets":[0,9]})"),
       kCorrupt,
       {"outside"}},
      {"OffsetsMax",
       one(R"({"dtype":"U8","shape":[8],"data_offsets":[18446744073709551608,18446744073709551615]})"),
       kCorrupt,
       {"outside"}},
      {"SizeSmall",
       one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,8]})"),
       kCorrupt,
       {"4 bytes", "8"}},
      {"SizeLarge",
       one(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"),
       kCorrupt,
       {"12 bytes", "8"}},
      {"ZeroDimWithBytes",
       one(R"({"dtype":"U8","shape":[0],"data_offsets":[0,8]})"),
       kCorrupt,
       {"0 bytes"}},
  };
}

void run(const std::vector<Case>& cases, const std::vector<std::string>& common) {
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    std::vector<std::string> fragments = c.fragments;
    fragments.insert(fragments.end(), common.begin(), common.end());
    expect_error(c.code, fragments, [&] { SafetensorsFile(test::as_bytes(c.bytes), "f.st"); });
  }
}

TEST(SafetensorsHostile, Container) { run(container_cases(), {"f.st: "}); }
TEST(SafetensorsHostile, Tensor) {
  run(tensor_cases(), {"f.st: ", "tensor 'w' (header offset 9)"});
}

TEST(SafetensorsHostile, CutAtEveryByte) {
  const std::string whole = safetensors(
      R"({"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"I8","shape":[3],"data_offsets":[8,11]}})",
      11);
  ASSERT_NO_THROW(SafetensorsFile(test::as_bytes(whole), "f.st"));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    SCOPED_TRACE(size);
    const std::string cut = whole.substr(0, size);
    expect_error(StatusCode::kCorrupt, {"f.st: ", "offset"},
                 [&] { SafetensorsFile(test::as_bytes(cut), "f.st"); });
  }
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
