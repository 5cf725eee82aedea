// SPDX-License-Identifier: Apache-2.0
// The catalogue of hostile GGUF files: what has broken other readers, and what they do not try.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>

#include "formats/gguf.h"
#include "tests/formats/gguf_bytes.h"
#include "tests/support/expect_error.h"

namespace nibble {
namespace {

using formats::GgufFile;
using formats::GgufLimits;
using test::array;
using test::GgufBytes;
using test::info;
using test::kv;
using test::le;
using test::text;
using test::u32;
using test::u64;

constexpr StatusCode kCorrupt = StatusCode::kCorrupt;
constexpr StatusCode kUnsupported = StatusCode::kUnsupported;
constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint64_t kInt64Max = std::numeric_limits<std::int64_t>::max();
constexpr std::uint32_t kU32 = 4, kF32 = 6, kBool = 7, kString = 8, kArray = 9;
constexpr std::uint32_t kTypeF32 = 0, kTypeQ4_0 = 2, kTypeQ4_1 = 3;

struct Case {
  const char* name;
  std::string bytes;
  StatusCode code;
  std::vector<std::string> fragments;  // besides the file's name and "offset"
};

std::string with_key(const std::string& key) {
  return GgufBytes{.keys = {key}, .data = ""}.bytes();
}
std::string with_tensor(const std::string& tensor, std::size_t data = 64) {
  return GgufBytes{.keys = {}, .tensors = {tensor}, .data = std::string(data, '\0')}.bytes();
}
std::string with_tensors(std::vector<std::string> tensors, std::size_t data) {
  return GgufBytes{.keys = {}, .tensors = std::move(tensors), .data = std::string(data, '\0')}
      .bytes();
}
std::string header(const std::string& magic, std::uint32_t version) {
  return GgufBytes{.magic = magic, .version = version, .keys = {}, .tensors = {}, .data = ""}
      .bytes();
}
std::string counts(std::uint64_t tensors, std::uint64_t keys) {
  return GgufBytes{}.bytes(tensors, keys);
}
std::string aligned(std::uint32_t alignment) {
  return with_key(kv("general.alignment", kU32, u32(alignment)));
}

std::vector<Case> header_cases() {
  return {
      {"Empty", "", kCorrupt, {"header", "offset 0"}},
      {"MagicWrong", header("GGML", 3), kCorrupt, {"header", "offset 0", "GGML"}},
      {"MagicBinary", header(std::string("\x00\xFF\x01G", 4), 3), kCorrupt, {"\\xff"}},
      {"MagicReversed", header("FUGG", 3), kCorrupt, {"FUGG"}},
      {"Version0", header("GGUF", 0), kCorrupt, {"version 0", "offset 4"}},
      {"Version1", header("GGUF", 1), kUnsupported, {"version 1"}},
      {"Version2", header("GGUF", 2), kUnsupported, {"version 2"}},
      {"VersionFuture", header("GGUF", 4), kUnsupported, {"version 4"}},
      {"VersionMax", header("GGUF", 0xFFFFFFFF), kUnsupported, {"version 4294967295"}},
      {"BigEndian", header("GGUF", 0x03000000), kUnsupported, {"big-endian", "offset 4"}},
      {"TensorCountMinus1", counts(kHuge, 0), kCorrupt, {"tensor count", "offset 8"}},
      {"TensorCountOverLimit", counts(65537, 0), kCorrupt, {"65537", "65536"}},
      {"TensorCountLies", counts(65536, 0), kCorrupt, {"tensor #0", "offset 24"}},
      {"KeyCountMinus1", counts(0, kHuge), kCorrupt, {"key count", "offset 16"}},
      {"KeyCountOverLimit", counts(0, 65537), kCorrupt, {"65537"}},
      {"KeyCountLies", counts(0, 65536), kCorrupt, {"key #0", "offset 24"}},
  };
}

std::vector<Case> key_cases() {
  return {
      {"KeyLengthMinus1", with_key(u64(kHuge)), kCorrupt, {"key #0", "offset 24"}},
      {"KeyLengthOverLimit", with_key(u64(65536) + std::string(65536, 'k')), kCorrupt, {"65535"}},
      {"KeyBeyondFile", with_key(u64(100) + "short"), kCorrupt, {"100 bytes", "offset 32"}},
      {"KeyEmpty", with_key(kv("", kU32, u32(1))), kCorrupt, {"key is empty", "key #0"}},
      {"KeyNotUtf8", with_key(kv("a\xC3(", kU32, u32(1))), kCorrupt, {"not UTF-8", "offset 33"}},
      {"KeyOverlongUtf8", with_key(kv("\xC0\x80", kU32, u32(1))), kCorrupt, {"not UTF-8"}},
      {"KeySurrogate", with_key(kv("\xED\xA0\x80", kU32, u32(1))), kCorrupt, {"not UTF-8"}},
      {"KeyTwice",
       GgufBytes{.keys = {kv("a.b", kU32, u32(1)), kv("a.b", kF32, le(1.0F))}}.bytes(),
       kCorrupt,
       {"key 'a.b'", "twice"}},
      {"ValueTypeBad", with_key(kv("a", 13, u32(1))), kCorrupt, {"key 'a'", "type 13"}},
      {"ValueTypeMax", with_key(kv("a", 0xFFFFFFFF, "")), kCorrupt, {"key 'a'", "4294967295"}},
      {"ValueMissing", with_key(kv("a", 10, u32(1))), kCorrupt, {"key 'a'", "8 bytes"}},
      {"BoolTwo", with_key(kv("a", kBool, "\x02")), kCorrupt, {"key 'a'", "holds 2"}},
      {"Bool255", with_key(kv("a", kBool, "\xFF")), kCorrupt, {"holds 255"}},
      {"StringMinus1", with_key(kv("a", kString, u64(kHuge))), kCorrupt, {"key 'a'", "offset 37"}},
      {"StringOverLimit", with_key(kv("a", kString, u64((16U << 20) + 1))), kCorrupt, {"16777216"}},
      {"StringBeyondFile", with_key(kv("a", kString, u64(9) + "12345678")), kCorrupt, {"9 bytes"}},
  };
}

std::vector<Case> array_cases() {
  const auto key = [](const std::string& value) { return with_key(kv("arr", kArray, value)); };
  const std::string bools("\x01\x00\x02", 3);
  return {
      {"Nested", key(array(kArray, 1, array(kU32, 1, u32(7)))), kCorrupt, {"'arr'", "arrays of"}},
      {"TypeBad", key(array(99, 1, u32(7))), kCorrupt, {"key 'arr'", "type 99"}},
      {"CountMinus1", key(array(kU32, kHuge, u32(7))), kCorrupt, {"key 'arr'", "offset 43"}},
      {"Count2To63", key(array(0, std::uint64_t{1} << 63, "x")), kCorrupt, {"key 'arr'"}},
      {"CountWraps", key(array(kU32, std::uint64_t{1} << 62, u32(7))), kCorrupt, {"key 'arr'"}},
      {"CountOneTooMany", key(array(kU32, 2, u32(7))), kCorrupt, {"2 elements", "4 more"}},
      {"StringsMinus1", key(array(kString, kHuge, text("a"))), kCorrupt, {"key 'arr'"}},
      {"StringsTooMany", key(array(kString, 2, text("abcdefgh"))), kCorrupt, {"key 'arr'"}},
      {"StringElementMinus1", key(array(kString, 1, u64(kHuge))), kCorrupt, {"array element"}},
      {"BoolTwo", key(array(kBool, 3, bools)), kCorrupt, {"key 'arr'", "offset 53", "holds 2"}},
      {"HeaderCut", key(u32(kU32) + "abc"), kCorrupt, {"key 'arr'", "length"}},
  };
}

std::vector<Case> alignment_cases() {
  const auto wrong_type = [](std::uint32_t type, const std::string& value) {
    return with_key(kv("general.alignment", type, value));
  };
  return {
      {"Zero", aligned(0), kCorrupt, {"general.alignment", "alignment 0 "}},
      {"One", aligned(1), kCorrupt, {"general.alignment"}},
      {"Four", aligned(4), kCorrupt, {"alignment 4 "}},
      {"Thirteen", aligned(13), kCorrupt, {"alignment 13 "}},
      {"TwoMiB", aligned(1U << 21), kCorrupt, {"alignment 2097152 "}},
      {"Max", aligned(0xFFFFFFFF), kCorrupt, {"general.alignment"}},
      {"AsU64", wrong_type(10, u64(32)), kCorrupt, {"general.alignment", "u32", "u64"}},
      {"AsI32", wrong_type(5, u32(32)), kCorrupt, {"i32"}},
      {"AsString", wrong_type(8, text("32")), kCorrupt, {"string"}},
      {"AsArray", wrong_type(9, array(kU32, 1, u32(32))), kCorrupt, {"array"}},
  };
}

std::vector<Case> tensor_cases() {
  const std::uint64_t two32 = std::uint64_t{1} << 32;
  const std::string long_name(64, 'n');
  return {
      {"NameEmpty", with_tensor(info("", {4}, kTypeF32, 0)), kCorrupt, {"tensor #0", "empty"}},
      {"NameTooLong", with_tensor(info(long_name, {4}, kTypeF32, 0)), kCorrupt, {"64", "63"}},
      {"NameMinus1", with_tensor(u64(kHuge)), kCorrupt, {"tensor #0", "offset 24"}},
      {"NameNotUtf8", with_tensor(info("w\xFF", {4}, 0, 0)), kCorrupt, {"w\\xff", "offset 33"}},
      {"NameTwice",
       with_tensors({info("w", {4}, kTypeF32, 0), info("w", {4}, kTypeF32, 32)}, 64),
       kCorrupt,
       {"tensor 'w'", "twice"}},
      {"NoDims", with_tensor(info("w", {}, kTypeF32, 0)), kCorrupt, {"'w'", "0 dimensions"}},
      {"FiveDims", with_tensor(info("w", {1, 1, 1, 1, 1}, 0, 0)), kCorrupt, {"5 dimensions"}},
      {"DimsMax", with_tensor(text("w") + u32(0xFFFFFFFF)), kCorrupt, {"tensor 'w'", "offset 33"}},
      {"DimZero", with_tensor(info("w", {4, 0}, kTypeF32, 0)), kCorrupt, {"dimension 1 is 0"}},
      {"DimMinus1", with_tensor(info("w", {kHuge}, kTypeF32, 0)), kCorrupt, {"tensor 'w'"}},
      {"ProductWrapsToZero", with_tensor(info("w", {two32, two32}, 0, 0)), kCorrupt, {"64 bits"}},
      {"Int64MaxTwice", with_tensor(info("w", {kInt64Max, 2, 2}, 0, 0)), kCorrupt, {"64 bits"}},
      {"Int64Max", with_tensor(info("w", {kInt64Max, 2}, 0, 0)), kCorrupt, {"bytes does not fit"}},
      {"BytesWrapToZero", with_tensor(info("w", {two32, two32 / 4}, 0, 0)), kCorrupt, {"'w'"}},
      {"BytesWrapQ4", with_tensor(info("w", {two32, two32 - 32}, 2, 0)), kCorrupt, {"'w'"}},
      {"TypeUnknown", with_tensor(info("w", {4}, 99, 0)), kCorrupt, {"'w'", "type 99"}},
      {"TypeNegative", with_tensor(info("w", {4}, 0x80000000, 0)), kCorrupt, {"2147483648"}},
      {"TypeQ4K", with_tensor(info("w", {256}, 12, 0), 144), kUnsupported, {"'w'", "Q4_K"}},
      {"TypeQ6K", with_tensor(info("w", {256}, 14, 0), 210), kUnsupported, {"Q6_K"}},
      {"TypeI32", with_tensor(info("w", {4}, 26, 0)), kUnsupported, {"I32"}},
      {"TypeRemoved", with_tensor(info("w", {32}, 4, 0)), kUnsupported, {"Q4_2"}},
      {"RowNotBlocks", with_tensor(info("w", {33}, kTypeQ4_0, 0)), kCorrupt, {"33", "Q4_0"}},
      {"RowNotBlocks2", with_tensor(info("w", {16, 2}, kTypeQ4_1, 0)), kCorrupt, {"16", "Q4_1"}},
      {"OffsetUnaligned", with_tensor(info("w", {4}, 0, 8)), kCorrupt, {"'w'", "alignment 32"}},
      {"OffsetBeyond", with_tensor(info("w", {4}, 0, 96)), kCorrupt, {"'w'", "beyond"}},
      {"OffsetWraps", with_tensor(info("w", {4}, 0, kHuge - 31)), kCorrupt, {"'w'", "beyond"}},
      {"OneByteShort", with_tensor(info("w", {4}, 0, 0), 15), kCorrupt, {"'w'", "beyond"}},
      {"DataMissing", with_tensor(info("w", {4}, 0, 0), 0), kCorrupt, {"'w'", "beyond"}},
      {"BiggerThanFile", with_tensor(info("w", {1U << 30}, 0, 0)), kCorrupt, {"4294967296 bytes"}},
      {"SameOffset",
       with_tensors({info("v", {8}, kTypeF32, 0), info("w", {8}, kTypeF32, 0)}, 64),
       kCorrupt,
       {"overlaps"}},
      {"OverlapByOne",
       with_tensors({info("w", {9}, kTypeF32, 0), info("v", {8}, kTypeF32, 32)}, 64),
       kCorrupt,
       {"tensor 'v'", "overlaps tensor 'w'"}},
      {"Contained",
       with_tensors({info("big", {64}, kTypeF32, 0), info("in", {4}, kTypeF32, 64)}, 256),
       kCorrupt,
       {"'in'", "'big'"}},
  };
}

void run(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    std::vector<std::string> fragments = c.fragments;
    fragments.insert(fragments.end(), {"f.gguf: ", "offset "});
    test::expect_error(c.code, fragments, [&] { GgufFile(test::as_bytes(c.bytes), "f.gguf"); });
  }
}

TEST(GgufHostile, Header) { run(header_cases()); }
TEST(GgufHostile, Keys) { run(key_cases()); }
TEST(GgufHostile, Arrays) { run(array_cases()); }
TEST(GgufHostile, Alignment) { run(alignment_cases()); }
TEST(GgufHostile, Tensors) { run(tensor_cases()); }

GgufBytes small_file() {
  return {.keys = {kv("general.architecture", kString, text("llama")), kv("n", kU32, u32(3)),
                   kv("flag", kBool, "\x01"),
                   kv("names", kArray, array(kString, 2, text("a") + text("bc"))),
                   kv("ids", kArray, array(kU32, 2, u32(1) + u32(2)))},
          .tensors = {info("a", {32, 2}, kTypeQ4_0, 0), info("b", {8}, kTypeF32, 64)},
          .data = std::string(96, '\x11')};
}

TEST(GgufHostile, CutAtEveryByte) {
  const std::string whole = small_file().bytes();
  ASSERT_NO_THROW(GgufFile(test::as_bytes(whole), "f.gguf"));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    SCOPED_TRACE(size);
    const std::string cut = whole.substr(0, size);
    test::expect_error(kCorrupt, {"f.gguf: ", "offset "},
                       [&] { GgufFile(test::as_bytes(cut), "f.gguf"); });
  }
}

