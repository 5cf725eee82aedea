// SPDX-License-Identifier: Apache-2.0
// Each member of nibble.hpp.
#include <cmath>
#include <type_traits>

#include "support/capi.h"
#include "support/paths.h"

namespace nibble::test {
namespace {

static_assert(!std::is_copy_constructible_v<api::Optimizer>);
static_assert(!std::is_copy_assignable_v<api::Optimizer>);
static_assert(std::is_nothrow_move_constructible_v<api::Optimizer>);
static_assert(std::is_nothrow_move_assignable_v<api::Optimizer>);

TEST(Hpp, ErrorsCarryStatusAndMessage) {
  EXPECT_NO_THROW(api::check(NIBBLE_OK));
  auto desc = adamw_desc("int8");
  desc.rule = "no such";
  try {
    const api::Optimizer opt(desc);
    FAIL() << "no exception";
  } catch (const api::Error& error) {
    EXPECT_EQ(error.status(), NIBBLE_UNSUPPORTED);
    EXPECT_STREQ(error.what(), nibble_last_error());
    EXPECT_NE(std::string(error.what()).find("no such"), std::string::npos);
  }
}

TEST(Hpp, MakeSetsTheSizeAndNothingElse) {
  const auto desc = api::make<nibble_step_desc>();
  EXPECT_EQ(desc.struct_size, sizeof(nibble_step_desc));
  EXPECT_EQ(desc.grads, nullptr);
  EXPECT_EQ(desc.grad_scale, 0.0);
}

TEST(Hpp, ParametersGroupsAndFormats) {
  api::Optimizer opt(adamw_desc("int8"));
  std::vector<float> weights(600, 1.0F);
  std::vector<std::int8_t> codes(300, 5);
  std::vector<float> scales(3, 0.1F);
  const std::int64_t group = opt.add_group({{"momentum", 0.5}}, "sgd");
  EXPECT_EQ(group, 1);
  EXPECT_EQ(opt.add_group({}), 2);
  opt.set_format("b*", "bf16");
  EXPECT_EQ(opt.add("a", {300}, weights.data()), 0);
  EXPECT_EQ(opt.add("b", {10, 30}, weights.data() + 300, nullptr, group), 1);
  auto desc = api::make<nibble_param_desc>();
  const std::int64_t shape[] = {300};
  desc.name = "c", desc.n_dims = 1, desc.shape = shape, desc.weight_format = "int8_stochastic";
  EXPECT_EQ(opt.add_param(desc), 2);
  opt.bind(2, codes.data(), scales.data());
  EXPECT_STREQ(opt.info(0).state_format, "int8");
  EXPECT_STREQ(opt.info(1).state_format, "bf16");
  EXPECT_STREQ(opt.info(1).rule, "sgd");
  EXPECT_STREQ(opt.info(2).weight_format, "int8_stochastic");
  EXPECT_STREQ(opt.state(1, 0).name, "momentum_buffer");
  EXPECT_THROW(opt.state(1, 1), api::Error);
  EXPECT_THROW(opt.info(3), api::Error);
  EXPECT_THROW(opt.bind(0, nullptr), api::Error);
  EXPECT_THROW(opt.set_format("*", "int9"), api::Error);
  EXPECT_THROW(opt.add("a", {1}, weights.data()), api::Error);
  EXPECT_THROW(opt.add_group({{"beta3", 1}}), api::Error);
}

TEST(Hpp, StepsMoveSaveAndLoad) {
  const TemporaryDirectory directory;
  const std::string path = (directory.path() / "states").string();
  std::vector<float> weights(300, 1.0F);
  std::vector<float> grad(300, 0.5F);
  api::Optimizer opt(adamw_desc("int8"));
  opt.add("w", {300}, weights.data());
  opt.set_learning_rate(0.25);
  opt.set_hyper("weight_decay", 0);
  EXPECT_TRUE(opt.step({grad.data()}));
  EXPECT_NEAR(weights[0], 0.75F, 1e-4F) << "a first step of Adam is the learning rate";
  grad[1] = NAN;
  EXPECT_FALSE(opt.step({grad.data()}));
  grad[1] = 0.5F;
  EXPECT_THROW(opt.step({grad.data()}, INFINITY), api::Error);
  EXPECT_THROW(opt.step(std::vector<const void*>{}), api::Error);
  auto desc = api::make<nibble_step_desc>();
  const void* grads[] = {grad.data()};
  desc.grads = grads, desc.n_grads = 1;
  EXPECT_TRUE(opt.step(desc));
  EXPECT_EQ(opt.step_count(), 2);
  opt.save(path);
  EXPECT_THROW(opt.save(path), api::Error);

  api::Optimizer other(adamw_desc("int8"));
  other.add("w", {300}, weights.data());
  other.load(path);
  EXPECT_EQ(other.step_count(), 2);
  EXPECT_TRUE(OneTensor::states_of(other) == OneTensor::states_of(opt));
  EXPECT_THROW(other.load(path + "2"), api::Error);

  nibble_optimizer* handle = opt.get();
  api::Optimizer moved(std::move(opt));
  EXPECT_EQ(moved.get(), handle);
  EXPECT_EQ(opt.get(), nullptr);  // NOLINT: what a moved-from one is
  opt = std::move(moved);
  EXPECT_EQ(opt.get(), handle);
  EXPECT_EQ(opt.step_count(), 2);
}

}  // namespace
}  // namespace nibble::test
