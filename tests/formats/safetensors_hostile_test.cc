// SPDX-License-Identifier: Apache-2.0
// The catalogue of hostile safetensors files.
#include <gtest/gtest.h>

#include "formats/safetensors.h"
#include "tests/formats/safetensors_bytes.h"
#include "tests/support/expect_error.h"

namespace nibble {
namespace {

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

}  // namespace
}  // namespace nibble
