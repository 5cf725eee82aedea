// SPDX-License-Identifier: Apache-2.0
// Misuse of create, groups and hyper-parameters.
#include <cmath>
#include <functional>

#include "support/misuse.h"

namespace nibble::test {
namespace {

using Change = std::function<void(nibble_optimizer_desc&)>;
struct Case {
  Change change;
  nibble_status status;
  const char* message;
};

constexpr nibble_hyper kNoName[] = {{nullptr, 1}};
constexpr nibble_hyper kUnknown[] = {{"momentum", 0.5}};
constexpr nibble_hyper kNan[] = {{"beta1", 0.5}, {"beta2", NAN}};

const Case kCases[] = {
    {[](auto& d) { d.rule = "sgdd"; }, NIBBLE_UNSUPPORTED, "unknown rule \"sgdd\""},
    {[](auto& d) { d.rule = ""; }, NIBBLE_UNSUPPORTED, "unknown rule \"\""},
    {[](auto& d) { d.rule = "AdamW"; }, NIBBLE_UNSUPPORTED, "\"AdamW\"; there are \"adamw\""},
    {[](auto& d) { d.state_format = "int3"; }, NIBBLE_UNSUPPORTED, "unknown state format \"int3\""},
    {[](auto& d) { d.state_format = "nf4"; }, NIBBLE_UNSUPPORTED, "unknown state format \"nf4\""},
    {[](auto& d) { d.state_format = "exp_avg=int9"; }, NIBBLE_UNSUPPORTED, "\"int9\""},
    {[](auto& d) { d.state_format = "momentum=int8"; }, NIBBLE_UNSUPPORTED,
     "rule \"adamw\" has no state \"momentum\""},
    {[](auto& d) { d.state_format = "exp_avg=int8,"; }, NIBBLE_UNSUPPORTED, "no state \"\""},
    {[](auto& d) { d.state_format = "exp_avg=int8,exp_avg_sq"; }, NIBBLE_UNSUPPORTED,
     "\"exp_avg=int8,exp_avg_sq\""},
    {[](auto& d) { d.weight_format = "fp64"; }, NIBBLE_UNSUPPORTED, "weight format \"fp64\""},
    {[](auto& d) { d.mode = "jax"; }, NIBBLE_UNSUPPORTED, "unknown mode \"jax\""},
    {[](auto& d) { d.mode = "torch"; }, NIBBLE_UNSUPPORTED, "mode \"torch\" has \"fp32\""},
    {[](auto& d) { d.mode = "torchao", d.state_format = "bf16"; }, NIBBLE_UNSUPPORTED,
     "mode \"torchao\" has \"fp32\", \"fp8\", \"int8\", \"int4\" states only, not \"bf16\""},
    {[](auto& d) { d.mode = "bnb", d.state_format = "int4"; }, NIBBLE_UNSUPPORTED,
     "mode \"bnb\" has \"fp32\", \"int8\" states only, not \"int4\""},
    {[](auto& d) { d.mode = "bnb-cuda", d.state_format = "exp_avg_sq=fp8"; }, NIBBLE_UNSUPPORTED,
     "mode \"bnb-cuda\""},
    {[](auto& d) { d.decay = "during"; }, NIBBLE_UNSUPPORTED, "decay \"during\""},
    {[](auto& d) { d.rule = "adam", d.decay = "after"; }, NIBBLE_UNSUPPORTED,
     "decay \"after\": rule \"adam\""},
    {[](auto& d) { d.rule = "lamb", d.decay = "after"; }, NIBBLE_UNSUPPORTED,
     "decay \"after\": rule \"lamb\" decays within its trust ratio"},
    {[](auto& d) { d.block_size = 100; }, NIBBLE_INVALID_ARGUMENT, "block_size is 100"},
    {[](auto& d) { d.block_size = 16; }, NIBBLE_INVALID_ARGUMENT, "block_size is 16"},
    {[](auto& d) { d.block_size = 8192; }, NIBBLE_INVALID_ARGUMENT, "block_size is 8192"},
    {[](auto& d) { d.block_size = -256; }, NIBBLE_INVALID_ARGUMENT, "block_size is -256"},
    {[](auto& d) { d.block_size = INT64_MIN; }, NIBBLE_INVALID_ARGUMENT, "block_size is -92"},
    {[](auto& d) { d.nonfinite = 9; }, NIBBLE_INVALID_ARGUMENT, "nonfinite is 9"},
    {[](auto& d) { d.min_quantized_elements = -1; }, NIBBLE_INVALID_ARGUMENT,
     "min_quantized_elements is -1"},
    {[](auto& d) { d.learning_rate = NAN; }, NIBBLE_INVALID_ARGUMENT, "learning_rate is nan"},
    {[](auto& d) { d.learning_rate = -1; }, NIBBLE_INVALID_ARGUMENT, "learning_rate is -1"},
    {[](auto& d) { d.learning_rate = INFINITY; }, NIBBLE_INVALID_ARGUMENT, "learning_rate is inf"},
    {[](auto& d) { d.beta1 = 1.0; }, NIBBLE_INVALID_ARGUMENT, "beta1 is 1"},
    {[](auto& d) { d.beta2 = -0.1; }, NIBBLE_INVALID_ARGUMENT, "beta2 is -0.1"},
    {[](auto& d) { d.eps = NAN; }, NIBBLE_INVALID_ARGUMENT, "eps is nan"},
    {[](auto& d) { d.weight_decay = -2; }, NIBBLE_INVALID_ARGUMENT, "weight_decay is -2"},
    {[](auto& d) { d.rule = "sgd", d.beta1 = 0.5; }, NIBBLE_INVALID_ARGUMENT,
     "unknown hyper-parameter \"beta1\"; rule \"sgd\" has \"learning_rate\""},
    {[](auto& d) { d.n_hypers = -1; }, NIBBLE_INVALID_ARGUMENT, "n_hypers is -1"},
    {[](auto& d) { d.n_hypers = 2; }, NIBBLE_INVALID_ARGUMENT, "hypers is null"},
    {[](auto& d) { d.hypers = kNoName, d.n_hypers = 1; }, NIBBLE_INVALID_ARGUMENT, "name is null"},
    {[](auto& d) { d.hypers = kUnknown, d.n_hypers = 1; }, NIBBLE_INVALID_ARGUMENT,
     "\"momentum\"; rule \"adamw\" has"},
    {[](auto& d) { d.hypers = kNan, d.n_hypers = 2; }, NIBBLE_INVALID_ARGUMENT, "beta2 is nan"},
};

TEST(MisuseOfCreate, IsRefusedByName) {
  for (const Case& c : kCases) {
    nibble_optimizer_desc desc = adamw_desc("int8");
    c.change(desc);
    auto* opt = reinterpret_cast<nibble_optimizer*>(1);
    expect_failure(nibble_optimizer_create(&opt, &desc), c.status, c.message);
    EXPECT_EQ(opt, nullptr) << c.message;
  }
  const nibble_optimizer_desc good = adamw_desc("int8");
  expect_failure(nibble_optimizer_create(nullptr, &good), NIBBLE_INVALID_ARGUMENT, "out is null");
  nibble_optimizer_destroy(nullptr);
}

TEST(MisuseOfCreate, OfEveryHyperParameterOfEveryRule) {
  for (const std::string& rule : rule_names()) {
    double value = 0;
    const char* name = nullptr;
    for (std::int32_t i = 0; (name = nibble_rule_hyper(rule.c_str(), i, &value)) != nullptr; ++i) {
      for (const double bad :
           {-0.5, double{NAN}, double{INFINITY}, double{-INFINITY}, 1e300, 1e-60}) {
        const nibble_hyper hyper = {name, bad};
        auto desc = api::make<nibble_optimizer_desc>();
        desc.rule = rule.c_str(), desc.hypers = &hyper, desc.n_hypers = 1;
        nibble_optimizer* opt = nullptr;
        const nibble_status status = nibble_optimizer_create(&opt, &desc);
        if (status == NIBBLE_OK) {  // an exponent may be negative (adafactor's decay)
          EXPECT_TRUE(bad == -0.5 && value < 0) << rule << " " << name << " " << bad;
          nibble_optimizer_destroy(opt);
          continue;
        }
        expect_failure(status, NIBBLE_INVALID_ARGUMENT, std::string(name) + " is ");
      }
    }
  }
}

TEST(MisuseOfCreate, StructSizes) {
  nibble_optimizer* opt = nullptr;
  expect_sizes_checked(adamw_desc("int8"), [&](const nibble_optimizer_desc* desc) {
    const nibble_status status = nibble_optimizer_create(&opt, desc);
    EXPECT_EQ(opt, nullptr);
    return status;
  });
}

TEST_F(UsedOptimizer, RefusesBadGroups) {
  auto desc = api::make<nibble_group_desc>();
  std::int64_t group = -7;
  const auto add = [&] { return nibble_optimizer_add_group(opt(), &desc, &group); };
  expect_sizes_checked(desc, [&](const nibble_group_desc* d) {
    return nibble_optimizer_add_group(opt(), d, &group);
  });
  refused(nibble_optimizer_add_group(nullptr, &desc, &group), NIBBLE_INVALID_ARGUMENT,
          "opt is null");
  desc.reserved = 7;
  refused(add(), NIBBLE_UNSUPPORTED, "group descriptor: reserved is 7, 0 expected");
  desc.reserved = 0, desc.rule = "adagard";
  refused(add(), NIBBLE_UNSUPPORTED, "unknown rule \"adagard\"");
  desc.rule = nullptr, desc.n_hypers = -3;
  refused(add(), NIBBLE_INVALID_ARGUMENT, "n_hypers is -3");
  desc.n_hypers = 1;
  refused(add(), NIBBLE_INVALID_ARGUMENT, "hypers is null");
  desc.hypers = kNoName;
  refused(add(), NIBBLE_INVALID_ARGUMENT, "name is null");
  desc.hypers = kUnknown;
  refused(add(), NIBBLE_INVALID_ARGUMENT, "\"momentum\"");
  desc.hypers = kNan, desc.n_hypers = 2;
  refused(add(), NIBBLE_INVALID_ARGUMENT, "beta2 is nan");
  EXPECT_EQ(group, -7);
  desc.n_hypers = 1;
  ASSERT_EQ(add(), NIBBLE_OK) << nibble_last_error();
  EXPECT_EQ(group, 1) << "a refused group was counted";
  double value = 0;
  EXPECT_EQ(nibble_optimizer_get_group_hyper(opt(), 1, "beta1", &value), NIBBLE_OK);
  EXPECT_EQ(value, 0.5);
  EXPECT_EQ(nibble_optimizer_add_group(opt(), &desc, nullptr), NIBBLE_OK);
}

TEST_F(UsedOptimizer, RefusesBadHyperParameters) {
  double value = -7;
  for (const double bad : {double{NAN}, double{INFINITY}, -1.0, 1e39, 1e-50}) {
    refused(nibble_optimizer_set_learning_rate(opt(), bad), NIBBLE_INVALID_ARGUMENT,
            "learning_rate is ");
    refused(nibble_optimizer_set_hyper(opt(), "eps", bad), NIBBLE_INVALID_ARGUMENT, "eps is ");
    refused(nibble_optimizer_set_group_hyper(opt(), 0, "beta1", bad), NIBBLE_INVALID_ARGUMENT,
            "beta1 is ");
  }
  for (const auto& [rule, name, part] :
       {std::tuple{"muon", "ns_steps", 5.5}, {"sgd", "nesterov", 0.5}}) {
    const nibble_hyper hypers[] = {{name, part}};
    auto group = api::make<nibble_group_desc>();
    group.rule = rule, group.hypers = hypers, group.n_hypers = 1;
    std::int64_t index = -1;
    refused(nibble_optimizer_add_group(opt(), &group, &index), NIBBLE_INVALID_ARGUMENT,
            "a whole number expected");
  }
  refused(nibble_optimizer_set_hyper(opt(), "beta2", 1), NIBBLE_INVALID_ARGUMENT, "beta2 is 1: 0");
  refused(nibble_optimizer_set_hyper(opt(), "momentum", 0.5), NIBBLE_INVALID_ARGUMENT,
          "unknown hyper-parameter \"momentum\"; rule \"adamw\"");
  refused(nibble_optimizer_set_hyper(opt(), nullptr, 1), NIBBLE_INVALID_ARGUMENT, "name is null");
  refused(nibble_optimizer_set_group_hyper(opt(), 1, "eps", 1), NIBBLE_INVALID_ARGUMENT,
          "no group 1: there are 1");
  refused(nibble_optimizer_set_group_hyper(opt(), -1, "eps", 1), NIBBLE_INVALID_ARGUMENT,
          "no group -1");
  refused(nibble_optimizer_set_group_hyper(nullptr, 0, "eps", 1), NIBBLE_INVALID_ARGUMENT,
          "opt is null");
  refused(nibble_optimizer_set_hyper(nullptr, "eps", 1), NIBBLE_INVALID_ARGUMENT, "opt is null");
  refused(nibble_optimizer_set_learning_rate(nullptr, 1), NIBBLE_INVALID_ARGUMENT, "opt is null");

  refused(nibble_optimizer_get_hyper(nullptr, "eps", &value), NIBBLE_INVALID_ARGUMENT, "opt");
  refused(nibble_optimizer_get_hyper(opt(), nullptr, &value), NIBBLE_INVALID_ARGUMENT, "name");
  refused(nibble_optimizer_get_hyper(opt(), "eps", nullptr), NIBBLE_INVALID_ARGUMENT, "out");
  refused(nibble_optimizer_get_hyper(opt(), "Eps", &value), NIBBLE_INVALID_ARGUMENT, "\"Eps\"");
  refused(nibble_optimizer_get_group_hyper(nullptr, 0, "eps", &value), NIBBLE_INVALID_ARGUMENT,
          "opt");
  refused(nibble_optimizer_get_group_hyper(opt(), 0, "eps", nullptr), NIBBLE_INVALID_ARGUMENT,
          "out");
  refused(nibble_optimizer_get_group_hyper(opt(), 0, nullptr, &value), NIBBLE_INVALID_ARGUMENT,
          "name");
  refused(nibble_optimizer_get_group_hyper(opt(), 5, "eps", &value), NIBBLE_INVALID_ARGUMENT,
          "no group 5");
  EXPECT_EQ(value, -7);
  EXPECT_EQ(nibble_optimizer_set_hyper(opt(), "beta1", 0.0), NIBBLE_OK) << "zero is zero";
  EXPECT_EQ(nibble_optimizer_get_hyper(opt(), "beta1", &value), NIBBLE_OK);
  EXPECT_EQ(value, 0.0);
}

TEST(MisuseOfHypers, WhatWasLeftOutCannotBeHadLater) {
  const nibble_hyper none = {"momentum", 0};
  auto desc = api::make<nibble_optimizer_desc>();
  desc.rule = "sgd", desc.hypers = &none, desc.n_hypers = 1;
  api::Optimizer opt(desc);
  opt.set_hyper("momentum", 0.5);  // no parameter yet
  opt.set_hyper("momentum", 0);
  float weight = 1;
  opt.add("w", {1}, &weight);
  expect_failure(nibble_optimizer_set_hyper(opt.get(), "momentum", 0.9), NIBBLE_WRONG_ORDER,
                 "momentum was 0 when parameter \"w\" was added");
  double value = -1;
  EXPECT_EQ(nibble_optimizer_get_hyper(opt.get(), "momentum", &value), NIBBLE_OK);
  EXPECT_EQ(value, 0.0);
  EXPECT_EQ(nibble_optimizer_set_hyper(opt.get(), "momentum", 0), NIBBLE_OK);
}

}  // namespace
}  // namespace nibble::test
