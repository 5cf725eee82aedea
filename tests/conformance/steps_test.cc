// SPDX-License-Identifier: Apache-2.0
// What a step decides on the device: norms, policies, found_inf, groups, hyper-parameters from the
// device's memory, captured graphs, streams, checkpoints.
#include <cmath>
#include <limits>

#include "conformance/device_run.h"
#include "support/hyper_cases.h"
#include "support/misuse.h"
#include "support/paths.h"

namespace nibble::test {
namespace {

constexpr std::size_t kCount = 9001;

class DeviceSteps : public DeviceTest {};

nibble_step_desc step_desc() { return api::make<nibble_step_desc>(); }

TEST_F(DeviceSteps, NormsAndClippingAreTheHosts) {
  for (const double max_norm : {0.0, 1e-3, 1e9}) {
    TensorCase setup;
    CaseRun host(setup, make_input("normal", 200003));
    DeviceRun device(setup, make_input("normal", 200003));
    const auto grad = make_input("logscale", 200003, 1);
    double host_norm = 0;
    double device_norm = 1;
    auto desc = step_desc();
    desc.max_grad_norm = max_norm, desc.out_grad_norm = &device_norm;
    EXPECT_TRUE(device.step(grad, 0.5, desc));
    const void* grads[] = {grad.data()};
    desc.grads = grads, desc.n_grads = 1, desc.grad_scale = 0.5, desc.out_grad_norm = &host_norm;
    EXPECT_TRUE(host.optimizer().step(desc));
    EXPECT_EQ(host_norm, device_norm);
    EXPECT_TRUE(host.bytes() == device.bytes()) << max_norm;
  }
}

void expect_same_with_nonfinite(std::uint32_t policy, double max_norm) {
  TensorCase setup;
  setup.nonfinite = policy;
  CaseRun host(setup, make_input("normal", kCount));
  DeviceRun device(setup, make_input("normal", kCount));
  for (int t = 1; t <= 3; ++t) {
    auto grad = make_input("normal", kCount, static_cast<std::uint64_t>(t));
    if (t == 2) {
      grad[7] = std::numeric_limits<float>::quiet_NaN();
      grad[kCount - 1] = -std::numeric_limits<float>::infinity();
    }
    std::int64_t nonfinite = -1;
    const void* grads[] = {grad.data()};
    auto desc = step_desc();
    desc.max_grad_norm = max_norm;
    desc.grads = grads, desc.n_grads = 1, desc.grad_scale = 0.5;
    const bool on_host = host.optimizer().step(desc);
    desc.out_nonfinite = &nonfinite;
    EXPECT_EQ(device.step(grad, 0.5, desc), on_host);
    const bool looked = policy != NIBBLE_NONFINITE_PROPAGATE || max_norm > 0;
    EXPECT_EQ(nonfinite, t == 2 && looked ? 2 : 0);
  }
  EXPECT_EQ(host.optimizer().step_count(), device.optimizer().step_count());
  const auto host_bytes = host.bytes();
  const auto device_bytes = device.bytes();
  ASSERT_EQ(host_bytes.size(), device_bytes.size());
  for (std::size_t i = 0; i < host_bytes.size(); ++i) {
    EXPECT_TRUE(without_nan_bits(host_bytes[i]) == without_nan_bits(device_bytes[i]))
        << policy << " " << max_norm;
  }
}

TEST_F(DeviceSteps, NonFiniteGradientsUnderEachPolicy) {
  for (const auto policy :
       {NIBBLE_NONFINITE_SKIP_STEP, NIBBLE_NONFINITE_SKIP_ELEMENT, NIBBLE_NONFINITE_PROPAGATE}) {
    for (const double max_norm : {0.0, 0.5}) {
      expect_same_with_nonfinite(static_cast<std::uint32_t>(policy), max_norm);
    }
  }
}

TEST_F(DeviceSteps, WithoutWaitingTheOutcomeIsToldLater) {
  TensorCase setup;
  setup.nonfinite = NIBBLE_NONFINITE_SKIP_STEP;
  DeviceRun device(setup, make_input("normal", kCount));
  auto grad = make_input("normal", kCount, 1);
  EXPECT_EQ(nibble_optimizer_step_result(device.optimizer().get(), nullptr, nullptr, nullptr),
            NIBBLE_WRONG_ORDER);
  grad[3] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(device.step(grad));
  std::int32_t taken = 9;
  std::int64_t nonfinite = 0;
  api::check(nibble_optimizer_step_result(device.optimizer().get(), &taken, &nonfinite, nullptr));
  EXPECT_EQ(taken, 0);
  EXPECT_EQ(nonfinite, 1);
  EXPECT_EQ(device.optimizer().step_count(), 0);
}

TEST_F(DeviceSteps, FoundInfOnTheDeviceStopsTheStep) {
  TensorCase setup;
  CaseRun host(setup, make_input("normal", kCount));
  DeviceRun device(setup, make_input("normal", kCount));
  const OnDevice flag(std::vector<float>{1.0F});
  auto desc = step_desc();
  desc.found_inf = flag.floats();
  EXPECT_TRUE(device.step(make_input("normal", kCount, 1), 0.5, desc));
  EXPECT_TRUE(host.bytes() == device.bytes());
  EXPECT_EQ(device.optimizer().step_count(), 0);
}

TEST_F(DeviceSteps, HyperParametersChangeBetweenSteps) {
  TensorCase setup;
  CaseRun host(setup, make_input("normal", kCount));
  DeviceRun device(setup, make_input("normal", kCount));
  for (int t = 1; t <= 4; ++t) {
    const auto grad = make_input("normal", kCount, static_cast<std::uint64_t>(t));
    for (api::Optimizer* optimizer : {&host.optimizer(), &device.optimizer()}) {
      optimizer->set_learning_rate(0.01 / t);
      optimizer->set_hyper("beta1", 0.5 + 0.1 * t);
    }
    host.step(grad);
    device.step(grad);
  }
  EXPECT_TRUE(host.bytes() == device.bytes());
}

TEST_F(DeviceSteps, StepCountAndCheckpointsCrossBackends) {
  for (const char* format : {"fp32", "int8", "int4", "int4_rank1"}) {
    TensorCase setup;
    setup.format = format, setup.rows = 100, setup.weights = "bf16_master";
    const std::size_t n = 100 * 90;
    CaseRun host(setup, make_input("normal", n));
    DeviceRun device(setup, make_input("normal", n));
    for (std::uint64_t t = 1; t <= 2; ++t) {
      host.step(make_input("normal", n, t));
      device.step(make_input("normal", n, t));
    }
    const TemporaryDirectory temporary;
    const std::string from_host = (temporary.path() / "host").string();
    const std::string from_device = (temporary.path() / "device").string();
    host.optimizer().save(from_host);
    device.optimizer().save(from_device);
    device.optimizer().load(from_host);
    host.optimizer().load(from_device);
    EXPECT_EQ(device.optimizer().step_count(), 2);
    host.step(make_input("normal", n, 3));
    device.step(make_input("normal", n, 3));
    EXPECT_TRUE(host.bytes() == device.bytes()) << format;
  }
}

TEST_F(DeviceSteps, MisalignedTensors) {
  for (const char* weights : {"fp32", "bf16_stochastic", "int8_stochastic"}) {
    TensorCase setup;
    setup.weights = weights, setup.bf16_grads = true;
    CaseRun host(setup, make_input("normal", kCount));
    DeviceRun device(setup, make_input("normal", kCount), 4);
    host.step(make_input("normal", kCount, 1));
    device.step(make_input("normal", kCount, 1));
    EXPECT_TRUE(host.bytes() == device.bytes()) << weights;
  }
}

TEST_F(DeviceSteps, ACapturedStepReplaysWithItsLearningRateOnTheDevice) {
  TensorCase setup;
  CaseRun host(setup, make_input("normal", kCount));
  DeviceRun device(setup, make_input("normal", kCount));
  const auto grad = make_input("normal", kCount, 1);
  OnDevice rate(std::vector<float>{1e-3F});
  api::check(nibble_optimizer_bind_group_hyper(device.optimizer().get(), 0, "learning_rate",
                                               rate.floats()));
  cudaStream_t stream = nullptr;
  expect_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  device.set_grad(grad);
  const void* grads[] = {device.grad().get()};
  auto desc = step_desc();
  desc.grads = grads, desc.n_grads = 1, desc.grad_scale = 0.5, desc.stream = stream;
  EXPECT_TRUE(device.optimizer().step(desc));  // makes the tables

  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  expect_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  EXPECT_TRUE(device.optimizer().step(desc));
  expect_cuda(cudaStreamEndCapture(stream, &graph));
  expect_cuda(cudaGraphInstantiate(&replay, graph, 0));
  const float rates[] = {1e-3F, 1e-3F, 5e-4F, 1e-4F};
  for (std::size_t t = 0; t < std::size(rates); ++t) {
    if (t > 0) {
      expect_cuda(cudaStreamSynchronize(stream));
      rate.write(&rates[t]);
      expect_cuda(cudaGraphLaunch(replay, stream));
    }
    host.optimizer().set_learning_rate(double{rates[t]});
    host.step(grad);
  }
  expect_cuda(cudaStreamSynchronize(stream));
  EXPECT_EQ(device.optimizer().step_count(), 4);
  EXPECT_TRUE(host.bytes() == device.bytes());
  expect_cuda(cudaGraphExecDestroy(replay));
  expect_cuda(cudaGraphDestroy(graph));
  expect_cuda(cudaStreamDestroy(stream));
}

// In a graph a change would be made in each replay, and outside of it never.
TEST_F(DeviceSteps, WhatHasChangedIsNotCaptured) {
  DeviceRun run(TensorCase{}, make_input("normal", 300));
  const OnDevice other(make_input("normal", 300, 2));
  cudaStream_t stream = nullptr;
  expect_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  run.set_grad(make_input("normal", 300, 1));
  const void* grads[] = {run.grad().get()};
  auto desc = step_desc();
  desc.grads = grads, desc.n_grads = 1, desc.stream = stream;
  nibble_optimizer* opt = run.optimizer().get();
  const auto refused_while_capturing = [&] {
    cudaGraph_t graph = nullptr;
    expect_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    expect_failure(nibble_optimizer_step(opt, &desc), NIBBLE_WRONG_ORDER, "before the capture");
    expect_cuda(cudaStreamEndCapture(stream, &graph));
    expect_cuda(cudaGraphDestroy(graph));
  };
  refused_while_capturing();  // the first step makes tables
  EXPECT_TRUE(run.optimizer().step(desc));
  run.optimizer().set_learning_rate(0.5);
  refused_while_capturing();
  EXPECT_TRUE(run.optimizer().step(desc));
  api::check(nibble_optimizer_set_step_count(opt, 7));
  refused_while_capturing();
  EXPECT_TRUE(run.optimizer().step(desc));
  std::int64_t nonfinite = 0;
  desc.out_nonfinite = &nonfinite;
  refused_while_capturing();
  desc.out_nonfinite = nullptr, desc.collect_errors = 1;
  refused_while_capturing();
  desc.collect_errors = 0, grads[0] = other.get();
  refused_while_capturing();
  EXPECT_TRUE(run.optimizer().step(desc));
  EXPECT_EQ(run.optimizer().step_count(), 9);
  expect_cuda(cudaStreamDestroy(stream));
}

// Memory that is given back while a stream captures is not given out before the device is idle.
TEST_F(DeviceSteps, WhatIsFreedDuringACaptureWaits) {
  cudaStream_t stream = nullptr;
  expect_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  void* first = nullptr;
  void* second = nullptr;
  api::check(nibble_device_allocate("cuda", "device", 1234567, "first", &first));
  expect_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  api::check(nibble_device_free("cuda", first));
  static_cast<void>(nibble_device_allocate("cuda", "device", 1234567, "second", &second));
  EXPECT_NE(first, second);
  cudaGraph_t graph = nullptr;
  static_cast<void>(cudaStreamEndCapture(stream, &graph));
  static_cast<void>(cudaGetLastError());
  if (graph != nullptr) {
    expect_cuda(cudaGraphDestroy(graph));
  }
  void* third = nullptr;
  api::check(nibble_device_allocate("cuda", "device", 1234567, "third", &third));
  EXPECT_EQ(first, third);
  api::check(nibble_device_free("cuda", second));
  api::check(nibble_device_free("cuda", third));
  expect_cuda(cudaStreamDestroy(stream));
}

TEST_F(DeviceSteps, WhatIsBoundIsItsGroups) {
  const OnDevice rate(std::vector<float>{1.0F});
  auto desc = adamw_desc("fp32");
  desc.device = "cuda", desc.learning_rate = 1e-3;
  api::Optimizer optimizer(desc);
  nibble_optimizer* opt = optimizer.get();
  api::check(nibble_optimizer_bind_group_hyper(opt, 0, "learning_rate", rate.floats()));
  optimizer.add_group({{"learning_rate", 0.25}, {"momentum", 0}}, "sgd");
  const OnDevice weights(std::vector<float>(100, 0.0F));
  const OnDevice grad(std::vector<float>(100, 1.0F));
  auto param = api::make<nibble_param_desc>();
  const std::int64_t n = 100;
  param.name = "w", param.n_dims = 1, param.shape = &n, param.group = 1;
  optimizer.add_param(param);
  optimizer.bind(0, weights.get());
  optimizer.step({grad.get()});
  EXPECT_EQ(weights.read<float>(), std::vector<float>(100, -0.25F));
  expect_failure(nibble_optimizer_bind_group_hyper(opt, 1, "momentum", rate.floats()),
                 NIBBLE_WRONG_ORDER, "has no state");
  optimizer.add_group({}, "muon");
  expect_failure(nibble_optimizer_bind_group_hyper(opt, 2, "ns_steps", rate.floats()),
                 NIBBLE_UNSUPPORTED, "decides what is launched");
}

// Thousands of small tensors, of two rules and several formats, in one call.
TEST_F(DeviceSteps, ManySmallTensorsInGroups) {
  constexpr int kTensors = 1100;
  std::vector<std::vector<float>> host_weights, device_grads_source;
  std::vector<OnDevice> weights, grads;
  std::vector<const void*> host_pointers, device_pointers;
  const auto make = [&](const char* device) {
    auto desc = adamw_desc("int8");
    desc.device = device;
    api::Optimizer out(desc);
    out.add_group({{"momentum", 0.9}}, "sgd");
    return out;
  };
  api::Optimizer host = make(nullptr);
  api::Optimizer device = make("cuda");
  for (int i = 0; i < kTensors; ++i) {
    const auto n = static_cast<std::size_t>(1 + i % 300);
    host_weights.push_back(make_input("normal", n, static_cast<std::uint64_t>(i)));
    device_grads_source.push_back(make_input("normal", n, static_cast<std::uint64_t>(5000 + i)));
    weights.emplace_back(host_weights.back());
    grads.emplace_back(device_grads_source.back());
    device_pointers.push_back(grads.back().get());
  }
  for (int i = 0; i < kTensors; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const auto n = static_cast<std::int64_t>(host_weights[at].size());
    const std::string name = std::to_string(i);
    const char* format = i % 7 == 0 ? "int4" : (i % 5 == 0 ? "fp32" : nullptr);
    host.add(name, {n}, host_weights[at].data(), format, i % 2);
    device.add(name, {n}, weights[at].get(), format, i % 2);
    host_pointers.push_back(device_grads_source[at].data());
  }
  double host_norm = 0.0;
  double device_norm = 1.0;
  const auto step = [](api::Optimizer& optimizer, const std::vector<const void*>& of,
                       double* norm) {
    auto step_desc = api::make<nibble_step_desc>();
    step_desc.grads = of.data(), step_desc.n_grads = kTensors;
    step_desc.max_grad_norm = 3.0, step_desc.out_grad_norm = norm;
    EXPECT_TRUE(optimizer.step(step_desc));
  };
  for (int t = 0; t < 2; ++t) {
    step(host, host_pointers, &host_norm);
    step(device, device_pointers, &device_norm);
    EXPECT_EQ(host_norm, device_norm);
  }
  for (std::size_t i = 0; i < kTensors; ++i) {
    ASSERT_TRUE(weights[i].read<float>() == host_weights[i]) << i;
  }
}

TEST_F(DeviceSteps, ErrorsOfStatesAreTheHosts) {
  struct Choice {
    const char *rule, *format;
  };
  for (const auto& [rule, format] : {Choice{"adamw", "int8"},
                                     {"adamw", "int4_rank1"},
                                     {"adamw", "bf16"},
                                     {"muon", "int8"},
                                     {"adafactor", "int8"}}) {
    SCOPED_TRACE(std::string(rule) + " " + format);
    TensorCase setup;
    setup.rule = rule, setup.format = format, setup.rows = 101;
    if (setup.rule == "adafactor") {
      setup.hypers = {{"beta1", 0.9}};
    }
    const std::size_t n = 101 * 97;
    CaseRun host(setup, make_input("normal", n));
    DeviceRun device(setup, make_input("normal", n));
    for (std::uint64_t t = 1; t <= 2; ++t) {
      const auto grad = make_input("logscale", n, t);
      auto desc = step_desc();
      desc.collect_errors = 1;
      device.step(grad, 0.5, desc);
      const void* grads[] = {grad.data()};
      desc.grads = grads, desc.n_grads = 1, desc.grad_scale = 0.5;
      host.optimizer().step(desc);
    }
    EXPECT_TRUE(host.bytes() == device.bytes()) << format;
    const std::int64_t states = setup.rule == "adamw" ? 2 : 1;
    for (std::int64_t s = 0; s < states; ++s) {
      auto expected = api::make<nibble_state_error>();
      auto found = expected;
      api::check(nibble_optimizer_state_error(host.optimizer().get(), 0, s, &expected));
      api::check(nibble_optimizer_state_error(device.optimizer().get(), 0, s, &found));
      EXPECT_GT(expected.relative_rms, 0);
      EXPECT_NEAR(found.relative_rms, expected.relative_rms, 1e-12 * expected.relative_rms);
      EXPECT_EQ(found.largest, expected.largest);
      EXPECT_EQ(found.lost, expected.lost);
    }
  }
}

TEST_F(DeviceSteps, EachHyperParameterAsOnTheHost) {
  const std::size_t n = std::size_t{12} * 20;
  for (const HyperCase& entry : hyper_cases(12)) {
    DeviceRun device(entry.changed, make_input("normal", n, 50));
    for (std::uint64_t t = 1; t <= 3; ++t) {
      device.step(make_input("normal", n, t));
    }
    EXPECT_TRUE(device.bytes() == bytes_after(entry.changed, "normal", n, 3)) << entry.name;
  }
}

// A trust ratio of weights or of updates that are all zero is 1.
TEST_F(DeviceSteps, TrustRatioOfZeros) {
  TensorCase setup;
  setup.rule = "lamb", setup.format = "fp32";
  for (const char* weights : {"zeros", "normal"}) {
    for (const char* grads : {"normal", "zeros"}) {
      CaseRun host(setup, make_input(weights, 300));
      DeviceRun device(setup, make_input(weights, 300));
      for (std::uint64_t t = 1; t <= 2; ++t) {
        host.step(make_input(grads, 300, t));
        device.step(make_input(grads, 300, t));
      }
      EXPECT_TRUE(device.bytes() == host.bytes()) << weights << " " << grads;
    }
  }
}

TEST_F(DeviceSteps, StatesOfDifferentFormats) {
  for (const char* rule : {"adamw", "amsgrad", "ademamix"}) {
    TensorCase setup;
    setup.rule = rule, setup.format = "exp_avg=int4,exp_avg_sq=fp32";
    if (setup.rule == "ademamix") {
      setup.format = "exp_avg=int4,exp_avg_sq=fp32";
    }
    const std::size_t n = 5003;
    DeviceRun device(setup, make_input("normal", n, 50));
    for (std::uint64_t t = 1; t <= 3; ++t) {
      device.step(make_input("normal", n, t));
    }
    EXPECT_TRUE(device.bytes() == bytes_after(setup, "normal", n, 3)) << rule;
  }
}

TEST_F(DeviceSteps, OfNoElements) {
  auto desc = adamw_desc("int8");
  desc.device = "cuda";
  api::Optimizer optimizer(desc);
  auto param = api::make<nibble_param_desc>();
  const std::int64_t n = 0;
  param.name = "empty", param.n_dims = 1, param.shape = &n;
  optimizer.add_param(param);
  auto step = step_desc();
  double norm = -1;
  const void* grads[] = {nullptr};
  step.grads = grads, step.n_grads = 1, step.out_grad_norm = &norm;
  EXPECT_TRUE(optimizer.step(step));
  EXPECT_EQ(norm, 0);
}

TEST_F(DeviceSteps, WhatTheDriverRefusesIsAnErrorOfItsOwn) {
  DeviceRun run(TensorCase{}, make_input("normal", 100));
  run.step(make_input("normal", 100, 1));
  cudaStream_t stream = nullptr;
  expect_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  expect_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  // Waiting for the device is not for a time of capture.
  expect_failure(nibble_optimizer_save(run.optimizer().get(), "never"), NIBBLE_INTERNAL, "CUDA: ");
  cudaGraph_t graph = nullptr;
  static_cast<void>(cudaStreamEndCapture(stream, &graph));
  expect_cuda(cudaStreamDestroy(stream));
  static_cast<void>(cudaGetLastError());
}

TEST_F(DeviceSteps, MemoryOfTheHostIsRefused) {
  auto desc = adamw_desc("int8");
  desc.device = "cuda";
  api::Optimizer optimizer(desc);
  std::vector<float> host(5000, 1.0F);
  auto param = api::make<nibble_param_desc>();
  const std::int64_t n = 5000;
  param.name = "w", param.n_dims = 1, param.shape = &n;
  optimizer.add_param(param);
  EXPECT_EQ(nibble_optimizer_bind(optimizer.get(), 0, host.data()), NIBBLE_INVALID_ARGUMENT);
  const OnDevice weights(host);
  optimizer.bind(0, weights.get());
  const void* grads[] = {host.data()};
  auto step = step_desc();
  step.grads = grads, step.n_grads = 1;
  EXPECT_EQ(nibble_optimizer_step(optimizer.get(), &step), NIBBLE_INVALID_ARGUMENT);
  EXPECT_NE(std::string(nibble_last_error()).find("gradient"), std::string::npos);
}

}  // namespace
}  // namespace nibble::test
