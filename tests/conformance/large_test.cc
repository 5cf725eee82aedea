// SPDX-License-Identifier: Apache-2.0
// More than 2^31 elements. Only the last chunk is there: the tensor's other memory is never
// touched, so pointers are moved back by what it would take.
#include "backend/backend.h"
#include "conformance/device_run.h"
#include "cuda/optim/launch.h"

namespace nibble::test {
namespace {

constexpr std::int64_t kFirst = (std::int64_t{1} << 32) + 3 * cuda::kChunk;
constexpr std::int64_t kThere = 1999;  // whole blocks and a tail
constexpr std::int64_t kBlock = 256;

// The pointer of element 0 of a tensor whose element kFirst is at `p`.
template <class T>
T* moved_back(T* p, std::int64_t elements) {
  return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(p) -
                              static_cast<std::uintptr_t>(elements) * sizeof(T));
}

struct Arrays {
  std::uint8_t *weights, *first, *second;
  float *first_scale, *second_scale;
  const float* grads;
};

backend::StepTask task_of(const Arrays& at) {
  backend::StepTask task;
  task.rule = math::find_rule("adamw");
  task.weights.format = math::find_weights("bf16_stochastic");
  task.weights.data = moved_back(at.weights, 2 * kFirst);
  task.grads = {moved_back(at.grads, kFirst), false};
  task.state[0] = {math::find_format("int8"),
                   moved_back(at.first, kFirst),
                   moved_back(at.first_scale, kFirst / kBlock),
                   {}};
  task.state[1] = {math::find_format("int8"),
                   moved_back(at.second, kFirst),
                   moved_back(at.second_scale, kFirst / kBlock),
                   {}};
  task.block = kBlock;
  task.random = {77, 5, 1, math::RandomPurpose::kRounding};
  return task;
}

class DeviceLarge : public DeviceTest {};

TEST_F(DeviceLarge, ElementsBeyondTwoToThe32) {
  const auto n = static_cast<std::size_t>(kThere);
  const auto blocks = static_cast<std::size_t>(math::block_count(kThere, kBlock));
  std::vector<math::bf16> weights;
  for (const float w : make_input("normal", n)) {
    weights.push_back(math::float_to_bf16(w));
  }
  std::vector<std::uint8_t> first(n, 127), second(n, 0);
  std::vector<float> first_scale(blocks), second_scale(blocks);
  const auto grads = make_input("logscale", n, 1);

  const OnDevice d_weights(weights), d_first(first), d_second(second), d_grads(grads),
      d_first_scale(first_scale), d_second_scale(second_scale);
  const double hyper[math::kMaxHypers] = {1e-2, 0.1, 0.9, 0.999, 1e-8};
  float terms[math::kMaxTerms];
  math::AdamW::prepare(hyper, 1, terms);

  backend::StepTask host =
      task_of({reinterpret_cast<std::uint8_t*>(weights.data()), first.data(), second.data(),
               first_scale.data(), second_scale.data(), grads.data()});
  host.terms = terms;
  host.keep = static_cast<float>(1.0 - 1e-2 * 0.1);
  host.decay = 0.1F;
  backend::reference_backend().step(host, kFirst, kFirst + kThere);

  cuda::Tensor tensor;
  tensor.task = task_of({static_cast<std::uint8_t*>(d_weights.get()),
                         static_cast<std::uint8_t*>(d_first.get()),
                         static_cast<std::uint8_t*>(d_second.get()), d_first_scale.floats(),
                         d_second_scale.floats(), d_grads.floats()});
  tensor.count = kFirst + kThere;
  cuda::Group group;
  std::copy(std::begin(hyper), std::end(hyper), std::begin(group.hyper));
  const OnDevice tensors(std::vector<cuda::Tensor>{tensor});
  const OnDevice groups(std::vector<cuda::Group>{group});
  const OnDevice chunks(
      std::vector<cuda::Chunk>{{0, static_cast<std::uint32_t>(kFirst / cuda::kChunk)}});
  const OnDevice control(std::vector<cuda::Control>(1));
  const cuda::StepArgs args{
      static_cast<cuda::Control*>(control.get()), static_cast<cuda::Group*>(groups.get()),
      static_cast<cuda::Tensor*>(tensors.get()), static_cast<const cuda::Chunk*>(chunks.get())};
  expect_cuda(cuda::launch_begin(args, {}, nullptr));
  expect_cuda(cuda::launch_decide(args, 1, {}, nullptr));
  expect_cuda(cuda::launch_step(host.rule, math::find_format("int8"), args, 1, nullptr));
  EXPECT_TRUE(d_weights.read<math::bf16>() == weights);
  EXPECT_TRUE(d_first.read() == first);
  EXPECT_TRUE(d_second.read() == second);
  EXPECT_TRUE(d_first_scale.read<float>() == first_scale);
  EXPECT_TRUE(d_second_scale.read<float>() == second_scale);
}

}  // namespace
}  // namespace nibble::test
