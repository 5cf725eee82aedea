// SPDX-License-Identifier: Apache-2.0
// nibble.h: create, add, bind, step.
#include "capi/guard.h"

using nibble::fail;
using nibble::StatusCode;
using nibble::capi::guard;
using nibble::capi::read_desc;
using nibble::capi::require;
using nibble::capi::text_or;
namespace optim = nibble::optim;

namespace {

double value_or(double value, double fallback) { return value == 0.0 ? fallback : value; }

optim::Options make_options(const nibble_optimizer_desc* desc) {
  const auto d = read_desc(desc, sizeof(nibble_optimizer_desc), "optimizer descriptor");
  optim::Options out;
  out.rule = text_or(d.rule, "adamw");
  out.state_format = text_or(d.state_format, "int8");
  out.mode = text_or(d.mode, "default");
  out.block = d.block_size != 0 ? d.block_size : out.block;
  if (d.nonfinite > NIBBLE_NONFINITE_PROPAGATE) {
    fail(StatusCode::kInvalidArgument, "nonfinite is {}: one of NIBBLE_NONFINITE_* expected",
         d.nonfinite);
  }
  out.nonfinite = static_cast<optim::Nonfinite>(d.nonfinite);
  if (d.min_quantized_elements != 0) {
    out.min_quantized_elements = d.min_quantized_elements;
  }
  out.hyper.learning_rate = value_or(d.learning_rate, out.hyper.learning_rate);
  out.hyper.beta1 = value_or(d.beta1, out.hyper.beta1);
  out.hyper.beta2 = value_or(d.beta2, out.hyper.beta2);
  out.hyper.eps = value_or(d.eps, out.hyper.eps);
  out.hyper.weight_decay = d.weight_decay;
  return out;
}

optim::ParamSpec make_spec(const nibble_param_desc* desc) {
  const auto d = read_desc(desc, sizeof(nibble_param_desc), "parameter descriptor");
  require(d.name, "parameter descriptor: name");
  if (d.n_dims > 0) {
    require(d.shape, "parameter descriptor: shape");
  }
  const std::string dtype = text_or(d.weight_dtype, "F32");
  if (dtype != "F32") {
    fail(StatusCode::kUnsupported,
         "parameter \"{}\": weights of dtype \"{}\"; this version has F32", d.name, dtype);
  }
  return {d.name, {d.shape, d.shape + d.n_dims}, text_or(d.state_format, "")};
}

}  // namespace

nibble_status nibble_optimizer_create(nibble_optimizer** out,
                                      const nibble_optimizer_desc* desc) noexcept {
  return guard([&] {
    require(out, "out");
    *out = nullptr;
    *out = new nibble_optimizer{optim::Optimizer(make_options(desc))};
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
    opt->rep.bind(param, static_cast<float*>(weights));
  });
}

nibble_status nibble_optimizer_step(nibble_optimizer* opt, const nibble_step_desc* desc) noexcept {
  return guard([&] {
    require(opt, "opt");
    const auto d = read_desc(desc, sizeof(nibble_step_desc), "step descriptor");
    if (d.n_grads > 0) {
      require(d.grads, "step descriptor: grads");
    }
    const auto scale = static_cast<float>(d.grad_scale == 0.0 ? 1.0 : d.grad_scale);
    const auto result = opt->rep.step(d.grads, d.n_grads, scale, d.grads_are_finite != 0);
    if (d.out_nonfinite != nullptr) {
      *d.out_nonfinite = result.nonfinite;
    }
    if (!result.taken) {
      fail(StatusCode::kNonFinite, "{} gradients are not finite: the step was not taken",
           result.nonfinite);
    }
  });
}

nibble_status nibble_optimizer_set_hyper(nibble_optimizer* opt, const char* name,
                                         double value) noexcept {
  return guard([&] {
    require(opt, "opt");
    require(name, "name");
    opt->rep.set_hyper(name, value);
  });
}

nibble_status nibble_optimizer_get_hyper(const nibble_optimizer* opt, const char* name,
                                         double* out) noexcept {
  return guard([&] {
    require(opt, "opt");
    require(name, "name");
    require(out, "out");
    *out = opt->rep.hyper(name);
  });
}

nibble_status nibble_optimizer_set_learning_rate(nibble_optimizer* opt, double value) noexcept {
  return nibble_optimizer_set_hyper(opt, "learning_rate", value);
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
