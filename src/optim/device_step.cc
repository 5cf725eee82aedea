// SPDX-License-Identifier: Apache-2.0
#include "optim/device_step.h"

#include <algorithm>

#include "core/status.h"
#include "optim/optimizer.h"

namespace nibble::optim {
namespace {

// What a parameter is, without its memory.
std::unique_ptr<Param> description_of(const Param& param) {
  auto out = std::make_unique<Param>();
  out->spec = param.spec;
  out->count = param.count;
  out->rows = param.rows;
  out->columns = param.columns;
  out->rule = param.rule;
  out->weights = param.weights;
  out->block = param.block;
  out->range = param.range;
  out->rank1 = param.rank1;
  out->has_extra = param.has_extra;
  return out;
}

// The pointer into `to` that stands where `p` does in `from`; null for pointers elsewhere.
template <class T>
T* moved(T* p, const Buffer64& from, const Buffer64& to) {
  const auto* byte = reinterpret_cast<const std::byte*>(p);
  const std::byte* begin = from.data.get();
  const bool inside =
      p != nullptr && byte >= begin && byte < begin + std::max<std::uint64_t>(from.bytes, 1);
  return inside ? reinterpret_cast<T*>(to.data.get() + (byte - begin)) : nullptr;
}

void move_views(const Param& from, Param& to, const Buffer64& old, const Buffer64& now) {
  const auto move = [&](auto* p, auto*& out) {
    auto* at = moved(p, old, now);
    out = at != nullptr ? at : out;
  };
  for (int s = 0; s < math::kMaxStates; ++s) {
    to.view[s].format = from.view[s].format;
    move(from.view[s].data, to.view[s].data);
    move(from.view[s].scale, to.view[s].scale);
    move(from.view[s].rank1.row, to.view[s].rank1.row);
    move(from.view[s].rank1.column, to.view[s].rank1.column);
    move(from.view[s].rank1.next_row, to.view[s].rank1.next_row);
    move(from.view[s].rank1.next_column, to.view[s].rank1.next_column);
  }
  move(from.weight_view.extra, to.weight_view.extra);
}

}  // namespace

HostParam::HostParam(const Param& param) : original_(param) {
  if (param.device == nullptr) {
    return;
  }
  copy_ = description_of(param);
  for (const StateArray& array : param.arrays) {
    Buffer64 memory = Buffer64::of(array.memory.bytes);
    param.device->read(memory.data.get(), array.memory.data.get(), array.memory.bytes);
    copy_->arrays.push_back({array.name, array.dtype, array.elements, std::move(memory)});
    move_views(param, *copy_, array.memory, copy_->arrays.back().memory);
  }
  if (param.next_scales.bytes > 0) {
    copy_->next_scales = Buffer64::of(param.next_scales.bytes);
    move_views(param, *copy_, param.next_scales, copy_->next_scales);
  }
}

void HostParam::write_back(Param& param) const {
  if (copy_ == nullptr) {
    return;
  }
  for (std::size_t i = 0; i < param.arrays.size(); ++i) {
    const Buffer64& to = param.arrays[i].memory;
    param.device->write(to.data.get(), copy_->arrays[i].memory.data.get(), to.bytes);
  }
  param.has_extra = copy_->has_extra;
}

void check_device_memory(const Param& param, const void* memory, const char* what) {
  if (memory != nullptr && !param.device->is_device_memory(memory)) {
    fail(StatusCode::kInvalidArgument, "parameter \"{}\": {} at {} is not memory of {}",
         param.spec.name, what, memory, param.device->name());
  }
}

// A gradient: elements of 4 or 2 bytes at a multiple of that.
void check_gradient(const Param& param, const void* grad) {
  const std::uintptr_t each = param.grads_are_bf16 ? 2 : 4;
  check_device_memory(param, grad, "the gradient");
  if (reinterpret_cast<std::uintptr_t>(grad) % each != 0) {
    fail(StatusCode::kInvalidArgument, "parameter \"{}\": the gradient at {} is not aligned",
         param.spec.name, grad);
  }
}

void check_device_float(backend::Device& device, const float* memory, const char* what) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(memory) % sizeof(float) == 0;
  if (!aligned || !device.is_device_memory(memory)) {
    fail(StatusCode::kInvalidArgument, "{}: {} is not a float in memory of {}", what,
         static_cast<const void*>(memory), device.name());
  }
}

void adopt_on_device(const Param& param, const math::WeightInfo& info,
                     const backend::WeightView& view) {
  const auto bytes = static_cast<std::uint64_t>(param.count * (info.bits / 8));
  const Buffer64 weights = Buffer64::of(bytes);
  const Buffer64 extra =
      Buffer64::of(static_cast<std::uint64_t>(param.count * (info.extra_bits / 8)));
  param.device->read(weights.data.get(), view.data, bytes);
  if (param.count > 0) {
    info.adopt({weights.as<std::uint8_t>(), extra.as<std::uint8_t>(), nullptr}, param.count);
  }
  param.device->write(view.extra, extra.data.get(), extra.bytes);
}

