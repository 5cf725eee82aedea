// SPDX-License-Identifier: Apache-2.0
// Misuse of a device: the code, a message that names the fault, and nothing changed.
#include "support/misuse.h"

#include "conformance/device_run.h"

namespace nibble::test {
namespace {

class DeviceMisuse : public DeviceTest {};

TEST_F(DeviceMisuse, Tensors) {
  const OnDevice device(std::vector<float>(64, 1.0F));
  std::vector<float> host(64, 1.0F);
  float* on = device.floats();
  const auto accumulate = [&](float* sum, const void* x, const char* dtype, std::int64_t n,
                              double scale) {
    return nibble_device_accumulate("cuda", nullptr, sum, x, dtype, n, scale);
  };
  expect_failure(accumulate(host.data(), on, "F32", 64, 1), NIBBLE_INVALID_ARGUMENT, "sum at");
  expect_failure(accumulate(on, host.data(), "F32", 64, 1), NIBBLE_INVALID_ARGUMENT, "x at");
  expect_failure(accumulate(nullptr, on, "F32", 64, 1), NIBBLE_INVALID_ARGUMENT, "sum is null");
  expect_failure(accumulate(on, on, "F64", 64, 1), NIBBLE_UNSUPPORTED, "F64");
  expect_failure(accumulate(on, on, "F32", -1, 1), NIBBLE_INVALID_ARGUMENT, "count is -1");
  expect_failure(accumulate(on, on, "F32", 64, 1e300), NIBBLE_INVALID_ARGUMENT, "scale is");
  expect_failure(nibble_device_decode_ggml("cuda", nullptr, "Q9_9", on, 1, on), NIBBLE_UNSUPPORTED,
                 "Q9_9");
  expect_failure(nibble_device_decode_ggml("cuda", nullptr, nullptr, on, 1, on),
                 NIBBLE_INVALID_ARGUMENT, "type is null");
  expect_failure(nibble_device_decode_ggml("cuda", nullptr, "F32", host.data(), 1, on),
                 NIBBLE_INVALID_ARGUMENT, "blocks at");
  auto desc = api::make<nibble_quantize_desc>();
  desc.device = "cuda";
  expect_failure(nibble_quantize(&desc, host.data(), 64, on, on), NIBBLE_INVALID_ARGUMENT,
                 "not memory of cuda:0");
  EXPECT_EQ(device.read<float>(), host);
}

TEST_F(DeviceMisuse, Optimizers) {
  auto desc = adamw_desc("int8");
  desc.device = "cuda:999";
  nibble_optimizer* none = nullptr;
  expect_failure(nibble_optimizer_create(&none, &desc), NIBBLE_UNSUPPORTED, "no CUDA device 999");
  TensorCase setup;
  DeviceRun run(setup, make_input("normal", 5000));
  run.step(make_input("normal", 5000, 1));
  const auto before = run.bytes();
  nibble_optimizer* opt = run.optimizer().get();
  float host = 1;
  expect_failure(nibble_optimizer_bind_group_hyper(opt, 0, "beta1", &host), NIBBLE_INVALID_ARGUMENT,
                 "is not a float in memory of cuda:0");
  const OnDevice value(std::vector<float>(4, 0.5F), 2);
  expect_failure(nibble_optimizer_bind_group_hyper(opt, 0, "beta1", value.floats()),
                 NIBBLE_INVALID_ARGUMENT, "is not a float in memory of cuda:0");
  const OnDevice odd(make_input("normal", 5000), 2);
  const void* grads[] = {odd.get()};
  auto step = api::make<nibble_step_desc>();
  step.grads = grads, step.n_grads = 1;
  expect_failure(nibble_optimizer_step(opt, &step), NIBBLE_INVALID_ARGUMENT, "is not aligned");
  const OnDevice grad(make_input("normal", 5000));
  grads[0] = grad.get(), step.found_inf = &host;
  expect_failure(nibble_optimizer_step(opt, &step), NIBBLE_INVALID_ARGUMENT, "found_inf: ");
  expect_failure(nibble_optimizer_bind_group_hyper(opt, 0, "beta9", nullptr),
                 NIBBLE_INVALID_ARGUMENT, "beta9");
  expect_failure(nibble_optimizer_bind_group_hyper(opt, 5, "beta1", nullptr),
                 NIBBLE_INVALID_ARGUMENT, "no group 5");
  expect_failure(nibble_optimizer_bind(opt, 0, &host), NIBBLE_INVALID_ARGUMENT, "weights at");
  auto entry = api::make<nibble_device_allocation>();
  expect_failure(nibble_device_allocations("cuda", 1000, &entry), NIBBLE_INVALID_ARGUMENT,
                 "no allocation 1000");
  expect_failure(nibble_device_allocations("cuda", 0, nullptr), NIBBLE_INVALID_ARGUMENT, "null");
  EXPECT_TRUE(run.bytes() == before);
  EXPECT_EQ(run.optimizer().step_count(), 1);
}

}  // namespace
}  // namespace nibble::test
