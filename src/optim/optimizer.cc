// SPDX-License-Identifier: Apache-2.0
#include "optim/optimizer.h"

#include <algorithm>

#include "backend/matrix_scratch.h"
#include "backend/registry.h"
#include "core/parallel.h"
#include "core/status.h"
#include "formats/text_safety.h"
#include "optim/device_step.h"

namespace nibble::optim {
namespace {

// So that `more` elements can be added without an allocation; grows by doubling.
template <class T>
void make_room(std::vector<T>& vector, std::size_t more) {
  const std::size_t wanted = vector.size() + more;
  if (wanted > vector.capacity()) {
    vector.reserve(std::max(wanted, 2 * vector.capacity()));
  }
}

}  // namespace

Optimizer::Optimizer(Options options) : options_(std::move(options)) {
  Group group;
  group.rule = find_rule(options_.rule);
  mode_ = find_mode(options_.mode);
  const math::RuleInfo& rule = math::kRules[group.rule];
  for (const int format : parse_formats(rule, options_.state_format, "optimizer")) {
    check_mode_format(mode_, options_.mode, format, "optimizer");
  }
  if (math::find_weights(options_.weight_format) < 0) {
    fail(StatusCode::kUnsupported, "optimizer: unknown weight format \"{}\"",
         options_.weight_format);
  }
  form_of(rule, mode_, options_.decay);
  if (options_.block != 0) {
    check_block(options_.block);
  }
  if (options_.min_quantized_elements < 0) {
    fail(StatusCode::kInvalidArgument, "min_quantized_elements is {}: 0 or more expected",
         options_.min_quantized_elements);
  }
  group.hyper = default_hypers(rule);
  set_hypers(rule, options_.hypers, group.hyper);
  groups_.push_back(std::move(group));
  terms_.resize(math::kMaxTerms);
  backend::active_backend();  // a wrong NIBBLE_ISA is reported here, not at the first step
}

std::int64_t Optimizer::add_group(const std::string& rule, const HyperValues& hypers) {
  Group group = groups_.front();
  group.source.clear();  // what is bound is group 0's
  if (!rule.empty()) {
    group.rule = find_rule(rule);
    group.hyper = default_hypers(math::kRules[group.rule]);
    form_of(math::kRules[group.rule], mode_, options_.decay);
  }
  set_hypers(math::kRules[group.rule], hypers, group.hyper);
  groups_.reserve(groups_.size() + 1);
  terms_.resize((groups_.size() + 1) * math::kMaxTerms);
  groups_.push_back(std::move(group));
  return static_cast<std::int64_t>(groups_.size()) - 1;
}

void Optimizer::add_format_pattern(std::string pattern, std::string format) {
  // Of which rule its parameters will be is not known here: add_param checks against that.
  const std::string who = "pattern \"" + pattern + "\"";
  for (const int index : parse_formats_of_any(groups_.front().rule, format, who)) {
    check_mode_format(mode_, options_.mode, index, who);
  }
  patterns_.emplace_back(std::move(pattern), std::move(format));
}

void Optimizer::add_ranges(std::int64_t index, const Param& param) {
  if (!math::is_element_rule(math::kRules[param.rule].kind)) {
    return;
  }
  const bool measured = param.rank1 || math::kRules[param.rule].kind == math::RuleKind::kTrustRatio;
  for (std::int64_t first = 0; first < param.count; first += param.range) {
    const Range range{index, first, std::min(first + param.range, param.count)};
    ranges_.push_back(range);
    if (measured) {
      measured_.push_back(range);
    }
  }
}

std::int64_t Optimizer::add_param(ParamSpec spec) {
  if (names_.contains(spec.name)) {
    fail(StatusCode::kInvalidArgument, "parameter \"{}\" was added before", spec.name);
  }
  if (!formats::is_valid_utf8(spec.name)) {  // no checkpoint could hold it
    fail(StatusCode::kInvalidArgument, "parameter \"{}\": the name is not UTF-8",
         formats::printable(spec.name));
  }
  const Group& own = group(spec.group);
  const std::int64_t count = count_elements(spec);
  const FormatChoice choice = choose_formats(options_, patterns_, spec, count);
  Param param = make_param(options_, mode_, choice, own.rule, own.hyper, std::move(spec));
  const std::int64_t index = param_count();

  // All that can fail comes first; after that nothing does.
  const auto pieces = static_cast<std::size_t>(math::block_count(count, param.range));
  const auto leaves = static_cast<std::size_t>(math::block_count(count, backend::kSumLeaf));
  const auto all = static_cast<std::size_t>(index) + 1;
  Buffer64 workspace;
  const std::uint64_t wanted =
      backend::matrix_scratch_bytes(math::kRules[param.rule].kind, param.rows, param.columns);
  if (options_.device == nullptr && wanted > workspace_bytes_) {
    workspace = Buffer64::of(wanted);
  }
  make_room(ranges_, pieces);
  make_room(measured_, pieces);
  make_room(leaves_, leaves);
  make_room(matrices_, 1);
  make_room(tasks_, 1);
  make_room(measures_, pieces);
  make_room(sums_, leaves);
  make_room(device_grads_, 1);
  forget_device_step();
  const auto named = names_.insert(param.spec.name).first;
  try {
    params_.push_back(std::move(param));
  } catch (...) {
    names_.erase(named);
    throw;
  }

  add_ranges(index, params_.back());
  for (std::int64_t first = 0; first < count; first += backend::kSumLeaf) {
    leaves_.push_back({index, first, std::min(first + backend::kSumLeaf, count)});
  }
  if (!math::is_element_rule(math::kRules[params_.back().rule].kind)) {
    matrices_.push_back(index);
  }
  workspace_bytes_ = std::max(workspace_bytes_, wanted);
  if (workspace.bytes > 0) {
    workspace_ = std::move(workspace);
  }
  tasks_.resize(all);
  device_grads_.resize(all);
  measures_.resize(measured_.size());
  sums_.resize(leaves_.size());
  return index;
}

const Param& Optimizer::param(std::int64_t index) const {
  if (index < 0 || index >= param_count()) {
    fail(StatusCode::kInvalidArgument, "no parameter {}: there are {}", index, param_count());
  }
  return params_[static_cast<std::size_t>(index)];
}

Param& Optimizer::param(std::int64_t index) {
  return const_cast<Param&>(std::as_const(*this).param(index));
}

const Group& Optimizer::group(std::int64_t index) const {
  if (index < 0 || index >= static_cast<std::int64_t>(groups_.size())) {
    fail(StatusCode::kInvalidArgument, "no group {}: there are {}", index, groups_.size());
  }
  return groups_[static_cast<std::size_t>(index)];
}

void Optimizer::adopt(Param& p, const backend::WeightView& view) {
  const math::WeightInfo& info = math::kWeights[p.weights];
  if (info.adopt == nullptr || p.has_extra) {
    return;
  }
  if (p.device != nullptr) {
    adopt_on_device(p, info, view);
    p.has_extra = true;
    return;
  }
  parallel_for(math::block_count(p.count, p.range), [&](std::int64_t i) {
    const std::int64_t first = i * p.range;
    info.adopt(
        {view.data + first * (info.bits / 8), view.extra + first * (info.extra_bits / 8), nullptr},
        std::min(p.range, p.count - first));
  });
  p.has_extra = true;
}

void Optimizer::bind(std::int64_t index, void* weights, float* scales) {
  Param& p = param(index);
  const math::WeightInfo& info = math::kWeights[p.weights];
  if (weights == nullptr && p.count > 0) {
    fail(StatusCode::kInvalidArgument, "parameter {} (\"{}\"): weights is null", index,
         p.spec.name);
  }
  if (info.has_scale != (scales != nullptr)) {
    fail(StatusCode::kInvalidArgument, "parameter {} (\"{}\"): weights \"{}\" have {}", index,
         p.spec.name, info.name, info.has_scale ? "scales: bind_quantized" : "no scales: bind");
  }
  if (p.device != nullptr) {
    check_device_memory(p, weights, "weights");
    check_device_memory(p, scales, "scales");
  }
  forget_device_step();
  backend::WeightView view = p.weight_view;
  view.data = static_cast<std::uint8_t*>(weights);
  view.scale = scales;
  adopt(p, view);
  p.weight_view = view;
  p.has_weights = true;
}

std::uint64_t Optimizer::workspace_bytes() const {
  std::uint64_t bytes = workspace_bytes_;
  for (const Param& p : params_) {
    bytes += p.next_scales.bytes + p.column_maxima.bytes;
  }
  return bytes;
}

// Whether what this hyper-parameter needs where it is not 0 is there for all of the group.
void Optimizer::check_has_states(std::int64_t index, int hyper, std::string_view name) const {
  const math::RuleInfo& rule = math::kRules[group(index).rule];
  for (const Param& p : params_) {
    for (int s = 0; p.spec.group == index && s < rule.states; ++s) {
      if (rule.state[s].needs == hyper && p.view[s].data == nullptr) {
        fail(StatusCode::kWrongOrder,
             "{} was 0 when parameter \"{}\" was added, so it has no state \"{}\"", name,
             p.spec.name, rule.state[s].name);
      }
    }
  }
}

void Optimizer::set_hyper(std::int64_t index, std::string_view name, double value) {
  const Group& known = group(index);
  const math::RuleInfo& rule = math::kRules[known.rule];
  const int hyper = find_hyper(rule, name);
  check_hyper(rule.hyper[hyper], value);
  if (value != 0) {
    check_has_states(index, hyper, name);
  }
  groups_[static_cast<std::size_t>(index)].hyper[static_cast<std::size_t>(hyper)] = value;
  if (device_step_ != nullptr) {
    device_step_->set_groups(device_groups());
  }
}

double Optimizer::hyper(std::int64_t index, std::string_view name) const {
  const Group& known = group(index);
  return known.hyper[static_cast<std::size_t>(find_hyper(math::kRules[known.rule], name))];
}

void Optimizer::set_step_count(std::int64_t count) {
  if (count < 0 || count > kMaxStepCount) {
    fail(StatusCode::kInvalidArgument, "step count is {}: 0 .. {} expected", count, kMaxStepCount);
  }
  step_count_ = count;
  if (device_step_ != nullptr) {
    device_step_->set_step_count(count);
  }
}

}  // namespace nibble::optim
