// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "backend/device.h"

namespace nibble::cuda {

// Memory of the device's pool.
class DeviceArray {
 public:
  DeviceArray() = default;
  DeviceArray(backend::Device& device, std::uint64_t bytes, const char* purpose)
      : device_(&device), memory_(device.allocate(backend::MemoryKind::kDevice, bytes, purpose)) {}
  ~DeviceArray() {
    if (device_ != nullptr) {
      device_->release(memory_);
    }
  }
  DeviceArray(DeviceArray&& other) noexcept
      : device_(std::exchange(other.device_, nullptr)),
        memory_(std::exchange(other.memory_, nullptr)) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(memory_, other.memory_);
    return *this;
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(memory_);
  }

 private:
  backend::Device* device_ = nullptr;
  std::byte* memory_ = nullptr;
};

// A copy of the host's elements.
template <class T>
DeviceArray upload(backend::Device& device, const std::vector<T>& data, const char* purpose) {
  DeviceArray out(device, data.size() * sizeof(T), purpose);
  device.write(out.as<std::byte>(), data.data(), data.size() * sizeof(T));
  return out;
}

}  // namespace nibble::cuda
