// SPDX-License-Identifier: Apache-2.0
// Misuse of parameters: formats by pattern, add_param, bind, what a parameter got.
#include <cmath>

#include "support/misuse.h"

namespace nibble::test {
namespace {

constexpr std::int64_t kShape[] = {8, 8};

class Params : public UsedOptimizer {
 protected:
  nibble_status add(const nibble_param_desc& desc) {
    return nibble_optimizer_add_param(opt(), &desc, &index_, &bytes_);
  }
  static nibble_param_desc named(const char* name) {
    auto desc = api::make<nibble_param_desc>();
    desc.name = name, desc.n_dims = 2, desc.shape = kShape;
    return desc;
  }
  std::int64_t index_ = -7;
  std::uint64_t bytes_ = 77;
};

TEST_F(Params, DescriptorsAreChecked) {
  expect_sizes_checked(named("w"), [&](const nibble_param_desc* d) {
    return nibble_optimizer_add_param(opt(), d, &index_, &bytes_);
  });
  const auto good = named("w");
  refused(nibble_optimizer_add_param(nullptr, &good, nullptr, nullptr), NIBBLE_INVALID_ARGUMENT,
          "opt is null");
  auto desc = named(nullptr);
  refused(add(desc), NIBBLE_INVALID_ARGUMENT, "name is null");
  desc = named("first");
  refused(add(desc), NIBBLE_INVALID_ARGUMENT, "\"first\" was added before");
  desc = named("w"), desc.reserved = 1;
  refused(add(desc), NIBBLE_UNSUPPORTED, "parameter descriptor: reserved is 1, 0 expected");
  desc = named("w"), desc.shape = nullptr;
  refused(add(desc), NIBBLE_INVALID_ARGUMENT, "shape is null");
  desc = named("w"), desc.n_dims = UINT32_MAX;
  refused(add(desc), NIBBLE_INVALID_ARGUMENT, "n_dims is 4294967295");
  desc = named("w"), desc.weight_format = "BF16";
  refused(add(desc), NIBBLE_UNSUPPORTED, "\"w\": unknown weight format \"BF16\"");
  desc = named("w"), desc.state_format = "int5";
  refused(add(desc), NIBBLE_UNSUPPORTED, "\"w\": unknown state format \"int5\"");
  desc = named("w"), desc.state_format = "exp_avg=int8,variance=int8";
  refused(add(desc), NIBBLE_UNSUPPORTED, "has no state \"variance\"");
  desc = named("w"), desc.grad_dtype = "F16";
  refused(add(desc), NIBBLE_UNSUPPORTED, "\"w\": gradients of dtype \"F16\"");
  for (const std::int64_t group : {std::int64_t{1}, std::int64_t{-1}, INT64_MAX}) {
    desc = named("w"), desc.group = group;
    refused(add(desc), NIBBLE_INVALID_ARGUMENT, "no group " + std::to_string(group));
  }
  EXPECT_EQ(index_, -7) << "an out parameter of a failing call was written";
  EXPECT_EQ(bytes_, 77U);
  EXPECT_EQ(add(named("w")), NIBBLE_OK);
  EXPECT_EQ(index_, 2);
  EXPECT_EQ(bytes_, 64U * 2 + 2 * 4);
}

TEST_F(Params, ShapesAreChecked) {
  const auto with = [&](std::vector<std::int64_t> shape, const char* format = "fp32") {
    auto desc = named("w");
    desc.n_dims = static_cast<std::uint32_t>(shape.size());
    desc.shape = shape.empty() ? nullptr : shape.data();
    desc.state_format = format;
    return add(desc);
  };
  refused(with({-4}), NIBBLE_INVALID_ARGUMENT, "negative extent -4");
  refused(with({0, -1}), NIBBLE_INVALID_ARGUMENT, "negative extent -1");
  refused(with({INT64_MAX, 3}), NIBBLE_INVALID_ARGUMENT, "\"w\": too many elements");
  refused(with({1LL << 32, 1LL << 32}), NIBBLE_INVALID_ARGUMENT, "too many elements");
  refused(with({INT64_MAX}), NIBBLE_INVALID_ARGUMENT, "too many elements");
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they abort on such sizes
  refused(with({INT64_MAX / 32}), NIBBLE_OUT_OF_MEMORY, "memory");
  refused(with({INT64_MAX / 32}, "int4"), NIBBLE_OUT_OF_MEMORY, "memory");
#endif
  ASSERT_EQ(with({}), NIBBLE_OK) << nibble_last_error();
  EXPECT_EQ(optimizer_.info(2).count, 1);
  auto empty = named("empty");
  const std::int64_t nothing[] = {0, 5};
  empty.shape = nothing, empty.state_format = "int8";
  ASSERT_EQ(add(empty), NIBBLE_OK) << nibble_last_error();
  EXPECT_EQ(optimizer_.info(3).count, 0);
}

TEST(MisuseOfParams, MatrixRulesRefuseVectors) {
  auto desc = api::make<nibble_optimizer_desc>();
  desc.rule = "muon";
  api::Optimizer opt(desc);
  float weight[4] = {};
  auto param = api::make<nibble_param_desc>();
  const std::int64_t shape[] = {4};
  param.name = "bias", param.n_dims = 1, param.shape = shape;
  expect_failure(nibble_optimizer_add_param(opt.get(), &param, nullptr, nullptr),
                 NIBBLE_UNSUPPORTED, "\"bias\": rule \"muon\" is for matrices");
  param.group = opt.add_group({}, "adamw");
  EXPECT_EQ(nibble_optimizer_add_param(opt.get(), &param, nullptr, nullptr), NIBBLE_OK);
  opt.bind(0, weight);
}

TEST_F(Params, FormatsByPattern) {
  const auto set = [&](const char* pattern, const char* format) {
    return nibble_optimizer_set_format(opt(), pattern, format);
  };
  refused(nibble_optimizer_set_format(nullptr, "*", "fp32"), NIBBLE_INVALID_ARGUMENT, "opt");
  refused(set(nullptr, "fp32"), NIBBLE_INVALID_ARGUMENT, "pattern is null");
  refused(set("*", nullptr), NIBBLE_INVALID_ARGUMENT, "state_format is null");
  refused(set("*", "int7"), NIBBLE_UNSUPPORTED, "pattern \"*\": unknown state format \"int7\"");
  refused(set("*", "x=int8"), NIBBLE_UNSUPPORTED, "no state \"x\"");
  ASSERT_EQ(set("*", "fp8"), NIBBLE_OK);
  ASSERT_EQ(add(named("w")), NIBBLE_OK);
  EXPECT_STREQ(optimizer_.info(2).state_format, "fp8") << "the refused patterns were kept";

  // By state: what counts is the rule of the parameter, not that of group 0.
  auto momentum = named("momentum");
  momentum.group = optimizer_.add_group({}, "sgd");
  ASSERT_EQ(set("mom*", "momentum_buffer=int8"), NIBBLE_OK) << nibble_last_error();
  expect_failure(
      add(named("moments")), NIBBLE_UNSUPPORTED,
      "parameter \"moments\": state format \"momentum_buffer=int8\": rule \"adamw\" has");
  ASSERT_EQ(add(momentum), NIBBLE_OK) << nibble_last_error();
  EXPECT_STREQ(optimizer_.info(3).state_format, "int8");
  auto other = named("other");
  other.group = momentum.group, other.state_format = "exp_avg=int8";
  expect_failure(add(other), NIBBLE_UNSUPPORTED, "rule \"sgd\" has no state \"exp_avg\"");

  api::Optimizer bnb(adamw_desc("int8", "bnb"));
  expect_failure(nibble_optimizer_set_format(bnb.get(), "a?", "int4"), NIBBLE_UNSUPPORTED,
                 "pattern \"a?\": mode \"bnb\"");
}

TEST_F(Params, Binding) {
  float other[64] = {};
  float scales[4] = {};
  for (const std::int64_t param : {std::int64_t{2}, std::int64_t{-1}, INT64_MIN, INT64_MAX}) {
    refused(nibble_optimizer_bind(opt(), param, other), NIBBLE_INVALID_ARGUMENT,
            "no parameter " + std::to_string(param) + ": there are 2");
    refused(nibble_optimizer_bind_quantized(opt(), param, other, scales), NIBBLE_INVALID_ARGUMENT,
            "no parameter");
  }
  refused(nibble_optimizer_bind(nullptr, 0, other), NIBBLE_INVALID_ARGUMENT, "opt is null");
  refused(nibble_optimizer_bind(opt(), 0, nullptr), NIBBLE_INVALID_ARGUMENT, "weights is null");
  refused(nibble_optimizer_bind_quantized(nullptr, 0, other, scales), NIBBLE_INVALID_ARGUMENT,
          "opt is null");
  refused(nibble_optimizer_bind_quantized(opt(), 0, other, nullptr), NIBBLE_INVALID_ARGUMENT,
          "scales is null");
  refused(nibble_optimizer_bind_quantized(opt(), 0, other, scales), NIBBLE_INVALID_ARGUMENT,
          "\"first\"): weights \"fp32\" have no scales: bind");
  // The weights that were bound before still are.
  EXPECT_TRUE(optimizer_.step({grads_.data(), grads_.data() + 64}));
  EXPECT_NE(weights_, weights_before_);
  EXPECT_EQ(other[0], 0.0F);

  auto desc = named("codes");
  desc.weight_format = "int8_stochastic";
  ASSERT_EQ(add(desc), NIBBLE_OK);
  expect_failure(nibble_optimizer_bind(opt(), 2, other), NIBBLE_INVALID_ARGUMENT,
                 "weights \"int8_stochastic\" have scales: bind_quantized");
  expect_failure(nibble_optimizer_bind_quantized(opt(), 2, nullptr, scales),
                 NIBBLE_INVALID_ARGUMENT, "is null");
}

TEST_F(Params, Infos) {
  expect_info_sizes_checked<nibble_param_info>(
      [&](nibble_param_info* info) { return nibble_optimizer_param_info(opt(), 0, info); });
  auto info = api::make<nibble_param_info>();
  refused(nibble_optimizer_param_info(nullptr, 0, &info), NIBBLE_INVALID_ARGUMENT, "opt is null");
  refused(nibble_optimizer_param_info(opt(), 2, &info), NIBBLE_INVALID_ARGUMENT, "no parameter 2");
  refused(nibble_optimizer_param_info(opt(), -1, &info), NIBBLE_INVALID_ARGUMENT, "parameter -1");
  EXPECT_EQ(info.name, nullptr);
  std::int64_t count = -7;
  refused(nibble_optimizer_param_count(nullptr, &count), NIBBLE_INVALID_ARGUMENT, "opt is null");
  refused(nibble_optimizer_param_count(opt(), nullptr), NIBBLE_INVALID_ARGUMENT, "out is null");
  EXPECT_EQ(count, -7);
  std::uint64_t bytes = 77;
  refused(nibble_optimizer_workspace_bytes(nullptr, &bytes), NIBBLE_INVALID_ARGUMENT, "opt");
  refused(nibble_optimizer_workspace_bytes(opt(), nullptr), NIBBLE_INVALID_ARGUMENT, "out");
  EXPECT_EQ(bytes, 77U);
  EXPECT_EQ(nibble_optimizer_workspace_bytes(opt(), &bytes), NIBBLE_OK);
  EXPECT_EQ(bytes, 0U) << "adamw needs none";
}

// "strings live as long as the optimizer": also short ones, whatever is added later.
TEST_F(Params, InfoStringsStay) {
  const nibble_param_info info = optimizer_.info(0);
  const nibble_state_info state = optimizer_.state(0, 0);
  std::vector<float> weights(64);
  for (int i = 0; i < 300; ++i) {
    optimizer_.add("p" + std::to_string(i), {64}, weights.data());
  }
  EXPECT_EQ(optimizer_.info(0).name, info.name);
  EXPECT_STREQ(info.name, "first");
  EXPECT_STREQ(info.state_format, "int8");
  EXPECT_STREQ(info.reason, "asked for this parameter");
  EXPECT_STREQ(info.placement, "host");
  EXPECT_STREQ(state.name, "exp_avg");
  EXPECT_EQ(optimizer_.state(0, 0).data, state.data);
}

TEST(ParamInfo, TellsWhatATensorReallyGot) {
  nibble_optimizer_desc desc = adamw_desc("int8");
  desc.min_quantized_elements = 0;  // the default, 4096
  api::Optimizer opt(desc);
  std::vector<float> weights(8192);
  opt.add("small", {4095}, weights.data());
  opt.add("large", {4, 2048}, weights.data());
  opt.add("forced", {100}, weights.data(), "int8");
  opt.add("model.LayerNorm.weight", {8192}, weights.data());
  EXPECT_STREQ(opt.info(0).state_format, "fp32");
  EXPECT_NE(std::string(opt.info(0).reason).find("4096"), std::string::npos);
  EXPECT_EQ(opt.info(0).state_bytes, 4095U * 8);
  EXPECT_EQ(opt.info(0).block_size, 0);
  EXPECT_STREQ(opt.info(1).state_format, "int8");
  EXPECT_EQ(opt.info(1).block_size, 256);
  EXPECT_EQ(opt.info(1).state_bytes, 8192U * 2 + 32 * 2 * 4);
  EXPECT_STREQ(opt.info(2).state_format, "int8");
  EXPECT_STREQ(opt.info(3).state_format, "fp32");
  EXPECT_NE(std::string(opt.info(3).reason).find("norm"), std::string::npos);
  EXPECT_STREQ(opt.state(1, 3).name, "exp_avg_sq.scale");
  EXPECT_STREQ(opt.state(1, 3).dtype, "F32");
  EXPECT_EQ(opt.state(1, 3).count, 32);
}

}  // namespace
}  // namespace nibble::test
