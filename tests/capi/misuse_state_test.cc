// SPDX-License-Identifier: Apache-2.0
// Misuse of states: infos, load, import and export, errors, save and load. What files can do is in
// tests/optim/checkpoint_test.cc.
#include <cmath>

#include "support/misuse.h"
#include "support/paths.h"

namespace nibble::test {
namespace {

constexpr std::int64_t kBad[] = {-1, 4, INT64_MAX, INT64_MIN};

TEST_F(UsedOptimizer, StateInfos) {
  expect_info_sizes_checked<nibble_state_info>(
      [&](nibble_state_info* info) { return nibble_optimizer_state_info(opt(), 0, 0, info); });
  auto info = api::make<nibble_state_info>();
  std::int64_t count = -7;
  refused(nibble_optimizer_state_info(nullptr, 0, 0, &info), NIBBLE_INVALID_ARGUMENT, "opt");
  refused(nibble_optimizer_state_count(nullptr, 0, &count), NIBBLE_INVALID_ARGUMENT, "opt");
  refused(nibble_optimizer_state_count(opt(), 0, nullptr), NIBBLE_INVALID_ARGUMENT, "out");
  for (const std::int64_t bad : kBad) {
    refused(nibble_optimizer_state_info(opt(), bad, 0, &info), NIBBLE_INVALID_ARGUMENT,
            "no parameter " + std::to_string(bad));
    refused(nibble_optimizer_state_count(opt(), bad, &count), NIBBLE_INVALID_ARGUMENT,
            "no parameter");
    refused(nibble_optimizer_state_info(opt(), 0, bad, &info), NIBBLE_INVALID_ARGUMENT,
            "\"first\": no state " + std::to_string(bad) + ": there are 4");
  }
  EXPECT_EQ(info.data, nullptr);
  EXPECT_EQ(count, -7);
  EXPECT_EQ(nibble_optimizer_state_count(opt(), 0, &count), NIBBLE_OK);
  EXPECT_EQ(count, 4);
}

TEST_F(UsedOptimizer, LoadState) {
  const std::vector<std::uint8_t> bytes(1000, 3);
  for (const std::uint64_t n : {0ULL, 63ULL, 65ULL, ~0ULL}) {
    refused(nibble_optimizer_load_state(opt(), 0, 0, bytes.data(), n), NIBBLE_INVALID_ARGUMENT,
            "state \"exp_avg\" of parameter \"first\": " + std::to_string(n) +
                " bytes given, it has 64");
  }
  refused(nibble_optimizer_load_state(opt(), 0, 0, nullptr, 64), NIBBLE_INVALID_ARGUMENT,
          "data is null");
  refused(nibble_optimizer_load_state(nullptr, 0, 0, bytes.data(), 64), NIBBLE_INVALID_ARGUMENT,
          "opt is null");
  for (const std::int64_t bad : kBad) {
    refused(nibble_optimizer_load_state(opt(), bad, 0, bytes.data(), 64), NIBBLE_INVALID_ARGUMENT,
            "no parameter");
    refused(nibble_optimizer_load_state(opt(), 0, bad, bytes.data(), 64), NIBBLE_INVALID_ARGUMENT,
            "no state");
  }
}

TEST_F(UsedOptimizer, ImportState) {
  const std::vector<float> x(128, 0.5F);
  auto good = api::make<nibble_import_desc>();
  good.state = "exp_avg", good.format = "int8", good.codes = x.data();
  good.scales = x.data(), good.n_scales = 1;
  const auto import = [&](const nibble_import_desc& d, std::int64_t param = 0) {
    return nibble_optimizer_import_state(opt(), param, &d);
  };
  expect_sizes_checked(good, [&](const nibble_import_desc* d) {
    return nibble_optimizer_import_state(opt(), 0, d);
  });
  expect_unchanged("struct sizes");
  refused(nibble_optimizer_import_state(nullptr, 0, &good), NIBBLE_INVALID_ARGUMENT, "opt is null");
  for (const std::int64_t bad : kBad) {
    refused(import(good, bad), NIBBLE_INVALID_ARGUMENT, "no parameter");
  }
  struct Case {
    void (*change)(nibble_import_desc&);
    nibble_status status;
    const char* message;
  };
  const Case cases[] = {
      {[](auto& d) { d.state = nullptr; }, NIBBLE_INVALID_ARGUMENT, "state is null"},
      {[](auto& d) { d.format = nullptr; }, NIBBLE_INVALID_ARGUMENT, "format is null"},
      {[](auto& d) { d.codes = nullptr; }, NIBBLE_INVALID_ARGUMENT, "codes is null"},
      {[](auto& d) { d.state = "state1"; }, NIBBLE_INVALID_ARGUMENT, "no state \"state1\""},
      {[](auto& d) { d.state = "exp_avg.scale"; }, NIBBLE_INVALID_ARGUMENT, "exp_avg.scale"},
      {[](auto& d) { d.format = "int3"; }, NIBBLE_UNSUPPORTED, "unknown state format \"int3\""},
      {[](auto& d) { d.format = "nf4"; }, NIBBLE_UNSUPPORTED, "\"nf4\""},
      {[](auto& d) { d.scales = nullptr; }, NIBBLE_INVALID_ARGUMENT, "is given with scales"},
      {[](auto& d) { d.format = "fp32"; }, NIBBLE_INVALID_ARGUMENT, "is given without scales"},
      {[](auto& d) { d.format = "bf16"; }, NIBBLE_INVALID_ARGUMENT, "is given without scales"},
      {[](auto& d) { d.n_scales = 0; }, NIBBLE_INVALID_ARGUMENT, "0 scales do not fit 64 elements"},
      {[](auto& d) { d.n_scales = 65; }, NIBBLE_INVALID_ARGUMENT, "65 scales do not fit"},
      {[](auto& d) { d.n_scales = -1; }, NIBBLE_INVALID_ARGUMENT, "-1 scales do not fit"},
      {[](auto& d) { d.block_size = 32; }, NIBBLE_INVALID_ARGUMENT,
       "import of \"exp_avg\": 1 scales do not fit 64 elements in blocks of 32"},
      {[](auto& d) { d.block_size = -64; }, NIBBLE_INVALID_ARGUMENT, "block_size -64"},
      {[](auto& d) { d.format = "int4_rank1", d.state = "exp_avg_sq"; }, NIBBLE_UNSUPPORTED,
       "rank-1"},
  };
  for (const Case& c : cases) {
    auto desc = good;
    c.change(desc);
    refused(import(desc), c.status, c.message);
  }
}

TEST_F(UsedOptimizer, ExportState) {
  std::vector<float> out(64, -7.0F);
  refused(nibble_optimizer_export_state(nullptr, 0, "exp_avg", out.data()), NIBBLE_INVALID_ARGUMENT,
          "opt is null");
  refused(nibble_optimizer_export_state(opt(), 0, nullptr, out.data()), NIBBLE_INVALID_ARGUMENT,
          "state is null");
  refused(nibble_optimizer_export_state(opt(), 0, "exp_avg", nullptr), NIBBLE_INVALID_ARGUMENT,
          "dst is null");
  refused(nibble_optimizer_export_state(opt(), 0, "momentum", out.data()), NIBBLE_INVALID_ARGUMENT,
          "\"first\" has no state \"momentum\"");
  refused(nibble_optimizer_export_state(opt(), 7, "exp_avg", out.data()), NIBBLE_INVALID_ARGUMENT,
          "no parameter 7");
  EXPECT_EQ(out, std::vector<float>(64, -7.0F));
}

TEST_F(UsedOptimizer, StateErrors) {
  auto error = api::make<nibble_state_error>();
  const auto ask = [&](std::int64_t param, std::int64_t state) {
    return nibble_optimizer_state_error(opt(), param, state, &error);
  };
  refused(nibble_optimizer_state_error(nullptr, 0, 0, &error), NIBBLE_INVALID_ARGUMENT, "opt");
  refused(ask(0, 0), NIBBLE_WRONG_ORDER, "no step with collect_errors");
  const void* grads[] = {grads_.data(), grads_.data() + 64};
  auto desc = api::make<nibble_step_desc>();
  desc.grads = grads, desc.n_grads = 2, desc.collect_errors = 1;
  ASSERT_EQ(nibble_optimizer_step(opt(), &desc), NIBBLE_OK);
  expect_info_sizes_checked<nibble_state_error>(
      [&](nibble_state_error* e) { return nibble_optimizer_state_error(opt(), 0, 0, e); });
  expect_failure(ask(2, 0), NIBBLE_INVALID_ARGUMENT, "no parameter 2");
  expect_failure(ask(0, 2), NIBBLE_INVALID_ARGUMENT, "no state 2: rule \"adamw\" has 2");
  expect_failure(ask(0, -1), NIBBLE_INVALID_ARGUMENT, "no state -1");
  ASSERT_EQ(ask(0, 1), NIBBLE_OK) << nibble_last_error();
  EXPECT_STREQ(error.state, "exp_avg_sq");
  EXPECT_STREQ(error.format, "int8");
  EXPECT_GT(error.relative_rms, 0);
  EXPECT_LT(error.relative_rms, 0.05);
  ASSERT_EQ(ask(1, 1), NIBBLE_OK);
  EXPECT_STREQ(error.format, "fp32");
  EXPECT_EQ(error.relative_rms, 0) << "fp32 states are what was computed";
  float late[64] = {};
  optimizer_.add("late", {64}, late);
  expect_failure(ask(2, 0), NIBBLE_WRONG_ORDER, "since parameter 2 was added");
}

TEST_F(UsedOptimizer, SaveAndLoadArguments) {
  refused(nibble_optimizer_save(nullptr, "x"), NIBBLE_INVALID_ARGUMENT, "opt is null");
  refused(nibble_optimizer_save(opt(), nullptr), NIBBLE_INVALID_ARGUMENT, "directory is null");
  refused(nibble_optimizer_load(nullptr, "x"), NIBBLE_INVALID_ARGUMENT, "opt is null");
  refused(nibble_optimizer_load(opt(), nullptr), NIBBLE_INVALID_ARGUMENT, "directory is null");
  refused(nibble_optimizer_save(opt(), ""), NIBBLE_IO, "no name");
  refused(nibble_optimizer_load(opt(), ""), NIBBLE_IO, "manifest.json");
}

// Refused before anything is trained that no file could hold.
TEST_F(UsedOptimizer, RefusesNamesThatAFileCannotHold) {
  auto param = api::make<nibble_param_desc>();
  const std::int64_t shape[] = {64};
  param.name = "not \xff UTF-8", param.n_dims = 1, param.shape = shape;
  refused(nibble_optimizer_add_param(opt(), &param, nullptr, nullptr), NIBBLE_INVALID_ARGUMENT,
          "\"not \\xff UTF-8\": the name is not UTF-8");
}

TEST(MisuseOfStateErrors, OfStatesThatAreNotKept) {
  struct Case {
    const char* rule;
    const char* off;
    std::int64_t state;
    const char* name;
  };
  for (const Case& c :
       {Case{"sgd", "momentum", 0, "momentum_buffer"}, Case{"adafactor", "beta1", 0, "exp_avg"},
        Case{"adafactor", "beta1", 1, "exp_avg_sq"}}) {
    const nibble_hyper hypers[] = {{c.off, 0}};
    auto desc = api::make<nibble_optimizer_desc>();
    desc.rule = c.rule, desc.state_format = "fp32", desc.hypers = hypers, desc.n_hypers = 1;
    std::vector<float> weights(64, 1.0F);
    const std::vector<float> grads(64, 0.5F);
    api::Optimizer opt(desc);
    opt.add("w", {8, 8}, weights.data());
    const void* pointers[] = {grads.data()};
    auto step = api::make<nibble_step_desc>();
    step.grads = pointers, step.n_grads = 1, step.collect_errors = 1;
    opt.step(step);
    auto error = api::make<nibble_state_error>();
    expect_failure(nibble_optimizer_state_error(opt.get(), 0, c.state, &error),
                   NIBBLE_INVALID_ARGUMENT, std::string("keeps no state \"") + c.name);
  }
}

}  // namespace
}  // namespace nibble::test
