// SPDX-License-Identifier: Apache-2.0
// nibble.h: create, add, bind, step.
#include <cstddef>
#include <memory>

#include "capi/device.h"
#include "capi/guard.h"

using nibble::fail;
using nibble::StatusCode;
using nibble::capi::find_device;
using nibble::capi::guard;
using nibble::capi::hyper_values;
using nibble::capi::read_desc;
using nibble::capi::require;
using nibble::capi::text_or;
namespace optim = nibble::optim;

namespace {

// Nothing shorter was ever valid: the size up to the last field of the first version.
constexpr std::size_t kOptimizerDescFirst = offsetof(nibble_optimizer_desc, device);
constexpr std::size_t kParamDescFirst = sizeof(nibble_param_desc);
constexpr std::size_t kStepDescFirst = offsetof(nibble_step_desc, stream);
// More than any tensor library has: a larger number was never set.
constexpr std::uint32_t kMaxDims = 64;

optim::Options make_options(const nibble_optimizer_desc* desc) {
  const auto d = read_desc(desc, kOptimizerDescFirst, "optimizer descriptor");
  optim::Options out;
  out.rule = text_or(d.rule, "adamw");
  out.state_format = text_or(d.state_format, "int8");
  out.weight_format = text_or(d.weight_format, "fp32");
  out.mode = text_or(d.mode, "default");
  out.decay = text_or(d.decay, "");
  out.block = d.block_size;
  out.seed = d.seed;
  if (d.nonfinite > NIBBLE_NONFINITE_PROPAGATE) {
    fail(StatusCode::kInvalidArgument, "nonfinite is {}: one of NIBBLE_NONFINITE_* expected",
         d.nonfinite);
  }
  out.nonfinite = static_cast<optim::Nonfinite>(d.nonfinite);
  if (out.mode == "bnb-cuda" && d.nonfinite == NIBBLE_NONFINITE_SKIP_STEP) {
    out.nonfinite = optim::Nonfinite::kSkipElement;
  }
  if (d.min_quantized_elements != 0) {
    out.min_quantized_elements = d.min_quantized_elements;
  }
  out.device = find_device(d.device);
  out.hypers = hyper_values(d.hypers, d.n_hypers);
  for (const auto& [name, value] : {std::pair{"learning_rate", d.learning_rate},
                                    {"beta1", d.beta1},
                                    {"beta2", d.beta2},
                                    {"eps", d.eps},
                                    {"weight_decay", d.weight_decay}}) {
    if (value != 0.0) {  // also NaN, which is then refused by name
      out.hypers.emplace_back(name, value);
    }
  }
  return out;
}

optim::ParamSpec make_spec(const nibble_param_desc* desc) {
  const auto d = read_desc(desc, kParamDescFirst, "parameter descriptor");
  nibble::capi::check_reserved(d.reserved, "parameter descriptor");
  require(d.name, "parameter descriptor: name");
  if (d.n_dims > kMaxDims) {
    fail(StatusCode::kInvalidArgument, "parameter \"{}\": n_dims is {}, at most {} expected",
         d.name, d.n_dims, kMaxDims);
  }
  if (d.n_dims > 0) {
    require(d.shape, "parameter descriptor: shape");
  }
  optim::ParamSpec spec;
  spec.name = d.name;
  spec.shape.assign(d.shape, d.shape + d.n_dims);
  spec.weight_format = text_or(d.weight_format, "");
  spec.state_format = text_or(d.state_format, "");
  spec.grad_dtype = text_or(d.grad_dtype, "");
  spec.group = d.group;
  spec.tensor_id = d.tensor_id;
  return spec;
}

optim::StepInput make_input(const nibble_step_desc& d, bool on_device) {
  if (d.n_grads > 0) {
    require(d.grads, "step descriptor: grads");
  }
  optim::StepInput in;
  in.grads = d.grads;
  in.n_grads = d.n_grads;
  in.grad_scale = d.grad_scale == 0.0 ? 1.0 : d.grad_scale;
  in.grads_are_finite = d.grads_are_finite != 0;
  in.skip_missing = d.skip_missing != 0;
  if (on_device) {
    in.device_found_inf = d.found_inf;
    in.stream = d.stream;
    in.want_outcome = d.out_nonfinite != nullptr || d.out_grad_norm != nullptr;
  } else {
    in.found_inf = d.found_inf != nullptr && *d.found_inf != 0.0F;
  }
  in.want_norm = d.out_grad_norm != nullptr;
  in.max_norm = d.max_grad_norm;
  in.collect_errors = d.collect_errors != 0;
  return in;
}

}  // namespace