// Nothing may be read outside the bytes and nothing else than Error thrown, whatever bit flips.
TEST(GgufHostile, EveryBitFlipIsAnErrorOrAFile) {
  const std::string whole = small_file().bytes();
  int refused = 0;
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string flipped = whole;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    const std::string exact(flipped.data(), flipped.size());
    try {
      GgufFile file(test::as_bytes(exact), "f.gguf");
      for (const auto& tensor : file.tensors()) {
        EXPECT_EQ(file.data(tensor).size(), tensor.bytes);
      }
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
}

TEST(GgufHostile, LimitsHoldAtTheLimitAndNotBeyond) {
  const auto open = [](const std::string& bytes, const GgufLimits& limits) {
    return GgufFile(test::as_bytes(bytes), "f.gguf", limits);
  };
  const std::string key = with_key(kv("abcd", kString, text("12345")));
  EXPECT_NO_THROW(open(key, {.max_keys = 1, .max_string_bytes = 5, .max_key_bytes = 4}));
  EXPECT_THROW(open(key, {.max_keys = 0}), Error);
  EXPECT_THROW(open(key, {.max_string_bytes = 4}), Error);
  EXPECT_THROW(open(key, {.max_key_bytes = 3}), Error);
  const std::string tensor = with_tensor(info("name", {4}, kTypeF32, 0));
  EXPECT_NO_THROW(open(tensor, {.max_tensors = 1, .max_tensor_name_bytes = 4}));
  EXPECT_THROW(open(tensor, {.max_tensors = 0}), Error);
  EXPECT_THROW(open(tensor, {.max_tensor_name_bytes = 3}), Error);
  EXPECT_NO_THROW(open(aligned(8), {}));
  EXPECT_NO_THROW(open(aligned(1U << 20), {}));
  EXPECT_NO_THROW(open(with_tensor(info(std::string(63, 'n'), {4}, kTypeF32, 0)), {}));
}

// Quadratic look for duplicates would take hours.
TEST(GgufHostile, AMillionKeysInSeconds) {
#if defined(__SANITIZE_THREAD__)
  constexpr std::uint64_t kKeys = 100'000;
#else
  constexpr std::uint64_t kKeys = 1'000'000;
#endif
  std::string bytes = "GGUF" + u32(3) + u64(0) + u64(kKeys);
  for (std::uint64_t i = 0; i < kKeys; ++i) {
    bytes += kv("k" + std::to_string(i), kU32, u32(1));
  }
  const auto begin = std::chrono::steady_clock::now();
  const GgufFile file(test::as_bytes(bytes), "f.gguf", {.max_keys = kKeys});
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(file.metadata().size(), kKeys);
  EXPECT_LT(took.count(), 20.0);
}

}  // namespace
}  // namespace nibble
