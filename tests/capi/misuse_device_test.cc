// SPDX-License-Identifier: Apache-2.0
// Misuse of what is for devices, in a library without one (tests/conformance has the rest).
#include "support/misuse.h"

namespace nibble::test {
namespace {

TEST(MisuseOfDevices, Names) {
  nibble_optimizer* out = nullptr;
  auto desc = adamw_desc("int8");
  for (const char* name : {"gpu", "cuda:", "cuda:x", "cuda:1234", "cuda1", "CUDA", ""}) {
    desc.device = name;
    expect_failure(nibble_optimizer_create(&out, &desc), NIBBLE_INVALID_ARGUMENT, "device \"");
    EXPECT_EQ(out, nullptr);
  }
  desc.device = "host";
  EXPECT_EQ(nibble_optimizer_create(&out, &desc), NIBBLE_OK);
  nibble_optimizer_destroy(out);
  auto quantize = api::make<nibble_quantize_desc>();
  quantize.device = "gpu";
  const float x = 1;
  float scale = 0;
  std::uint8_t code = 0;
  expect_failure(nibble_quantize(&quantize, &x, 1, &code, &scale), NIBBLE_INVALID_ARGUMENT,
                 "device \"gpu\"");
  expect_failure(nibble_dequantize(&quantize, &code, &scale, 1, &scale), NIBBLE_INVALID_ARGUMENT,
                 "device \"gpu\"");
}

TEST(MisuseOfDevices, OnTheHost) {
  const OneTensor one(adamw_desc("fp32"), std::vector<float>(8, 1.0F));
  nibble_optimizer* opt = one.optimizer.get();
  std::int32_t taken = 7;
  const float value = 1;
  expect_failure(nibble_optimizer_step_result(nullptr, &taken, nullptr, nullptr),
                 NIBBLE_INVALID_ARGUMENT, "opt is null");
  expect_failure(nibble_optimizer_step_result(opt, &taken, nullptr, nullptr), NIBBLE_WRONG_ORDER,
                 "no step on a device");
  EXPECT_EQ(taken, 7);
  expect_failure(nibble_optimizer_bind_group_hyper(nullptr, 0, "beta1", &value),
                 NIBBLE_INVALID_ARGUMENT, "opt is null");
  expect_failure(nibble_optimizer_bind_group_hyper(opt, 0, nullptr, &value),
                 NIBBLE_INVALID_ARGUMENT, "name is null");
  expect_failure(nibble_optimizer_bind_group_hyper(opt, 0, "beta1", &value), NIBBLE_UNSUPPORTED,
                 "not on a device");
}

TEST(MisuseOfDevices, FunctionsThatNeedOne) {
  float sum = 0;
  const float x = 1;
  auto entry = api::make<nibble_device_allocation>();
  for (const char* device : {static_cast<const char*>(nullptr), "host"}) {
    expect_failure(nibble_device_accumulate(device, nullptr, &sum, &x, "F32", 1, 1),
                   NIBBLE_INVALID_ARGUMENT, "\"cuda\"");
    expect_failure(nibble_device_decode_ggml(device, nullptr, "F32", &x, 1, &sum),
                   NIBBLE_INVALID_ARGUMENT, "\"cuda\"");
    expect_failure(nibble_device_set_memory_limit(device, 1), NIBBLE_INVALID_ARGUMENT, "\"cuda\"");
    void* memory = &sum;
    expect_failure(nibble_device_allocate(device, "device", 4, "x", &memory),
                   NIBBLE_INVALID_ARGUMENT, "\"cuda\"");
    EXPECT_EQ(memory, &sum);
    expect_failure(nibble_device_free(device, &sum), NIBBLE_INVALID_ARGUMENT, "\"cuda\"");
    expect_failure(nibble_device_copy(device, nullptr, &sum, &x, 4), NIBBLE_INVALID_ARGUMENT,
                   "\"cuda\"");
    expect_failure(nibble_device_allocations(device, 0, &entry), NIBBLE_INVALID_ARGUMENT,
                   "\"cuda\"");
  }
  EXPECT_EQ(sum, 0);
}

// Without CUDA, or without a GPU.
TEST(MisuseOfDevices, CudaThatIsNotThere) {
  nibble_optimizer* out = nullptr;
  auto desc = adamw_desc("int8");
  desc.device = "cuda:99";
  expect_failure(nibble_optimizer_create(&out, &desc), NIBBLE_UNSUPPORTED, "CUDA");
  EXPECT_EQ(out, nullptr);
  expect_failure(nibble_device_set_memory_limit("cuda:99", 1), NIBBLE_UNSUPPORTED, "CUDA");
}

}  // namespace
}  // namespace nibble::test
