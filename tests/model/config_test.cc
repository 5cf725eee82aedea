// SPDX-License-Identifier: Apache-2.0
// What a model file lacks, has wrong, or asks beyond us is refused, naming the file and the key or
// tensor; what asks for nothing is let through.
#include "model/config.h"

#include <gtest/gtest.h>

#include <functional>

#include "support/error_of.h"
#include "support/paths.h"
#include "support/tiny_model.h"

namespace nibble::test {
namespace {

using Change = std::function<void(TinyModel&)>;

TinyShape shape() {
  TinyShape s;
  s.type = GgmlType::kQ8_0;
  return s;
}

Error error_from(const Change& change) {
  const TemporaryDirectory directory;
  TinyModel tiny(shape());
  change(tiny);
  tiny.write(directory.path() / "tiny.gguf");
  const formats::GgufFile file(directory.path() / "tiny.gguf");
  return error_of([&] { model::read_weights(file, model::read_config(file)); });
}

struct Refusal {
  const char* name;
  Change change;
  StatusCode code;
  std::vector<std::string> says;
};

void PrintTo(const Refusal& refusal, std::ostream* out) { *out << refusal.name; }

class Refused : public testing::TestWithParam<Refusal> {};

TEST_P(Refused, NamesFileAndPlace) {
  const Error error = error_from(GetParam().change);
  EXPECT_EQ(error.code(), GetParam().code) << error.what();
  EXPECT_TRUE(mentions(error, "tiny.gguf")) << error.what();
  for (const std::string& part : GetParam().says) {
    EXPECT_TRUE(mentions(error, part)) << error.what() << "\n  does not say " << part;
  }
}

Change set(const char* key, TinyModel::Key value) {
  return [=](TinyModel& tiny) { tiny.keys[key] = value; };
}
Change without_key(const char* key) {
  return [=](TinyModel& tiny) { ASSERT_EQ(tiny.keys.erase(key), 1U); };
}
Change without_tensor(const char* name) {
  return [=](TinyModel& tiny) { ASSERT_EQ(tiny.tensors.erase(name), 1U); };
}
Change with_tensor(const char* name, GgmlType type, std::vector<std::uint64_t> dims) {
  return [=](TinyModel& tiny) {
    std::size_t elements = 1;
    for (const std::uint64_t dim : dims) {
      elements *= dim;
    }
    tiny.add(name, type, dims, std::vector<double>(elements, 0.5));
  };
}

constexpr StatusCode kCorrupt = StatusCode::kCorrupt, kUnsupported = StatusCode::kUnsupported;

INSTANTIATE_TEST_SUITE_P(
    Keys, Refused,
    testing::Values(
        Refusal{"architecture",
                set("general.architecture", "qwen2"),
                kUnsupported,
                {"general.architecture", "qwen2", "llama"}},
        Refusal{"no_architecture",
                without_key("general.architecture"),
                kCorrupt,
                {"general.architecture", "missing"}},
        Refusal{"no_layers",
                without_key("llama.block_count"),
                kCorrupt,
                {"llama.block_count", "missing"}},
        Refusal{"zero_layers", set("llama.block_count", 0U), kCorrupt, {"llama.block_count"}},
        Refusal{"huge_width",
                set("llama.embedding_length", 1U << 30),
                kCorrupt,
                {"llama.embedding_length", "1073741824", "offset"}},
        Refusal{"type", set("llama.block_count", "two"), kCorrupt, {"llama.block_count"}},
        Refusal{"heads",
                set("llama.attention.head_count_kv", 3U),
                kCorrupt,
                {"llama.attention.head_count_kv", "3", "4"}},
        Refusal{"heads_of_width",
                [](TinyModel& tiny) {
                  tiny.keys.erase("llama.attention.key_length");
                  tiny.keys["llama.attention.head_count"] = 6U;  // of a width of 32
                },
                kCorrupt,
                {"llama.attention.head_count", "6", "32"}},
        Refusal{"value_length",
                set("llama.attention.value_length", 16U),
                kUnsupported,
                {"llama.attention.value_length", "16", "8"}},
        Refusal{"partial_rope",
                set("llama.rope.dimension_count", 4U),
                kUnsupported,
                {"llama.rope.dimension_count", "4", "8"}},
        Refusal{"rope_scaling",
                set("llama.rope.scaling.type", "yarn"),
                kUnsupported,
                {"llama.rope.scaling.type", "offset"}},
        Refusal{"rope_factor",
                set("llama.rope.scaling.factor", 4.0F),
                kUnsupported,
                {"llama.rope.scaling.factor"}},
        Refusal{"sliding_window",
                set("llama.attention.sliding_window", 512U),
                kUnsupported,
                {"llama.attention.sliding_window"}},
        Refusal{"experts", set("llama.expert_count", 8U), kUnsupported, {"llama.expert_count"}},
        Refusal{"logit_scale", set("llama.logit_scale", 0.5F), kUnsupported, {"llama.logit_scale"}},
        Refusal{"split", set("split.count", 2U), kUnsupported, {"split.count"}},
        Refusal{"epsilon",
                set("llama.attention.layer_norm_rms_epsilon", 0.0F),
                kCorrupt,
                {"llama.attention.layer_norm_rms_epsilon"}},
        Refusal{"no_epsilon",
                without_key("llama.attention.layer_norm_rms_epsilon"),
                kCorrupt,
                {"llama.attention.layer_norm_rms_epsilon"}},
        Refusal{
            "rope_base", set("llama.rope.freq_base", -1.0F), kCorrupt, {"llama.rope.freq_base"}},
        Refusal{"vocabulary",
                set("llama.vocab_size", 51U),
                kCorrupt,
                {"llama.vocab_size", "51", "50"}}),
    [](const auto& info) { return std::string(info.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Tensors, Refused,
    testing::Values(Refusal{"no_embedding",
                            without_tensor("token_embd.weight"),
                            kCorrupt,
                            {"token_embd.weight", "missing"}},
                    Refusal{"no_norm",
                            without_tensor("blk.1.ffn_norm.weight"),
                            kCorrupt,
                            {"blk.1.ffn_norm.weight", "missing"}},
                    Refusal{"no_final_norm",
                            without_tensor("output_norm.weight"),
                            kCorrupt,
                            {"output_norm.weight", "missing"}},
                    Refusal{"no_linear",
                            without_tensor("blk.1.attn_k.weight"),
                            kCorrupt,
                            {"blk.1.attn_k.weight", "missing"}},
                    Refusal{"shape",
                            with_tensor("blk.0.ffn_up.weight", GgmlType::kQ8_0, {64, 32}),
                            kCorrupt,
                            {"blk.0.ffn_up.weight", "[64, 32]", "[32, 64]", "offset"}},
                    Refusal{"dimensions",
                            with_tensor("blk.0.attn_q.weight", GgmlType::kF32, {32, 16, 2}),
                            kCorrupt,
                            {"blk.0.attn_q.weight"}},
                    Refusal{"norm_shape",
                            with_tensor("blk.0.attn_norm.weight", GgmlType::kF32, {31}),
                            kCorrupt,
                            {"blk.0.attn_norm.weight", "31", "32"}},
                    Refusal{"quantised_norm",
                            with_tensor("output_norm.weight", GgmlType::kQ8_0, {32}),
                            kUnsupported,
                            {"output_norm.weight", "Q8_0"}},
                    Refusal{"embedding_width",
                            with_tensor("token_embd.weight", GgmlType::kQ8_0, {64, 50}),
                            kCorrupt,
                            {"token_embd.weight"}},
                    Refusal{"head_rows",
                            with_tensor("output.weight", GgmlType::kF32, {32, 49}),
                            kCorrupt,
                            {"output.weight", "49", "50"}},
                    Refusal{"rope_factors",
                            with_tensor("rope_freqs.weight", GgmlType::kF32, {4}),
                            kUnsupported,
                            {"rope_freqs.weight", "offset"}},
                    Refusal{"bias",
                            with_tensor("blk.0.attn_q.bias", GgmlType::kF32, {32}),
                            kUnsupported,
                            {"blk.0.attn_q.bias", "offset"}},
                    Refusal{"norm_of_queries",
                            with_tensor("blk.1.attn_q_norm.weight", GgmlType::kF32, {8}),
                            kUnsupported,
                            {"blk.1.attn_q_norm.weight"}},
                    Refusal{"another_layer",
                            with_tensor("blk.2.attn_norm.weight", GgmlType::kF32, {32}),
                            kUnsupported,
                            {"blk.2.attn_norm.weight"}}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(Accepted, KeysThatAskForNothing) {
  const Error error = error_from([](TinyModel& tiny) {
    tiny.keys["llama.rope.scaling.type"] = "none";
    tiny.keys["llama.rope.scaling.factor"] = 1.0F;
    tiny.keys["llama.attention.sliding_window"] = 0U;
    tiny.keys["llama.expert_count"] = 0U;
    tiny.keys["llama.attention.value_length"] = 8U;  // a head's dimension: converters write it
    tiny.keys["split.count"] = 1U;
    tiny.keys["general.something"] = "else";
    tiny.keys.erase("llama.vocab_size");
    tiny.keys.erase("llama.rope.freq_base");
  });
  EXPECT_EQ(error.code(), StatusCode::kOk) << error.what();
}

TEST(Accepted, TokenizerListMustMatchTheEmbedding) {
  const TemporaryDirectory directory;
  for (const std::size_t count : {50U, 49U}) {
    TinyModel(shape()).write(directory.path() / "tiny.gguf", [&](formats::GgufWriter& writer) {
      writer.add_string_array("tokenizer.ggml.tokens", std::vector<std::string>(count, "a"));
    });
    const formats::GgufFile file(directory.path() / "tiny.gguf");
    const Error error = error_of([&] { model::read_config(file); });
    EXPECT_EQ(error.code(), count == 50 ? StatusCode::kOk : kCorrupt) << error.what();
    EXPECT_EQ(mentions(error, "tokenizer.ggml.tokens"), count != 50) << error.what();
  }
}

TEST(Config, IsWhatTheFileSays) {
  TinyShape s = shape();
  s.tied = false;
  s.width = 64;
  const TemporaryDirectory directory;
  TinyModel tiny(s);
  tiny.keys.erase("llama.attention.key_length");
  tiny.keys["llama.rope.dimension_count"] = 16U;
  tiny.keys["llama.rope.freq_base"] = 123.0F;
  tiny.write(directory.path() / "tiny.gguf");
  const formats::GgufFile file(directory.path() / "tiny.gguf");
  const model::LlamaConfig config = model::read_config(file);
  EXPECT_EQ(config.layers, 2);
  EXPECT_EQ(config.width, 64);
  EXPECT_EQ(config.feed_forward, 64);
  EXPECT_EQ(config.heads, 4);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_dim, 16);  // width / heads
  EXPECT_EQ(config.vocabulary, 50);
  EXPECT_EQ(config.context, 512);
  EXPECT_EQ(config.rms_epsilon, 1e-5F);
  EXPECT_EQ(config.rope_base, 123.0F);
}

}  // namespace
}  // namespace nibble::test
