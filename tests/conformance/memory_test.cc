// SPDX-License-Identifier: Apache-2.0
// A card that is too small, allocations that fail, memory that is given back.
#include <cstring>

#include "conformance/device_run.h"
#include "support/misuse.h"

namespace nibble::test {
namespace {

class DeviceMemory : public DeviceTest {
 protected:
  void TearDown() override {
    nibble_device_set_memory_limit("cuda", 0);  // also empties the cache
  }
};

std::vector<std::string> purposes() {
  std::vector<std::string> out;
  auto entry = api::make<nibble_device_allocation>();
  for (std::int64_t i = 0; nibble_device_allocations("cuda", i, &entry) == NIBBLE_OK; ++i) {
    out.emplace_back(entry.purpose);
  }
  return out;
}

void add_param(api::Optimizer& optimizer, const std::string& name, std::int64_t n) {
  auto param = api::make<nibble_param_desc>();
  param.name = name.c_str(), param.n_dims = 1, param.shape = &n;
  optimizer.add_param(param);
}

TEST_F(DeviceMemory, StatesBeyondTheLimitAreOneErrorWithATable) {
  auto desc = adamw_desc("fp32");
  desc.device = "cuda";
  api::Optimizer optimizer(desc);
  api::check(nibble_device_set_memory_limit("cuda", 64ULL << 20));
  add_param(optimizer, "fits", 6 << 20);  // 48 MiB of states
  try {
    add_param(optimizer, "does not", 4 << 20);
    FAIL() << "64 MiB hold 80";
  } catch (const api::Error& error) {
    EXPECT_EQ(error.status(), NIBBLE_OUT_OF_MEMORY);
    const std::string what = error.what();
    for (const char* part : {"exp_avg", "24.00 MiB", "64.00", "(the limit)", "16.00 MiB"}) {
      EXPECT_NE(what.find(part), std::string::npos) << part << ": " << what;
    }
  }
  std::int64_t count = 0;
  api::check(nibble_optimizer_param_count(optimizer.get(), &count));
  EXPECT_EQ(count, 1);
  add_param(optimizer, "does", 1 << 20);
}

TEST_F(DeviceMemory, ASmallCardIsOneErrorToo) {
  if (!cuda_host::is_stand_in()) {
    GTEST_SKIP() << "a GPU's memory cannot be set";
  }
  cuda_host::settings().memory = 64 << 20;
  auto desc = adamw_desc("int8");
  desc.device = "cuda";
  api::Optimizer optimizer(desc);
  try {
    add_param(optimizer, "large", 40 << 20);
    FAIL() << "80 MiB of states on a card of 64";
  } catch (const api::Error& error) {
    EXPECT_EQ(error.status(), NIBBLE_OUT_OF_MEMORY);
    EXPECT_NE(std::string(error.what()).find("free on the device"), std::string::npos)
        << error.what();
  }
}

// Each allocation of an optimizer and its first step fails once.
void fail_each_allocation(const TensorCase& setup) {
  const auto grad = make_input("normal", 9000, 1);
  CaseRun host(setup, make_input("normal", 9000));
  host.step(grad);
  const std::size_t before = cuda_host::live_device_allocations();
  bool failed = true;
  for (std::int64_t n = 1; failed && n < 100; ++n) {
    api::check(nibble_device_set_memory_limit("cuda", 0));
    cuda_host::reset();
    failed = false;
    {
      // The tests' own tensors come first, so that only the library's allocations fail.
      CaseRun initial(setup, make_input("normal", 9000));
      const OnDevice weights(initial.data());
      const OnDevice device_grad(grad);
      cuda_host::reset();
      cuda_host::settings().fail_allocation = n;
      const auto attempt = [&](const auto& call) {
        try {
          call();
        } catch (const api::Error& error) {
          failed = true;
          EXPECT_EQ(error.status(), NIBBLE_OUT_OF_MEMORY) << error.what();
          call();  // only that one failed
        }
      };
      std::vector<api::Optimizer> optimizer;
      attempt([&] { optimizer.push_back(make_optimizer(setup, 9000, "cuda")); });
      optimizer[0].bind(0, weights.get());
      attempt([&] { optimizer[0].step({device_grad.get()}, 0.5); });
      cuda_host::settings().fail_allocation = 0;
      EXPECT_EQ(optimizer[0].step_count(), 1);
      EXPECT_TRUE(weights.read() == host.data()) << n;
    }
    api::check(nibble_device_set_memory_limit("cuda", 0));
    EXPECT_EQ(cuda_host::live_device_allocations(), before) << n;
    EXPECT_EQ(cuda_host::live_pinned_allocations(), 0U) << n;
  }
  EXPECT_FALSE(failed);
}

TEST_F(DeviceMemory, EachFailingAllocationChangesNothingAndLeaksNothing) {
  if (!cuda_host::is_stand_in()) {
    GTEST_SKIP() << "allocations of a GPU do not fail to order";
  }
  TensorCase setup;
  setup.rows = 90, setup.format = "int4_rank1", setup.weights = "bf16_master";
  fail_each_allocation(setup);
  setup.rule = "muon", setup.format = "int8";
  fail_each_allocation(setup);
}

// A planner is told before the first step, by the host too; then it is one allocation.
TEST_F(DeviceMemory, ScratchOfMatrixRulesIsToldWhenParametersAreAdded) {
  for (const char* rule : {"muon", "adafactor"}) {
    TensorCase setup;
    setup.rule = rule, setup.format = "fp32", setup.rows = 90;
    const api::Optimizer host = make_optimizer(setup, 9000);
    DeviceRun device(setup, make_input("normal", 9000));
    std::uint64_t of_host = 0;
    std::uint64_t of_device = 0;
    api::check(nibble_optimizer_workspace_bytes(host.get(), &of_host));
    api::check(nibble_optimizer_workspace_bytes(device.optimizer().get(), &of_device));
    EXPECT_GE(of_device, 9000 * sizeof(float)) << rule;
    EXPECT_EQ(of_host, of_device) << rule;
    device.step(make_input("normal", 9000, 1));
    auto entry = api::make<nibble_device_allocation>();
    std::uint64_t held = 0;
    for (std::int64_t i = 0; nibble_device_allocations("cuda", i, &entry) == NIBBLE_OK; ++i) {
      held += std::string(entry.purpose) == "workspace of matrix rules" ? entry.bytes : 0;
    }
    EXPECT_GE(held, of_device) << rule;
    EXPECT_LE(held, of_device + of_device / 8) << rule;
  }
}

TEST_F(DeviceMemory, AllocationsAreListedByPurposeAndGivenBack) {
  {
    TensorCase setup;
    DeviceRun run(setup, make_input("normal", 9000));
    run.step(make_input("normal", 9000, 1));
    const auto found = purposes();
    for (const char* purpose : {"exp_avg", "exp_avg.scale", "exp_avg_sq", "tables of chunks"}) {
      EXPECT_NE(std::find(found.begin(), found.end(), purpose), found.end()) << purpose;
    }
  }
  EXPECT_TRUE(purposes().empty());
}

TEST_F(DeviceMemory, OfAProgramIsFromTheSamePool) {
  api::check(nibble_device_set_memory_limit("cuda", 1 << 20));
  void* weights = nullptr;
  void* pinned = nullptr;
  api::check(nibble_device_allocate("cuda", "device", 1 << 19, "weights", &weights));
  api::check(nibble_device_allocate("cuda", "pinned", 1 << 22, "batches", &pinned));
  auto entry = api::make<nibble_device_allocation>();
  api::check(nibble_device_allocations("cuda", 0, &entry));  // the larger one
  EXPECT_EQ(std::string(entry.purpose), "batches");
  EXPECT_EQ(entry.is_pinned, 1U);
  EXPECT_EQ(entry.bytes, 1U << 22);
  api::check(nibble_device_allocations("cuda", 1, &entry));
  EXPECT_EQ(std::string(entry.purpose), "weights");
  EXPECT_EQ(entry.is_pinned, 0U);
  void* more = nullptr;
  expect_failure(nibble_device_allocate("cuda", nullptr, (1 << 19) + 1, "gradients", &more),
                 NIBBLE_OUT_OF_MEMORY, "weights 0.50 MiB (1 allocations)");
  EXPECT_EQ(more, nullptr);

  const auto source = make_input("normal", 1000);
  std::memcpy(pinned, source.data(), 4000);
  std::vector<float> back(1000);
  api::check(nibble_device_copy("cuda", nullptr, weights, pinned, 4000));
  api::check(nibble_device_copy("cuda", nullptr, back.data(), weights, 4000));
  expect_cuda(cudaDeviceSynchronize());
  EXPECT_TRUE(back == source);

  expect_failure(nibble_device_allocate("cuda", "managed", 1, "x", &more), NIBBLE_INVALID_ARGUMENT,
                 "\"managed\"");
  expect_failure(nibble_device_free("cuda", back.data()), NIBBLE_INVALID_ARGUMENT,
                 "not what nibble_device_allocate gave");
  expect_failure(nibble_device_allocate("cuda", "device", 1, "x", nullptr), NIBBLE_INVALID_ARGUMENT,
                 "out is null");
  expect_failure(nibble_device_copy("cuda", nullptr, nullptr, pinned, 1), NIBBLE_INVALID_ARGUMENT,
                 "dst is null");
  expect_failure(nibble_device_copy("cuda", nullptr, weights, nullptr, 1), NIBBLE_INVALID_ARGUMENT,
                 "src is null");
  api::check(nibble_device_free("cuda", nullptr));
  api::check(nibble_device_free("cuda", weights));
  api::check(nibble_device_free("cuda", pinned));
  expect_failure(nibble_device_free("cuda", pinned), NIBBLE_INVALID_ARGUMENT, "not what");
  EXPECT_TRUE(purposes().empty());
}

TEST_F(DeviceMemory, PinnedMemoryThatFailsIsOneError) {
  if (!cuda_host::is_stand_in()) {
    GTEST_SKIP() << "allocations of a GPU do not fail to order";
  }
  cuda_host::reset();
  cuda_host::settings().fail_allocation = 1;
  void* memory = nullptr;
  // The pool drops its cache and tries once more.
  api::check(nibble_device_allocate("cuda", "pinned", 100, "batches", &memory));
  api::check(nibble_device_free("cuda", memory));
}

// In lazy mode work runs as late as it may: memory that is given out again too early would show.
TEST_F(DeviceMemory, LazyStreamsShowNoEarlyReuse) {
  TensorCase setup;
  CaseRun host(setup, make_input("normal", 20000));
  for (std::uint64_t t = 1; t <= 3; ++t) {
    host.step(make_input("normal", 20000, t));
  }
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    cuda_host::settings().streams = cuda_host::Streams::kLazy;
    cuda_host::settings().seed = seed;
    cudaStream_t stream = nullptr;
    expect_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    std::vector<std::vector<std::uint8_t>> found;
    {
      DeviceRun run(setup, make_input("normal", 20000));
      for (std::uint64_t t = 1; t <= 3; ++t) {
        auto desc = api::make<nibble_step_desc>();
        desc.stream = stream;
        run.step(make_input("normal", 20000, t), 0.5, desc);
        // Another optimizer comes and goes while the step waits in its stream.
        DeviceRun other(setup, make_input("normal", 20000));
        other.step(make_input("normal", 20000, 9));
        expect_cuda(cudaStreamSynchronize(stream));  // the gradient's memory is the test's own
      }
      found = run.bytes();
    }
    EXPECT_TRUE(found == host.bytes()) << seed;
    expect_cuda(cudaStreamDestroy(stream));
  }
}

}  // namespace
}  // namespace nibble::test
