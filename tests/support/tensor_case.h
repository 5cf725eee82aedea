// SPDX-License-Identifier: Apache-2.0
// One tensor under any rule, state format, weight format and mode: everything that a step may
// change, as bytes.
#pragma once

#include "math/bf16.h"
#include "math/weights/weights.h"
#include "support/capi.h"
#include "support/inputs.h"

namespace nibble::test {

struct TensorCase {
  std::string rule = "adamw", format = "int8", weights = "fp32", mode = "default";
  std::int64_t block = 0;
  std::int64_t rows = 0;  // of a matrix; 0: one dimension
  bool bf16_grads = false;
  std::uint32_t nonfinite = NIBBLE_NONFINITE_PROPAGATE;
  std::vector<nibble_hyper> hypers = {{"weight_decay", 0.01}};
  std::int64_t min_quantized = 1;

  std::string name() const {
    return rule + " " + format + " " + weights + " " + mode + " block " + std::to_string(block) +
           " rows " + std::to_string(rows);
  }
};

// An optimizer of the case over one parameter of `count` elements. `setup` must outlive the call.
inline api::Optimizer make_optimizer(const TensorCase& setup, std::int64_t count,
                                     const char* device = nullptr) {
  auto desc = api::make<nibble_optimizer_desc>();
  desc.rule = setup.rule.c_str();
  desc.state_format = setup.format.c_str();
  desc.weight_format = setup.weights.c_str();
  desc.mode = setup.mode.c_str();
  desc.block_size = setup.block;
  desc.min_quantized_elements = setup.min_quantized;
  desc.nonfinite = setup.nonfinite;
  desc.hypers = setup.hypers.data();
  desc.n_hypers = static_cast<std::int64_t>(setup.hypers.size());
  desc.seed = 99;
  desc.device = device;
  api::Optimizer optimizer(desc);
  auto param = api::make<nibble_param_desc>();
  const std::int64_t matrix[] = {setup.rows, setup.rows > 0 ? count / setup.rows : 0};
  param.name = "w";
  param.n_dims = setup.rows > 0 ? 2 : 1;
  param.shape = setup.rows > 0 ? matrix : &count;
  param.grad_dtype = setup.bf16_grads ? "BF16" : "F32";
  optimizer.add_param(param);
  return optimizer;
}

class CaseRun {
 public:
  // Weights start as those of `initial`, rounded as the format's dtype has it.
  CaseRun(const TensorCase& setup, const std::vector<float>& initial)
      : setup_(setup),
        count_(static_cast<std::int64_t>(initial.size())),
        optimizer_(make_optimizer(setup, count_)) {
    store_weights(initial);
  }

  bool step(const std::vector<float>& grad, double scale = 0.5) {
    std::vector<math::bf16> narrow;
    const void* grads[] = {grad.data()};
    if (setup_.bf16_grads) {
      for (const float g : grad) {
        narrow.push_back(math::float_to_bf16(g));
      }
      grads[0] = narrow.data();
    }
    auto desc = api::make<nibble_step_desc>();
    desc.grads = grads, desc.n_grads = 1, desc.grad_scale = scale;
    return optimizer_.step(desc);
  }

  // Weights, their scales, and every state array.
  std::vector<std::vector<std::uint8_t>> bytes() const {
    auto out = OneTensor::states_of(optimizer_);
    out.push_back(data_);
    const auto* scales = reinterpret_cast<const std::uint8_t*>(scales_.data());
    out.emplace_back(scales, scales + scales_.size() * sizeof(float));
    return out;
  }

  // The weights as the next step will see them.
  std::vector<float> weights() const {
    const math::WeightInfo& info = this->info();
    std::vector<float> out(static_cast<std::size_t>(count_));
    auto* data = const_cast<std::uint8_t*>(data_.data());
    auto* extra = const_cast<std::uint8_t*>(extra_state());
    if (info.decode == nullptr) {
      std::memcpy(out.data(), extra != nullptr ? extra : data, out.size() * sizeof(float));
    } else if (info.has_scale) {
      for (std::size_t i = 0; i < out.size(); ++i) {
        out[i] = static_cast<float>(static_cast<std::int8_t>(data[i])) * scales_[i / block_];
      }
    } else {
      info.decode({data, extra, nullptr}, count_, out.data());
    }
    return out;
  }

