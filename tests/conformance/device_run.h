// SPDX-License-Identifier: Apache-2.0
// A TensorCase on a CUDA device: the stand-in's or a GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstring>
#include <limits>

#include "cuda_host/control.h"
#include "support/tensor_case.h"

namespace nibble::test {

inline void expect_cuda(cudaError_t error) {
  ASSERT_EQ(error, cudaSuccess) << cudaGetErrorString(error) << "\n"
                                << cuda_host::last_message() << "\n"
                                << cuda_host::replay_line();
}

// Memory of the device with the bytes of a host's vector, `offset` bytes from an aligned address.
class OnDevice {
 public:
  OnDevice() = default;
  template <class T>
  explicit OnDevice(const std::vector<T>& from, std::size_t offset = 0)
      : bytes_(from.size() * sizeof(T)), offset_(offset) {
    expect_cuda(cudaMalloc(&memory_, bytes_ + offset_ + 1));
    write(from.data());
  }
  ~OnDevice() { static_cast<void>(cudaFree(memory_)); }
  OnDevice(OnDevice&& other) noexcept { *this = std::move(other); }
  OnDevice& operator=(OnDevice&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(bytes_, other.bytes_);
    std::swap(offset_, other.offset_);
    return *this;
  }

  void* get() const { return static_cast<char*>(memory_) + offset_; }
  float* floats() const { return static_cast<float*>(get()); }
  void write(const void* from) {
    expect_cuda(cudaMemcpy(get(), from, bytes_, cudaMemcpyHostToDevice));
    expect_cuda(cudaDeviceSynchronize());  // pageable memory may only have been staged
  }
  template <class T = std::uint8_t>
  std::vector<T> read() const {
    return read_device<T>(get(), bytes_);
  }
  template <class T = std::uint8_t>
  static std::vector<T> read_device(const void* from, std::size_t bytes) {
    std::vector<T> out(bytes / sizeof(T));
    expect_cuda(cudaDeviceSynchronize());
    expect_cuda(cudaMemcpy(out.data(), from, bytes, cudaMemcpyDeviceToHost));
    return out;
  }

 private:
  void* memory_ = nullptr;
  std::size_t bytes_ = 0, offset_ = 0;
};

// Floats with every NaN the same: which bits one has differs between processors.
inline std::vector<std::uint8_t> without_nan_bits(std::vector<std::uint8_t> bytes) {
  for (std::size_t i = 0; i + sizeof(float) <= bytes.size(); i += sizeof(float)) {
    float value = 0;
    std::memcpy(&value, bytes.data() + i, sizeof(value));
    if (value != value) {
      value = std::numeric_limits<float>::quiet_NaN();
      std::memcpy(bytes.data() + i, &value, sizeof(value));
    }
  }
  return bytes;
}

class DeviceRun {
 public:
  DeviceRun(const TensorCase& setup, const std::vector<float>& initial, std::size_t offset = 0)
      : setup_(setup),
        optimizer_(make_optimizer(setup, static_cast<std::int64_t>(initial.size()), "cuda")),
        offset_(offset) {
    CaseRun host(setup, initial);  // for the weights' bytes
    data_ = OnDevice(host.data(), offset);
    scales_ = OnDevice(host.scales());
    if (host.scales().empty()) {
      optimizer_.bind(0, data_.get());
    } else {
      optimizer_.bind(0, data_.get(), scales_.floats());
    }
  }

  bool step(const std::vector<float>& grad, double scale = 0.5) {
    auto desc = api::make<nibble_step_desc>();
    return step(grad, scale, desc);
  }
  // The rest of the step's descriptor is the caller's.
  bool step(const std::vector<float>& grad, double scale, nibble_step_desc desc) {
    set_grad(grad);
    const void* grads[] = {grad_.get()};
    desc.grads = grads, desc.n_grads = 1, desc.grad_scale = scale;
    return optimizer_.step(desc);
  }
  void set_grad(const std::vector<float>& grad) {
    if (!setup_.bf16_grads) {
      grad_ = OnDevice(grad, offset_);
      return;
    }
    std::vector<math::bf16> narrow;
    for (const float g : grad) {
      narrow.push_back(math::float_to_bf16(g));
    }
    grad_ = OnDevice(narrow, offset_);
  }

  // As CaseRun's.
  std::vector<std::vector<std::uint8_t>> bytes() const {
    std::vector<std::vector<std::uint8_t>> out;
    for (std::int64_t i = 0; i < optimizer_.info(0).n_states; ++i) {
      const nibble_state_info info = optimizer_.state(0, i);
      out.push_back(OnDevice::read_device(info.data, info.bytes));
    }
    out.push_back(data_.read());
    out.push_back(scales_.read());
    return out;
  }

  api::Optimizer& optimizer() { return optimizer_; }
  OnDevice& data() { return data_; }
  OnDevice& grad() { return grad_; }

 private:
  TensorCase setup_;
  api::Optimizer optimizer_;
  std::size_t offset_;
  OnDevice data_, scales_, grad_;
};

// A test of the suite: fresh settings, and a skip where there is no device.
class DeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
      GTEST_SKIP() << "no CUDA device";
    }
    static const cuda_host::Settings from_environment = cuda_host::settings();
    cuda_host::settings() = from_environment;
    cuda_host::reset();
  }
};

}  // namespace nibble::test