std::vector<backend::DeviceGroup> Optimizer::device_groups() const {
  std::vector<backend::DeviceGroup> out;
  for (const Group& group : groups_) {
    backend::DeviceGroup& to = out.emplace_back();
    to.rule = group.rule;
    std::copy(group.hyper.begin(), group.hyper.end(), std::begin(to.hyper));
    std::copy(group.source.begin(), group.source.end(), std::begin(to.source));
  }
  return out;
}

void Optimizer::make_device_step() {
  StepInput nothing;
  std::vector<const void*> grads(params_.size(), nullptr);
  nothing.grads = grads.data();
  prepare_tasks(nothing, 1.0F, false);
  std::vector<backend::DeviceTensor> tensors;
  for (std::size_t i = 0; i < params_.size(); ++i) {
    const Param& p = params_[i];
    backend::DeviceTensor& tensor = tensors.emplace_back();
    tensor.task = tasks_[i];
    tensor.count = p.count;
    tensor.rows = p.rows;
    tensor.range = p.range;
    tensor.group = static_cast<std::int32_t>(p.spec.group);
    tensor.factored_row = p.factored_row;
    tensor.factored_column = p.factored_column;
  }
  device_step_ = options_.device->make_step(tensors, device_groups());
  device_step_->set_step_count(step_count_);
}

void Optimizer::forget_device_step() {
  if (device_step_ != nullptr) {
    step_count_ = device_step_->outcome().step;
    device_step_.reset();
  }
}

std::int64_t Optimizer::step_count() const {
  return device_step_ != nullptr ? device_step_->outcome().step : step_count_;
}

StepResult Optimizer::last_result() const {
  if (device_step_ == nullptr) {
    fail(StatusCode::kWrongOrder, "no step on a device since parameters were added or bound");
  }
  const backend::DeviceOutcome outcome = device_step_->outcome();
  return {outcome.taken, outcome.nonfinite, outcome.norm};
}

void Optimizer::bind_hyper(std::int64_t index, std::string_view name, const float* source) {
  if (options_.device == nullptr) {
    fail(StatusCode::kUnsupported, "bind_hyper: the optimizer is not on a device");
  }
  static_cast<void>(group(index));
  Group& known = groups_[static_cast<std::size_t>(index)];
  const math::RuleInfo& rule = math::kRules[known.rule];
  const int hyper = find_hyper(rule, name);
  if (source != nullptr) {
    check_device_float(*options_.device, source, "bind_hyper");
    check_has_states(index, hyper, name);
    if (rule.kind == math::RuleKind::kOrthogonal && hyper == math::Muon::kSteps) {
      fail(StatusCode::kUnsupported, "bind_hyper: {} decides what is launched", name);
    }
  }
  known.source.resize(known.hyper.size(), nullptr);
  known.source[static_cast<std::size_t>(hyper)] = source;
  if (device_step_ != nullptr) {
    device_step_->set_groups(device_groups());
  }
}

StepResult Optimizer::step_on_device(const StepInput& input) {
  const bool waits = device_step_ == nullptr || input.want_outcome || input.collect_errors;
  if (waits && options_.device->is_capturing(input.stream)) {
    fail(StatusCode::kWrongOrder,
         "the first step and one with out_nonfinite, out_grad_norm or collect_errors wait for the "
         "device, which a capture does not allow: take one before the capture");
  }
  for (std::size_t i = 0; i < params_.size(); ++i) {
    const void* grad = params_[i].count > 0 ? input.grads[i] : nullptr;
    if (grad != device_grads_[i]) {  // known pointers were looked at before
      check_gradient(params_[i], grad);
    }
  }
  if (const float* flag = input.device_found_inf; flag != nullptr && flag != device_found_inf_) {
    check_device_float(*options_.device, flag, "found_inf");
    device_found_inf_ = flag;
  }
  for (Param& p : params_) {
    if (p.has_weights) {  // after the load of a checkpoint from before the first bind
      adopt(p, p.weight_view);
    }
  }
  if (device_step_ == nullptr) {
    make_device_step();
  }
  for (std::size_t i = 0; i < params_.size(); ++i) {
    device_grads_[i] = params_[i].count > 0 ? input.grads[i] : nullptr;
  }
  backend::DeviceStepInput on_device;
  on_device.grads = device_grads_.data();
  on_device.grad_scale = static_cast<float>(input.grad_scale);
  on_device.max_norm = input.max_norm;
  on_device.want_norm = input.want_norm;
  on_device.grads_are_finite = input.grads_are_finite;
  on_device.nonfinite = options_.nonfinite;
  on_device.found_inf = input.device_found_inf;
  on_device.stream = input.stream;
  on_device.collect_errors = input.collect_errors;
  device_step_->run(on_device);
  if (input.collect_errors) {
    stats_ = device_step_->stats();
  }
  return input.want_outcome ? last_result() : StepResult{};
}

}  // namespace nibble::optim
