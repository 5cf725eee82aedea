// SPDX-License-Identifier: Apache-2.0
// Every way to call the API wrongly gives its code and a message that names the fault.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <thread>

#include "support/capi.h"

namespace nibble::test {
namespace {

void expect_error(nibble_status got, nibble_status status, const std::string& message) {
  EXPECT_EQ(got, status) << nibble_last_error();
  EXPECT_NE(std::string(nibble_last_error()).find(message), std::string::npos)
      << "\"" << nibble_last_error() << "\" lacks \"" << message << "\"";
}

TEST(Misuse, OfCreate) {
  using Change = std::function<void(nibble_optimizer_desc&)>;
  struct Case {
    Change change;
    nibble_status status;
    const char* message;
  };
  const Case cases[] = {
      {[](auto& d) { d.struct_size = 0; }, NIBBLE_INVALID_ARGUMENT, "struct_size is 0"},
      {[](auto& d) { d.struct_size = 7; }, NIBBLE_INVALID_ARGUMENT, "struct_size is 7"},
      {[](auto& d) { d.rule = "sgdd"; }, NIBBLE_UNSUPPORTED, "unknown rule \"sgdd\""},
      {[](auto& d) { d.state_format = "int3"; }, NIBBLE_UNSUPPORTED,
       "unknown state format \"int3\""},
      {[](auto& d) { d.mode = "jax"; }, NIBBLE_UNSUPPORTED, "unknown mode \"jax\""},
      {[](auto& d) { d.mode = "torch"; }, NIBBLE_UNSUPPORTED, "fp32 states only"},
      {[](auto& d) { d.block_size = 100; }, NIBBLE_INVALID_ARGUMENT, "block_size is 100"},
      {[](auto& d) { d.block_size = 16; }, NIBBLE_INVALID_ARGUMENT, "block_size is 16"},
      {[](auto& d) { d.block_size = 8192; }, NIBBLE_INVALID_ARGUMENT, "block_size is 8192"},
      {[](auto& d) { d.block_size = -256; }, NIBBLE_INVALID_ARGUMENT, "block_size is -256"},
      {[](auto& d) { d.nonfinite = 9; }, NIBBLE_INVALID_ARGUMENT, "nonfinite is 9"},
      {[](auto& d) { d.min_quantized_elements = -1; }, NIBBLE_INVALID_ARGUMENT, "is -1"},
      {[](auto& d) { d.learning_rate = NAN; }, NIBBLE_INVALID_ARGUMENT, "learning_rate is nan"},
      {[](auto& d) { d.learning_rate = -1; }, NIBBLE_INVALID_ARGUMENT, "learning_rate is -1"},
      {[](auto& d) { d.learning_rate = INFINITY; }, NIBBLE_INVALID_ARGUMENT,
       "learning_rate is inf"},
      {[](auto& d) { d.beta1 = 1.0; }, NIBBLE_INVALID_ARGUMENT, "beta1 is 1"},
      {[](auto& d) { d.beta2 = -0.1; }, NIBBLE_INVALID_ARGUMENT, "beta2 is -0.1"},
      {[](auto& d) { d.eps = NAN; }, NIBBLE_INVALID_ARGUMENT, "eps is nan"},
      {[](auto& d) { d.weight_decay = -2; }, NIBBLE_INVALID_ARGUMENT, "weight_decay is -2"},
  };
  for (const Case& c : cases) {
    nibble_optimizer_desc desc = adamw_desc("int8");
    c.change(desc);
    auto* opt = reinterpret_cast<nibble_optimizer*>(1);
    expect_error(nibble_optimizer_create(&opt, &desc), c.status, c.message);
    EXPECT_EQ(opt, nullptr);
  }
  nibble_optimizer* opt = nullptr;
  const nibble_optimizer_desc good = adamw_desc("int8");
  expect_error(nibble_optimizer_create(nullptr, &good), NIBBLE_INVALID_ARGUMENT, "out is null");
  expect_error(nibble_optimizer_create(&opt, nullptr), NIBBLE_INVALID_ARGUMENT,
               "descriptor is null");
  nibble_optimizer_destroy(nullptr);
}

TEST(Descriptors, ANewerCallersTailMustBeZero) {
  struct Newer {
    nibble_optimizer_desc known;
    std::uint64_t later;
  };
  Newer newer{adamw_desc("int8"), 0};
  newer.known.struct_size = sizeof(Newer);
  nibble_optimizer* opt = nullptr;
  EXPECT_EQ(nibble_optimizer_create(&opt, &newer.known), NIBBLE_OK);
  nibble_optimizer_destroy(opt);
  newer.later = 1;
  expect_error(nibble_optimizer_create(&opt, &newer.known), NIBBLE_UNSUPPORTED, "this version");
}

class MisuseOfOptimizer : public ::testing::Test {
 protected:
  nibble_status add(const char* name, std::vector<std::int64_t> shape, const char* dtype = nullptr,
                    const char* format = nullptr) {
    auto desc = api::make<nibble_param_desc>();
    desc.name = name, desc.n_dims = static_cast<std::uint32_t>(shape.size());
    desc.shape = shape.empty() ? nullptr : shape.data();
    desc.weight_format = dtype, desc.state_format = format;
    return nibble_optimizer_add_param(optimizer_.get(), &desc, nullptr, nullptr);
  }
  nibble_status step(const void* const* grads, std::int64_t n, double scale = 0) {
    auto desc = api::make<nibble_step_desc>();
    desc.grads = grads, desc.n_grads = n, desc.grad_scale = scale;
    return nibble_optimizer_step(optimizer_.get(), &desc);
  }
  api::Optimizer optimizer_{adamw_desc("int8")};
  std::vector<float> weights_ = std::vector<float>(64, 1.0F);
  std::vector<float> grad_ = std::vector<float>(64, 0.5F);
};

TEST_F(MisuseOfOptimizer, Parameters) {
  expect_error(add(nullptr, {64}), NIBBLE_INVALID_ARGUMENT, "name is null");
  expect_error(add("w", {-4}), NIBBLE_INVALID_ARGUMENT, "negative extent -4");
  expect_error(add("w", {INT64_MAX, 3}), NIBBLE_INVALID_ARGUMENT, "too many elements");
  expect_error(add("w", {64}, "BF16"), NIBBLE_UNSUPPORTED, "\"BF16\"");
  expect_error(add("w", {64}, nullptr, "int5"), NIBBLE_UNSUPPORTED, "\"int5\"");
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they abort on such sizes
  expect_error(add("w", {INT64_MAX / 32}), NIBBLE_OUT_OF_MEMORY, "memory");
#endif
  auto desc = api::make<nibble_param_desc>();
  desc.name = "w", desc.n_dims = 2;
  expect_error(nibble_optimizer_add_param(optimizer_.get(), &desc, nullptr, nullptr),
               NIBBLE_INVALID_ARGUMENT, "shape is null");
  expect_error(nibble_optimizer_add_param(nullptr, &desc, nullptr, nullptr),
               NIBBLE_INVALID_ARGUMENT, "opt is null");
  std::int64_t count = -1;
  EXPECT_EQ(nibble_optimizer_param_count(optimizer_.get(), &count), NIBBLE_OK);
  EXPECT_EQ(count, 0) << "a refused parameter was added";
  EXPECT_EQ(add("scalar", {}), NIBBLE_OK);
  EXPECT_EQ(optimizer_.info(0).count, 1);
  EXPECT_EQ(add("empty", {0, 5}), NIBBLE_OK);
  EXPECT_EQ(optimizer_.info(1).count, 0);
}

TEST_F(MisuseOfOptimizer, StepsAndBinding) {
  const void* grads[] = {grad_.data(), nullptr};
  expect_error(step(grads, 1), NIBBLE_WRONG_ORDER, "no parameters");
  ASSERT_EQ(add("first", {64}), NIBBLE_OK);
  expect_error(step(grads, 1), NIBBLE_WRONG_ORDER, "\"first\") has no weights; bind first");
  expect_error(nibble_optimizer_bind(optimizer_.get(), 1, weights_.data()), NIBBLE_INVALID_ARGUMENT,
               "no parameter 1");
  expect_error(nibble_optimizer_bind(optimizer_.get(), -1, weights_.data()),
               NIBBLE_INVALID_ARGUMENT, "no parameter -1");
  expect_error(nibble_optimizer_bind(optimizer_.get(), 0, nullptr), NIBBLE_INVALID_ARGUMENT,
               "weights is null");
  ASSERT_EQ(nibble_optimizer_bind(optimizer_.get(), 0, weights_.data()), NIBBLE_OK);
  expect_error(step(grads, 2), NIBBLE_INVALID_ARGUMENT, "2 gradients for 1 parameters");
  expect_error(step(grads + 1, 1), NIBBLE_INVALID_ARGUMENT, "gradient of parameter 0");
  expect_error(step(nullptr, 1), NIBBLE_INVALID_ARGUMENT, "grads is null");
  expect_error(step(grads, 1, NAN), NIBBLE_INVALID_ARGUMENT, "grad_scale is nan");
  expect_error(step(grads, 1, 1e300), NIBBLE_INVALID_ARGUMENT, "grad_scale is inf");
  expect_error(nibble_optimizer_step(nullptr, nullptr), NIBBLE_INVALID_ARGUMENT, "opt is null");
  EXPECT_EQ(weights_, std::vector<float>(64, 1.0F));
  EXPECT_EQ(optimizer_.step_count(), 0);
  EXPECT_EQ(step(grads, 1), NIBBLE_OK);
  EXPECT_NE(weights_, std::vector<float>(64, 1.0F));
}

TEST_F(MisuseOfOptimizer, HyperParametersAndStates) {
  nibble_optimizer* opt = optimizer_.get();
  ASSERT_EQ(add("w", {64}), NIBBLE_OK);
  expect_error(nibble_optimizer_set_learning_rate(opt, NAN), NIBBLE_INVALID_ARGUMENT, "nan");
  expect_error(nibble_optimizer_set_hyper(opt, "momentum", 1), NIBBLE_INVALID_ARGUMENT, "momentum");
  double value = -1;
  EXPECT_EQ(nibble_optimizer_set_hyper(opt, "beta1", 0.0), NIBBLE_OK);
  EXPECT_EQ(nibble_optimizer_get_hyper(opt, "beta1", &value), NIBBLE_OK);
  EXPECT_EQ(value, 0.0);
  EXPECT_EQ(nibble_optimizer_get_hyper(opt, "learning_rate", &value), NIBBLE_OK);
  EXPECT_EQ(value, 1e-3) << "a refused value was kept";
  expect_error(nibble_optimizer_set_step_count(opt, -1), NIBBLE_INVALID_ARGUMENT, "-1");
  const auto state = optimizer_.state(0, 0);
  expect_error(nibble_optimizer_load_state(opt, 0, 0, weights_.data(), state.bytes - 1),
               NIBBLE_INVALID_ARGUMENT, "63 bytes given, it has 64");
  expect_error(nibble_optimizer_load_state(opt, 0, 0, nullptr, state.bytes),
               NIBBLE_INVALID_ARGUMENT, "data is null");
  expect_error(nibble_optimizer_load_state(opt, 0, 9, weights_.data(), 1), NIBBLE_INVALID_ARGUMENT,
               "no state 9");
  auto info = api::make<nibble_state_info>();
  info.struct_size = 4;
  expect_error(nibble_optimizer_state_info(opt, 0, 0, &info), NIBBLE_INVALID_ARGUMENT,
               "struct_size is 4");
}

TEST(Misuse, OfTensorFunctions) {
  auto desc = api::make<nibble_quantize_desc>();
  float x = 1, absmax = 0;
  std::uint8_t code = 0;
  expect_error(nibble_quantize(&desc, &x, -1, &code, &absmax), NIBBLE_INVALID_ARGUMENT, "-1");
  expect_error(nibble_quantize(&desc, nullptr, 1, &code, &absmax), NIBBLE_INVALID_ARGUMENT, "src");
  expect_error(nibble_quantize(&desc, &x, 1, nullptr, &absmax), NIBBLE_INVALID_ARGUMENT, "codes");
  expect_error(nibble_dequantize(&desc, &code, nullptr, 1, &x), NIBBLE_INVALID_ARGUMENT, "absmax");
  desc.format = "fp32";
  expect_error(nibble_quantize(&desc, &x, 1, &code, &absmax), NIBBLE_UNSUPPORTED, "fp32");
  const void* tensors[] = {nullptr};
  const std::int64_t counts[] = {3};
  double norm = 0;
  expect_error(nibble_global_norm(tensors, counts, nullptr, 1, &norm, nullptr), NIBBLE_INVALID_ARGUMENT,
               "tensor 0");
  expect_error(nibble_global_norm(tensors, counts, nullptr, 1, nullptr, nullptr), NIBBLE_INVALID_ARGUMENT,
               "out_norm");
  EXPECT_EQ(nibble_global_norm(nullptr, nullptr, nullptr, 0, &norm, nullptr), NIBBLE_OK);
  EXPECT_EQ(norm, 0.0);
}

TEST(Settings, AreCheckedAndAskedBack) {
  expect_error(nibble_set_thread_count(-1), NIBBLE_INVALID_ARGUMENT, "-1");
  expect_error(nibble_set_isa("mmx"), NIBBLE_INVALID_ARGUMENT, "\"mmx\"");
  for (const std::string& isa : usable_isas()) {
    const ScopedIsa forced(isa);
    EXPECT_EQ(nibble_isa_name(), isa);
    expect_error(nibble_set_isa("mmx"), NIBBLE_INVALID_ARGUMENT, "mmx");
    EXPECT_EQ(nibble_isa_name(), isa) << "a refused name changed the choice";
  }
  EXPECT_STREQ(nibble_version_string(), "0.1.0");
  EXPECT_STREQ(nibble_status_name(NIBBLE_NON_FINITE), "NIBBLE_NON_FINITE");
  EXPECT_STREQ(nibble_status_name(12345), "unknown status");
  EXPECT_EQ(nibble_rule_name(-1), nullptr);
  EXPECT_EQ(nibble_format_name(nibble_format_count()), nullptr);
  EXPECT_STREQ(nibble_rule_name(0), "adamw");
}

TEST(LastError, BelongsToItsThread) {
  nibble_set_thread_count(-5);
  const std::string mine = nibble_last_error();
  std::string fresh;
  std::thread([&] {
    fresh = nibble_last_error();
    nibble_set_isa("none of these");
  }).join();
  EXPECT_EQ(fresh, "no error");
  EXPECT_EQ(nibble_last_error(), mine);
}

TEST(ParamInfo, TellsWhatATensorReallyGot) {
  nibble_optimizer_desc desc = adamw_desc("int8");
  desc.min_quantized_elements = 0;  // the default, 4096
  api::Optimizer opt(desc);
  std::vector<float> weights(8192);
  opt.add("small", {4095}, weights.data());
  opt.add("large", {4, 2048}, weights.data());
  opt.add("forced", {100}, weights.data(), "int8");
  EXPECT_STREQ(opt.info(0).state_format, "fp32");
  EXPECT_NE(std::string(opt.info(0).reason).find("4096"), std::string::npos);
  EXPECT_EQ(opt.info(0).state_bytes, 4095U * 8);
  EXPECT_STREQ(opt.info(1).state_format, "int8");
  EXPECT_EQ(opt.info(1).block_size, 256);
  EXPECT_EQ(opt.info(1).state_bytes, 8192U * 2 + 32 * 2 * 4);
  EXPECT_STREQ(opt.info(2).state_format, "int8");
  EXPECT_STREQ(opt.state(1, 3).name, "exp_avg_sq.absmax");
  EXPECT_STREQ(opt.state(1, 3).dtype, "F32");
  EXPECT_EQ(opt.state(1, 3).count, 32);
}

}  // namespace
}  // namespace nibble::test