  api::Optimizer& optimizer() { return optimizer_; }
  const api::Optimizer& optimizer() const { return optimizer_; }
  std::vector<std::uint8_t>& data() { return data_; }
  std::vector<float>& scales() { return scales_; }

 private:
  const math::WeightInfo& info() const {
    return math::kWeights[math::find_weights(setup_.weights)];
  }
  const std::uint8_t* extra_state() const {
    const char* wanted = info().extra_name;
    for (std::int64_t i = 0; wanted != nullptr && i < optimizer_.info(0).n_states; ++i) {
      if (std::string(optimizer_.state(0, i).name) == wanted) {
        return static_cast<const std::uint8_t*>(optimizer_.state(0, i).data);
      }
    }
    return nullptr;
  }

  void store_weights(const std::vector<float>& initial) {
    const std::size_t bytes = static_cast<std::size_t>(info().bits) / 8;
    data_.resize(initial.size() * bytes);
    block_ = static_cast<std::size_t>(std::max<std::int64_t>(optimizer_.info(0).block_size, 1));
    if (info().has_scale) {
      scales_.resize((initial.size() + block_ - 1) / block_, 2.0F / 127.0F);
    }
    for (std::size_t i = 0; i < initial.size(); ++i) {
      if (bytes == 4) {
        std::memcpy(data_.data() + 4 * i, &initial[i], 4);
      } else if (bytes == 2) {
        math::store_bf16(data_.data(), static_cast<std::int64_t>(i),
                         math::float_to_bf16(initial[i]));
      } else {
        const float code = std::max(-127.0F, std::min(127.0F, initial[i] * 63.5F));
        data_[i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(std::lround(code)));
      }
    }
    if (info().has_scale) {
      optimizer_.bind(0, data_.data(), scales_.data());
    } else {
      optimizer_.bind(0, data_.data());
    }
  }

  TensorCase setup_;
  std::int64_t count_;
  std::size_t block_ = 1;
  api::Optimizer optimizer_;
  std::vector<std::uint8_t> data_;
  std::vector<float> scales_;
};

inline std::vector<std::vector<std::uint8_t>> bytes_after(const TensorCase& setup,
                                                          const std::string& input, std::size_t n,
                                                          int steps) {
  CaseRun run(setup, make_input("normal", n, 50));
  for (int t = 0; t < steps; ++t) {
    run.step(make_input(input, n, static_cast<std::uint64_t>(t + 1)));
  }
  return run.bytes();
}

// Every rule with every state format, every weight format, every mode; matrices where a rule or a
// format needs them (then n must be a multiple of rows).
inline std::vector<TensorCase> all_cases(std::int64_t rows) {
  std::vector<TensorCase> out;
  for (const std::string& rule : rule_names()) {
    for (const std::string& format : state_format_names()) {
      TensorCase setup;
      setup.rule = rule, setup.format = format;
      const bool matrix = rule == "muon" || rule == "adafactor" || format == "int4_rank1";
      setup.rows = matrix ? rows : 0;
      if (matrix && rows == 0) {
        continue;
      }
      out.push_back(setup);
    }
  }
  for (const std::string& weights : weight_format_names()) {
    for (const char* format : {"fp32", "bf16", "int8", "int4"}) {
      TensorCase setup;
      setup.weights = weights, setup.format = format, setup.bf16_grads = weights != "fp32";
      out.push_back(setup);
    }
  }
  for (const auto& [mode, format] : {std::pair{"bnb", "int8"},
                                     {"bnb-cuda", "int8"},
                                     {"torchao", "int8"},
                                     {"torchao", "int4"},
                                     {"torchao", "fp8"},
                                     {"torch", "fp32"}}) {
    TensorCase setup;
    setup.mode = mode, setup.format = format;
    out.push_back(setup);
  }
  TensorCase variant;
  variant.rule = "sgd", variant.hypers = {{"momentum", 0.9}, {"nesterov", 1}};
  out.push_back(variant);
  variant.rule = "rmsprop", variant.hypers = {{"momentum", 0.9}, {"weight_decay", 0.1}};
  out.push_back(variant);
  variant.rule = "sgd", variant.hypers = {{"momentum", 0}};
  out.push_back(variant);
  if (rows > 0) {
    variant.rule = "adafactor", variant.rows = rows;
    variant.hypers = {{"beta1", 0.9}, {"scale_parameter", 1}, {"relative_step", 1}};
    out.push_back(variant);
  }
  return out;
}

}  // namespace nibble::test