nibble_status nibble_optimizer_create(nibble_optimizer** out,
                                      const nibble_optimizer_desc* desc) noexcept {
  return guard([&] {
    require(out, "out");
    *out = nullptr;
    *out = std::make_unique<nibble_optimizer>(optim::Optimizer(make_options(desc))).release();
  });
}

void nibble_optimizer_destroy(nibble_optimizer* opt) noexcept { delete opt; }

nibble_status nibble_optimizer_add_param(nibble_optimizer* opt, const nibble_param_desc* desc,
                                         std::int64_t* out_index,
                                         std::uint64_t* out_state_bytes) noexcept {
  return guard([&] {
    require(opt, "opt");
    const std::int64_t index = opt->rep.add_param(make_spec(desc));
    if (out_index != nullptr) {
      *out_index = index;
    }
    if (out_state_bytes != nullptr) {
      *out_state_bytes = opt->rep.param(index).state_bytes;
    }
  });
}

nibble_status nibble_optimizer_bind(nibble_optimizer* opt, std::int64_t param,
                                    void* weights) noexcept {
  return guard([&] {
    require(opt, "opt");
    opt->rep.bind(param, weights, nullptr);
  });
}

nibble_status nibble_optimizer_bind_quantized(nibble_optimizer* opt, std::int64_t param,
                                              void* codes, float* scales) noexcept {
  return guard([&] {
    require(opt, "opt");
    require(scales, "scales");
    opt->rep.bind(param, codes, scales);
  });
}

nibble_status nibble_optimizer_step(nibble_optimizer* opt, const nibble_step_desc* desc) noexcept {
  return guard([&] {
    require(opt, "opt");
    const auto d = read_desc(desc, kStepDescFirst, "step descriptor");
    const auto result = opt->rep.step(make_input(d, opt->rep.options().device != nullptr));
    if (d.out_nonfinite != nullptr) {
      *d.out_nonfinite = result.nonfinite;
    }
    if (d.out_grad_norm != nullptr) {
      *d.out_grad_norm = result.norm;
    }
    if (!result.taken) {
      fail(StatusCode::kNonFinite, "{}: the step was not taken",
           result.nonfinite > 0 ? fmt::format("{} gradients are not finite", result.nonfinite)
                                : "found_inf is set");
    }
  });
}

nibble_status nibble_optimizer_step_result(const nibble_optimizer* opt, std::int32_t* out_taken,
                                           std::int64_t* out_nonfinite,
                                           double* out_grad_norm) noexcept {
  return guard([&] {
    require(opt, "opt");
    const auto result = opt->rep.last_result();
    if (out_taken != nullptr) {
      *out_taken = result.taken ? 1 : 0;
    }
    if (out_nonfinite != nullptr) {
      *out_nonfinite = result.nonfinite;
    }
    if (out_grad_norm != nullptr) {
      *out_grad_norm = result.norm;
    }
  });
}

nibble_status nibble_optimizer_bind_group_hyper(nibble_optimizer* opt, std::int64_t group,
                                                const char* name, const float* value) noexcept {
  return guard([&] {
    require(opt, "opt");
    require(name, "name");
    opt->rep.bind_hyper(group, name, value);
  });
}

nibble_status nibble_optimizer_step_count(const nibble_optimizer* opt, std::int64_t* out) noexcept {
  return guard([&] {
    require(opt, "opt");
    require(out, "out");
    *out = opt->rep.step_count();
  });
}

nibble_status nibble_optimizer_set_step_count(nibble_optimizer* opt, std::int64_t count) noexcept {
  return guard([&] {
    require(opt, "opt");
    opt->rep.set_step_count(count);
  });
}
