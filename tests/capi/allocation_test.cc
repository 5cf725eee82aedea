// SPDX-License-Identifier: Apache-2.0
// Every n-th allocation fails in turn: the call says OUT_OF_MEMORY and leaves things as they were.
// A step allocates nothing.
#include "support/failing_allocations.h"

namespace nibble::test {
namespace {

std::vector<TensorCase> cases() {
  std::vector<TensorCase> out;
  for (TensorCase setup : all_cases(13)) {
    setup.rows = 13;
    out.push_back(setup);
  }
  return out;
}

TEST_F(OutOfMemory, Create) {
  const std::string hyper_name = "beta1";
  const nibble_hyper hypers[] = {{hyper_name.c_str(), 0.8}};
  for (const std::string& rule : rule_names()) {
    for (const char* format : {"fp32", "int8", "int4_rank1"}) {
      auto desc = api::make<nibble_optimizer_desc>();
      desc.rule = rule.c_str(), desc.state_format = format;
      desc.hypers = hypers, desc.n_hypers = rule == "adamw" ? 1 : 0;
      nibble_optimizer* opt = nullptr;
      const int failures = fail_each_allocation(
          [&] { return nibble_optimizer_create(&opt, &desc); }, [&] { ASSERT_EQ(opt, nullptr); });
      EXPECT_GT(failures, 2) << rule;
      nibble_optimizer_destroy(opt);
    }
  }
}

TEST_F(OutOfMemory, GroupsAndFormats) {
  api::Optimizer opt(adamw_desc("int8"));
  const nibble_hyper hypers[] = {{"learning_rate", 0.5}, {"momentum", 0.5}};
  auto desc = api::make<nibble_group_desc>();
  desc.rule = "sgd", desc.hypers = hypers, desc.n_hypers = 2;
  const std::string pattern(60, '?');
  double value = 0;
  for (std::int64_t group = 1; group < 4; ++group) {
    std::int64_t got = -1;
    EXPECT_GT(
        fail_each_allocation([&] { return nibble_optimizer_add_group(opt.get(), &desc, &got); },
                             [&] {
                               ASSERT_EQ(got, -1);
                               ASSERT_NE(nibble_optimizer_get_group_hyper(opt.get(), group,
                                                                          "learning_rate", &value),
                                         NIBBLE_OK);
                             }),
        1);
    EXPECT_EQ(got, group);
    fail_each_allocation(
        [&] {
          return nibble_optimizer_set_format(opt.get(), pattern.c_str(),
                                             "exp_avg=bf16,exp_avg_sq=fp32");
        },
        [] {});
  }
}

TEST_F(OutOfMemory, AddParamAndBindOfEveryRuleFormatAndWeights) {
  for (const TensorCase& setup : cases()) {
    auto desc = api::make<nibble_optimizer_desc>();
    desc.rule = setup.rule.c_str(), desc.state_format = setup.format.c_str();
    desc.weight_format = setup.weights.c_str(), desc.mode = setup.mode.c_str();
    desc.min_quantized_elements = 1;
    api::Optimizer opt(desc);
    const std::int64_t shape[] = {13, 40};
    std::vector<float> weights(kCount, 1.0F);
    std::vector<float> scales(kCount);
    for (const std::string& name : {std::string("a"), std::string(100, 'n'), std::string("c")}) {
      auto param = api::make<nibble_param_desc>();
      param.name = name.c_str(), param.shape = shape, param.n_dims = 2;
      auto before = snapshot(opt.get());
      std::int64_t index = -1;
      EXPECT_GT(fail_each_allocation(
                    [&] { return nibble_optimizer_add_param(opt.get(), &param, &index, nullptr); },
                    [&] { ASSERT_TRUE(snapshot(opt.get()) == before) << setup.name(); }),
                1);
      before = snapshot(opt.get());
      const bool quantized = setup.weights == "int8_stochastic";
      EXPECT_EQ(fail_each_allocation(
                    [&] {
                      return quantized ? nibble_optimizer_bind_quantized(
                                             opt.get(), index, weights.data(), scales.data())
                                       : nibble_optimizer_bind(opt.get(), index, weights.data());
                    },
                    [&] { ASSERT_TRUE(snapshot(opt.get()) == before) << setup.name(); }),
                0)
          << "bind allocates";
    }
  }
}

TEST_F(OutOfMemory, AStepAllocatesNothing) {
  for (const TensorCase& setup : cases()) {
    CaseRun run = make_run(setup);
    const auto grad = make_input("normal", kCount, 3);
    std::vector<math::bf16> narrow(kCount, math::float_to_bf16(0.5F));
    const void* grads[] = {grad.data()};
    if (setup.bf16_grads) {
      grads[0] = narrow.data();
    }
    double norm = 0;
    std::int64_t bad = 0;
    auto desc = api::make<nibble_step_desc>();
    desc.grads = grads, desc.n_grads = 1, desc.max_grad_norm = 1, desc.out_grad_norm = &norm;
    desc.out_nonfinite = &bad;
    EXPECT_EQ(allocations_of([&] { return nibble_optimizer_step(run.optimizer().get(), &desc); }),
              0)
        << setup.name();
    EXPECT_EQ(allocations_of(
                  [&] { return nibble_optimizer_set_learning_rate(run.optimizer().get(), 0.125); }),
              0);
  }
}

TEST_F(OutOfMemory, StepThatCollectsErrors) {
  for (const char* rule : {"adamw", "lamb", "adafactor", "muon"}) {
    TensorCase setup;
    setup.rule = rule, setup.rows = 13;
    if (setup.rule == "adafactor") {
      setup.hypers = {{"beta1", 0.9}};  // else it keeps no state with a format of its own
    }
    CaseRun run = make_run(setup);
    const auto grad = make_input("normal", kCount, 3);
    const void* grads[] = {grad.data()};
    auto desc = api::make<nibble_step_desc>();
    desc.grads = grads, desc.n_grads = 1, desc.collect_errors = 1;
    auto plain = desc;
    plain.collect_errors = 0;
    const auto before = run.bytes();
    auto error = api::make<nibble_state_error>();
    nibble_optimizer* opt = run.optimizer().get();
    EXPECT_GT(fail_each_allocation([&] { return nibble_optimizer_step(opt, &desc); },
                                   [&] {
                                     ASSERT_TRUE(run.bytes() == before) << rule;
                                     ASSERT_EQ(nibble_optimizer_state_error(opt, 0, 0, &error),
                                               NIBBLE_WRONG_ORDER);
                                   }),
              0);
    EXPECT_EQ(nibble_optimizer_state_error(opt, 0, 0, &error), NIBBLE_OK);
    // After a failure, an ordinary step is an ordinary step.
    allocations_left = 0;
    EXPECT_EQ(nibble_optimizer_step(opt, &desc), NIBBLE_OUT_OF_MEMORY);
    allocations_left = -1;
    EXPECT_EQ(nibble_optimizer_step(opt, &plain), NIBBLE_OK);
    EXPECT_EQ(run.optimizer().step_count(), 4);
  }
}

}  // namespace
}  // namespace nibble::test
