// SPDX-License-Identifier: Apache-2.0
// A thin C++ layer over nibble.h: ownership, and a nibble::api::Error instead of a status. C++17.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "nibble/nibble.h"

namespace nibble::api {

class Error : public std::runtime_error {
 public:
  Error(nibble_status status, const char* message) : std::runtime_error(message), status_(status) {}
  nibble_status status() const noexcept { return status_; }

 private:
  nibble_status status_;
};

inline void check(nibble_status status) {
  if (status != NIBBLE_OK) {
    throw Error(status, nibble_last_error());
  }
}

// A descriptor or info struct with its size set and every field at its default.
template <class T>
T make() {
  T out{};
  out.struct_size = static_cast<std::uint32_t>(sizeof(T));
  return out;
}

class Optimizer {
 public:
  explicit Optimizer(const nibble_optimizer_desc& desc) {
    check(nibble_optimizer_create(&handle_, &desc));
  }
  ~Optimizer() { nibble_optimizer_destroy(handle_); }
  Optimizer(Optimizer&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Optimizer& operator=(Optimizer&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }

  // Adds a parameter and returns its index; bind() is still to be called.
  std::int64_t add_param(const nibble_param_desc& desc) {
    std::int64_t index = 0;
    check(nibble_optimizer_add_param(handle_, &desc, &index, nullptr));
    return index;
  }
  void bind(std::int64_t param, void* weights) {
    check(nibble_optimizer_bind(handle_, param, weights));
  }
  void bind(std::int64_t param, void* codes, float* scales) {
    check(nibble_optimizer_bind_quantized(handle_, param, codes, scales));
  }

  // Adds a parameter of the optimizer's weight format, binds it and returns its index.
  std::int64_t add(const std::string& name, const std::vector<std::int64_t>& shape, void* weights,
                   const char* state_format = nullptr, std::int64_t group = 0) {
    auto desc = make<nibble_param_desc>();
    desc.name = name.c_str();
    desc.n_dims = static_cast<std::uint32_t>(shape.size());
    desc.shape = shape.data();
    desc.state_format = state_format;
    desc.group = group;
    const std::int64_t index = add_param(desc);
    bind(index, weights);
    return index;
  }

  std::int64_t add_group(const std::vector<nibble_hyper>& hypers, const char* rule = nullptr) {
    auto desc = make<nibble_group_desc>();
    desc.rule = rule;
    desc.hypers = hypers.data();
    desc.n_hypers = static_cast<std::int64_t>(hypers.size());
    std::int64_t group = 0;
    check(nibble_optimizer_add_group(handle_, &desc, &group));
    return group;
  }
  void set_format(const char* pattern, const char* state_format) {
    check(nibble_optimizer_set_format(handle_, pattern, state_format));
  }
  void set_hyper(const char* name, double value, std::int64_t group = 0) {
    check(nibble_optimizer_set_group_hyper(handle_, group, name, value));
  }

  // Returns false if non-finite gradients made the optimizer skip the step.
  bool step(const nibble_step_desc& desc) {
    const nibble_status status = nibble_optimizer_step(handle_, &desc);
    if (status == NIBBLE_NON_FINITE) {
      return false;
    }
    check(status);
    return true;
  }
  bool step(const std::vector<const void*>& grads, double grad_scale = 1.0) {
    auto desc = make<nibble_step_desc>();
    desc.grads = grads.data();
    desc.n_grads = static_cast<std::int64_t>(grads.size());
    desc.grad_scale = grad_scale;
    return step(desc);
  }

  void save(const std::string& directory) const {
    check(nibble_optimizer_save(handle_, directory.c_str()));
  }
  void load(const std::string& directory) {
    check(nibble_optimizer_load(handle_, directory.c_str()));
  }
  void set_learning_rate(double value) {
    check(nibble_optimizer_set_learning_rate(handle_, value));
  }
  nibble_param_info info(std::int64_t param) const {
    auto out = make<nibble_param_info>();
    check(nibble_optimizer_param_info(handle_, param, &out));
    return out;
  }
  nibble_state_info state(std::int64_t param, std::int64_t index) const {
    auto out = make<nibble_state_info>();
    check(nibble_optimizer_state_info(handle_, param, index, &out));
    return out;
  }
  std::int64_t step_count() const {
    std::int64_t out = 0;
    check(nibble_optimizer_step_count(handle_, &out));
    return out;
  }
  nibble_optimizer* get() const noexcept { return handle_; }

 private:
  nibble_optimizer* handle_ = nullptr;
};

}  // namespace nibble::api
