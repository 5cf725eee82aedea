// SPDX-License-Identifier: Apache-2.0
// The launches of a step.
#include "cuda/step.h"

#include <algorithm>
#include <cstddef>

#include "core/status.h"
#include "cuda/check.h"
#include "cuda/current_device.h"
#include "cuda/optim/launch.h"
#include "cuda/tables.h"

namespace nibble::cuda {
namespace {

class CudaStep final : public backend::DeviceStep {
 public:
  CudaStep(backend::Device& device, int index, const std::vector<backend::DeviceTensor>& tensors,
           const std::vector<backend::DeviceGroup>& groups)
      : device_(device),
        index_(index),
        tables_(device, tensors, groups),
        args_(tables_.args()),
        grads_(tensors.size(), nullptr) {}

  void set_groups(const std::vector<backend::DeviceGroup>& groups) override {
    new_groups_ = groups;
    tables_.set_iterations(groups);
  }
  void set_step_count(std::int64_t count) override {
    new_step_ = count;
    has_new_step_ = true;
  }

  void run(const backend::DeviceStepInput& input) override {
    const ScopedDevice current(index_);
    const auto stream = static_cast<cudaStream_t>(input.stream);
    check_capture(input);
    if (input.collect_errors) {
      make_room_for_stats(stream);
    }
    bring_up_to_date(input, stream);
    decide(input, stream);
    measure(stream);
    update(input.collect_errors, stream);
  }

  backend::DeviceOutcome outcome() override {
    Control control;
    device_.read(&control, args_.control, sizeof(control));
    return {has_new_step_ ? new_step_ : control.step, control.taken != 0, control.nonfinite,
            control.norm};
  }

  // Chunks in their order, so that the sums are the same for any run.
  std::vector<backend::StepStats> stats() override {
    const std::vector<std::uint32_t>& params = tables_.chunk_params();
    std::vector<backend::StepStats> chunks(params.size());
    device_.read(chunks.data(), stats_.as<std::byte>(), chunks.size() * sizeof(chunks[0]));
    std::vector<backend::StepStats> out(tables_.param_count());
    for (std::size_t i = 0; i < chunks.size(); ++i) {
      out[params[i]].add(chunks[i]);
    }
    return out;
  }

 private:
  StepArgs from(const Launch& launch) const {
    StepArgs out = args_;
    out.chunks += launch.first;
    return out;
  }

  void make_room_for_stats(cudaStream_t stream) {
    const std::uint64_t bytes = tables_.chunk_params().size() * sizeof(backend::StepStats);
    if (stats_.as<std::byte>() == nullptr) {
      stats_ = DeviceArray(device_, bytes, "errors of states");
    }
    check(cudaMemsetAsync(stats_.as<std::byte>(), 0, bytes, stream), "errors of states");
  }

  // What has changed since the last step would be told to the device in each replay, and to nobody
  // if there is none.
  void check_capture(const backend::DeviceStepInput& input) const {
    const bool changed = !new_groups_.empty() || has_new_step_ ||
                         !std::equal(grads_.begin(), grads_.end(), input.grads);
    if (changed && device_.is_capturing(input.stream)) {
      fail(StatusCode::kWrongOrder,
           "gradients, hyper-parameters or the step count have changed since the last step: take "
           "one before the capture");
    }
  }

  // What has changed since the last step goes along as arguments of kernels.
  void bring_up_to_date(const backend::DeviceStepInput& input, cudaStream_t stream) {
    for (std::size_t g = 0; g < new_groups_.size(); ++g) {
      check(launch_set_hypers(args_, static_cast<int>(g), Tables::group_of(new_groups_[g]), stream),
            "hyper-parameters");
    }
    new_groups_.clear();
    if (has_new_step_) {
      check(launch_set_step(args_, new_step_, stream), "step count");
      has_new_step_ = false;
    }
    for (std::size_t first = 0; first < grads_.size(); first += kPointersInLaunch) {
      const std::size_t count = std::min<std::size_t>(kPointersInLaunch, grads_.size() - first);
      const void* const* begin = input.grads + first;
      const void** known = grads_.data() + first;
      if (!std::equal(begin, begin + count, known)) {
        PointerBatch batch{};
        std::copy(begin, begin + count, batch.data);
        check(launch_set_grads(args_, static_cast<std::uint32_t>(first), static_cast<int>(count),
                               batch, stream),
              "gradients");
        std::copy(begin, begin + count, known);
      }
    }
  }

  void decide(const backend::DeviceStepInput& input, cudaStream_t stream) {
    const StepPolicy policy{input.grad_scale, input.max_norm, input.found_inf, input.nonfinite};
    const std::int64_t leaves = tables_.leaf_count();
    check(launch_begin(args_, policy, stream), "step");
    if ((input.want_norm || input.max_norm > 0) && leaves > 0) {
      check(launch_leaf_sums(args_, tables_.leaves(), leaves, input.grad_scale, tables_.sums(),
                             stream),
            "norm");
      check(launch_conclude_norm(args_, tables_.sums(), leaves, policy, stream), "norm");
    } else if (!input.grads_are_finite && policy.nonfinite != backend::Nonfinite::kPropagate &&
               leaves > 0) {
      check(launch_count_nonfinite(args_, tables_.leaves(), leaves, policy, stream), "step");
    }
    check(launch_decide(args_, tables_.group_count(), policy, stream), "step");
  }

  void measure(cudaStream_t stream) {
    if (tables_.rank1_count() > 0) {
      check(launch_clear_rank1(args_, tables_.rank1(), tables_.rank1_count(), stream), "measure");
    }
    for (const Launch& launch : tables_.measures()) {
      check(launch_measure(launch.rule, from(launch), launch.count, stream), "measure");
    }
    if (tables_.trusted_count() > 0) {
      check(launch_trust_ratios(args_, tables_.trusted(), tables_.trusted_count(), stream),
            "measure");
    }
  }

  void update(bool collect, cudaStream_t stream) {
    backend::StepStats* stats = collect ? stats_.as<backend::StepStats>() : nullptr;
    for (const Launch& launch : tables_.steps()) {
      check(collect ? launch_collect(launch.rule, from(launch), launch.count, stats + launch.first,
                                     stream)
                    : launch_step(launch.rule, launch.format, from(launch), launch.count, stream),
            "step");
    }
    if (tables_.rank1_count() > 0) {
      check(launch_finish_rank1(args_, tables_.rank1(), tables_.rank1_count(), stream), "step");
    }
    for (const Matrix& matrix : tables_.matrices()) {
      check(launch_matrix(matrix, args_, tables_.workspace(), stats, stream), "matrix step");
    }
  }

  backend::Device& device_;
  int index_;
  Tables tables_;
  StepArgs args_;
  std::vector<const void*> grads_;  // as the device's table has them
  std::vector<backend::DeviceGroup> new_groups_;
  std::int64_t new_step_ = 0;
  bool has_new_step_ = false;
  DeviceArray stats_;
};

}  // namespace

std::unique_ptr<backend::DeviceStep> make_cuda_step(
    backend::Device& device, int index, const std::vector<backend::DeviceTensor>& tensors,
    const std::vector<backend::DeviceGroup>& groups) {
  return std::make_unique<CudaStep>(device, index, tensors, groups);
}

}  // namespace nibble::cuda
