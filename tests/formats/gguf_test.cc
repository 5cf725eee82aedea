// SPDX-License-Identifier: Apache-2.0
#include "formats/gguf.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <chrono>
#include <fstream>
#include <limits>

#include "tests/formats/gguf_bytes.h"
#include "tests/support/expect_error.h"
#include "tests/support/paths.h"

namespace nibble {
namespace {

using formats::GgufFile;
using formats::GgufValueType;
using formats::GgufWriter;
using math::GgmlType;
using test::array;
using test::expect_error;
using test::GgufBytes;
using test::info;
using test::kv;
using test::le;
using test::text;

// One key of every type, named after it.
std::string every_type() {
  return GgufBytes{.keys = {kv("u8", 0, le<std::uint8_t>(200)), kv("i8", 1, le<std::int8_t>(-3)),
                            kv("u16", 2, le<std::uint16_t>(60000)),
                            kv("i16", 3, le<std::int16_t>(-300)), kv("u32", 4, test::u32(1U << 31)),
                            kv("i32", 5, le<std::int32_t>(-70000)), kv("f32", 6, le(0.1F)),
                            kv("bool", 7, le<std::uint8_t>(1)), kv("string", 8, text("text")),
                            kv("array", 9, array(5, 2, le(1) + le(-2))),
                            kv("u64", 10, test::u64(1ULL << 63)),
                            kv("i64", 11, le<std::int64_t>(-5)), kv("f64", 12, le(0.1))}}
      .bytes();
}

TEST(Gguf, ReadsEveryValueType) {
  const std::string bytes = every_type();
  const GgufFile file(test::as_bytes(bytes), "f.gguf");
  const auto value = [&](const char* key) { return file.find(key)->value; };
  EXPECT_EQ(std::get<std::uint64_t>(value("u8")), 200U);
  EXPECT_EQ(std::get<std::int64_t>(value("i8")), -3);
  EXPECT_EQ(std::get<std::uint64_t>(value("u16")), 60000U);
  EXPECT_EQ(std::get<std::int64_t>(value("i16")), -300);
  EXPECT_EQ(file.u32("u32"), 1U << 31);
  EXPECT_EQ(std::get<std::int64_t>(value("i32")), -70000);
  EXPECT_EQ(file.f32("f32"), 0.1F);
  EXPECT_TRUE(file.boolean_or("bool", false));
  EXPECT_EQ(file.string("string"), "text");
  EXPECT_EQ(std::get<std::uint64_t>(value("u64")), 1ULL << 63);
  EXPECT_EQ(std::get<std::int64_t>(value("i64")), -5);
  EXPECT_EQ(std::get<double>(value("f64")), 0.1);
  const auto& integers = file.array("array", GgufValueType::kI32);
  EXPECT_EQ(integers.count, 2U);
  EXPECT_EQ(math::load_unaligned<std::int32_t>(integers.bytes.data() + 4), -2);
}

// No getter casts: u32 of a u64 is an error, and so is each other pair.
TEST(Gguf, GettersRefuseEveryOtherType) {
  const std::string bytes = every_type();
  const GgufFile file(test::as_bytes(bytes), "f.gguf");
  for (const auto& entry : file.metadata()) {
    const std::string key(entry.key);
    SCOPED_TRACE(key);
    const std::vector<std::string> message = {"f.gguf", "'" + key + "'", "offset"};
    const auto refuses = [&](const char* accepted, auto&& get) {
      if (key == accepted) {
        EXPECT_NO_THROW(get());
      } else {
        expect_error(StatusCode::kCorrupt, message, get);
      }
    };
    refuses("u32", [&] { file.u32(key); });
    refuses("u32", [&] { file.u32_or(key, 1); });
    refuses("f32", [&] { file.f32(key); });
    refuses("f32", [&] { file.f32_or(key, 1); });
    refuses("bool", [&] { file.boolean_or(key, true); });
    refuses("string", [&] { file.string(key); });
    refuses("string", [&] { file.string_or(key, ""); });
    refuses("array", [&] { file.array(key, GgufValueType::kI32); });
  }
  expect_error(StatusCode::kCorrupt, {"'array'", "array of f32", "one of i32"},
               [&] { file.array("array", GgufValueType::kF32); });
}

TEST(Gguf, AbsentKeysFailOrFallBack) {
  const std::string bytes = every_type();
  const GgufFile file(test::as_bytes(bytes), "f.gguf");
  expect_error(StatusCode::kCorrupt, {"f.gguf", "'no'", "missing"}, [&] { file.u32("no"); });
  expect_error(StatusCode::kCorrupt, {"'no'"}, [&] { file.f32("no"); });
  expect_error(StatusCode::kCorrupt, {"'no'"}, [&] { file.string("no"); });
  expect_error(StatusCode::kCorrupt, {"'no'"}, [&] { file.array("no", GgufValueType::kU8); });
  EXPECT_EQ(file.u32_or("no", 7), 7U);
  EXPECT_EQ(file.f32_or("no", 2.5F), 2.5F);
  EXPECT_TRUE(file.boolean_or("no", true));
  EXPECT_EQ(file.string_or("no", "x"), "x");
  EXPECT_FALSE(file.has("no"));
  EXPECT_EQ(file.find_tensor("no"), nullptr);
}

TEST(Gguf, FloatMetadataMustBeFinite) {
  for (const float bad :
       {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::quiet_NaN()}) {
    const std::string bytes = GgufBytes{.keys = {kv("eps", 6, le(bad))}}.bytes();
    const GgufFile file(test::as_bytes(bytes), "f.gguf");
    expect_error(StatusCode::kCorrupt, {"'eps'", "offset 24", "not finite"},
                 [&] { file.f32("eps"); });
  }
}

// check_weights: each type, each of its floats, in the first and the last block.
TEST(Gguf, CheckWeightsNamesTensorAndBlock) {
  struct Poison {
    std::uint32_t type;
    std::size_t byte;  // in the block
    std::string bytes;
  };
  const std::string inf16("\x00\x7C", 2), nan16("\x01\xFE", 2), inf_bf16("\x80\x7F", 2);
  const std::vector<Poison> poisons = {{0, 0, le(std::numeric_limits<float>::quiet_NaN())},
                                       {1, 0, inf16},
                                       {2, 0, nan16},
                                       {3, 0, inf16},
                                       {3, 2, nan16},
                                       {8, 0, inf16},
                                       {30, 0, inf_bf16}};
  for (const Poison& poison : poisons) {
    const math::GgmlTypeInfo& type = *math::ggml_type_info(poison.type);
    constexpr std::size_t kBlocks = 70'000;  // more than one chunk of the parallel loop
    for (const std::size_t block : {std::size_t{0}, std::size_t{1}, kBlocks - 1}) {
      SCOPED_TRACE(std::string(type.name) + " block " + std::to_string(block));
      GgufBytes file{.keys = {},
                     .tensors = {info("w", {type.block_elements, kBlocks}, poison.type, 0)},
                     .data = std::string(kBlocks * type.block_bytes, '\x01')};
      const std::string good = file.bytes();
      EXPECT_NO_THROW(GgufFile(test::as_bytes(good), "f.gguf").check_weights());
      file.data.replace(block * type.block_bytes + poison.byte, poison.bytes.size(), poison.bytes);
      const std::string bad = file.bytes();
      expect_error(StatusCode::kCorrupt,
                   {"f.gguf", "tensor 'w'", "block " + std::to_string(block) + " ", type.name,
                    "offset " + std::to_string(bad.size() - (kBlocks - block) * type.block_bytes)},
                   [&] { GgufFile(test::as_bytes(bad), "f.gguf").check_weights(); });
    }
  }
}

RC_GTEST_PROP(Gguf, WhatIsWrittenIsReadBack, ()) {
  const auto names = *rc::gen::unique<std::vector<std::string>>(
      rc::gen::map(rc::gen::inRange(0, 100000), [](int i) { return "t" + std::to_string(i); }));
  const auto strings = *rc::gen::arbitrary<std::vector<std::string>>();
  const auto integers = *rc::gen::arbitrary<std::vector<std::int32_t>>();
  const auto number = *rc::gen::arbitrary<std::uint32_t>();
  const bool flag = *rc::gen::arbitrary<bool>();

  GgufWriter writer;
  writer.add_string_array("strings", strings);
  writer.add_i32_array("integers", integers);
  writer.add_u32("number", number);
  writer.add_bool("flag", flag);
  writer.add_f32("real", 0.25F);
  struct Expected {
    GgmlType type;
    std::vector<std::uint64_t> dims;
    std::string data;
  };
  std::vector<Expected> expected;
  expected.reserve(names.size());
  for (const std::string& name : names) {
    const auto& type = *rc::gen::elementOf(
        std::vector<math::GgmlTypeInfo>(std::begin(math::kGgmlTypes), std::end(math::kGgmlTypes)));
    std::vector<std::uint64_t> dims = *rc::gen::container<std::vector<std::uint64_t>>(
        *rc::gen::inRange<std::size_t>(1, 5), rc::gen::inRange<std::uint64_t>(1, 4));
    std::uint64_t blocks = 1;
    for (const std::uint64_t dim : dims) {
      blocks *= dim;
    }
    dims[0] *= type.block_elements;
    expected.push_back(
        {type.type, dims,
         *rc::gen::container<std::string>(blocks * type.block_bytes, rc::gen::arbitrary<char>())});
    writer.add_tensor(name, type.type, dims, test::as_bytes(expected.back().data));
  }
  const test::TemporaryDirectory directory;
  writer.write(directory.path() / "f.gguf");
  const GgufFile file(directory.path() / "f.gguf");

  RC_ASSERT(file.u32("number") == number);
  RC_ASSERT(file.boolean_or("flag", !flag) == flag);
  RC_ASSERT(file.f32("real") == 0.25F);
  const auto& read = file.array("strings", GgufValueType::kString).strings;
  RC_ASSERT(std::vector<std::string>(read.begin(), read.end()) == strings);
  const auto& stored = file.array("integers", GgufValueType::kI32);
  RC_ASSERT(stored.count == integers.size());
  const auto written = std::as_bytes(std::span(integers));
  RC_ASSERT(std::equal(stored.bytes.begin(), stored.bytes.end(), written.begin(), written.end()));
  RC_ASSERT(file.tensors().size() == names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto* tensor = file.find_tensor(names[i]);
    RC_ASSERT(tensor != nullptr);
    RC_ASSERT(tensor->type == expected[i].type);
    RC_ASSERT(tensor->n_dims == expected[i].dims.size());
    RC_ASSERT(std::equal(expected[i].dims.begin(), expected[i].dims.end(), tensor->dims.begin()));
    RC_ASSERT(tensor->offset % 32 == 0U);
    const auto data = file.data(*tensor);
    RC_ASSERT(std::string(reinterpret_cast<const char*>(data.data()), data.size()) ==
              expected[i].data);
  }
}

TEST(Gguf, WriterRefusesWhatReadersWould) {
  GgufWriter writer;
  const std::string four(16, '\0');
  const auto add = [&](const char* name, GgmlType type, std::vector<std::uint64_t> dims) {
    writer.add_tensor(name, type, std::move(dims), test::as_bytes(four));
  };
  constexpr StatusCode kInvalid = StatusCode::kInvalidArgument;
  writer.add_u32("a", 1);
  expect_error(kInvalid, {"'a'", "twice"}, [&] { writer.add_bool("a", true); });
  expect_error(kInvalid, {"key"}, [&] { writer.add_u32("", 1); });
  expect_error(kInvalid, {"key"}, [&] { writer.add_u32("\xFF", 1); });
  expect_error(kInvalid, {"general.alignment"}, [&] { writer.add_u32("general.alignment", 64); });
  expect_error(kInvalid, {"'e'", "finite"},
               [&] { writer.add_f32("e", std::numeric_limits<float>::infinity()); });
  add("w", GgmlType::kF32, {4});
  expect_error(kInvalid, {"'w'", "twice"}, [&] { add("w", GgmlType::kF32, {4}); });
  expect_error(kInvalid, {"'v'"}, [&] { add("v", GgmlType::kF32, {5}); });
  expect_error(kInvalid, {"'v'"}, [&] { add("v", GgmlType::kF32, {}); });
  expect_error(kInvalid, {"'v'"}, [&] { add("v", GgmlType::kF32, {4, 0}); });
  expect_error(kInvalid, {"'v'", "Q4_0"}, [&] { add("v", GgmlType::kQ4_0, {4}); });
  expect_error(kInvalid, {"'v'"}, [&] { add("v", GgmlType::kF32, {1ULL << 32, 1ULL << 32}); });
  expect_error(kInvalid, {"63"}, [&] { add(std::string(64, 'n').c_str(), GgmlType::kF32, {4}); });
  // A refused tensor or key leaves no trace.
  const test::TemporaryDirectory directory;
  writer.write(directory.path() / "f.gguf");
  const GgufFile file(directory.path() / "f.gguf");
  EXPECT_EQ(file.metadata().size(), 1U);
  EXPECT_EQ(file.tensors().size(), 1U);
}

TEST(Gguf, ReadsTheRealModel) {
  const auto path = test::real_model();
  if (!path) {
    GTEST_SKIP() << "no model: set NIBBLE_TEST_MODEL";
  }
  const auto begin = std::chrono::steady_clock::now();
  const GgufFile file(*path);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(took.count(), 1.0);  // 2 ms warm; sanitizers and a cold disk need more
  EXPECT_EQ(file.metadata().size(), 33U);
  EXPECT_EQ(file.tensors().size(), 272U);
  EXPECT_EQ(file.string("general.architecture"), "llama");
  EXPECT_EQ(file.u32("llama.attention.head_count_kv"), 3U);
  EXPECT_EQ(file.f32("llama.attention.layer_norm_rms_epsilon"), 1e-5F);
  EXPECT_EQ(file.array("tokenizer.ggml.tokens", GgufValueType::kString).strings[1], "<|im_start|>");
  EXPECT_EQ(file.array("tokenizer.ggml.merges", GgufValueType::kString).count, 48900U);
  const auto* embedding = file.find_tensor("token_embd.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding->type, GgmlType::kQ8_0);
  EXPECT_EQ(embedding->bytes, 30'081'024U);
  EXPECT_EQ(embedding->rows(), 49152U);
  EXPECT_NO_THROW(file.check_weights());
}

}  // namespace
}  // namespace nibble
