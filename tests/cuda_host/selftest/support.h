// SPDX-License-Identifier: Apache-2.0
// What the tests of the stand-in share.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <string>
#include <vector>

#include "cuda_host/control.h"

// That a message contains a text.
#define EXPECT_SAYS(message, part)                                              \
  do {                                                                          \
    const std::string said = (message);                                         \
    EXPECT_NE(said.find(part), std::string::npos) << "said: \"" << said << '"'; \
  } while (false)

namespace nibble::cuda_host::selftest {

#ifdef __SANITIZE_ADDRESS__
inline constexpr bool kAddressSanitizer = true;
#else
inline constexpr bool kAddressSanitizer = false;
#endif
#ifdef __SANITIZE_THREAD__
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif

struct Schedule {
  const char* name;
  Order order;
  std::uint64_t seed;
  unsigned workers;
};

inline const std::vector<Schedule>& schedules() {
  static const std::vector<Schedule> all{
      {"in order", Order::kInOrder, 0, 1},         {"reverse", Order::kReverse, 0, 1},
      {"random, seed 1", Order::kRandom, 1, 1},    {"random, seed 2", Order::kRandom, 2, 1},
      {"random, 2 workers", Order::kRandom, 3, 2}, {"in order, 3 workers", Order::kInOrder, 0, 3},
  };
  return all;
}

inline void use(const Schedule& schedule) {
  settings().order = schedule.order;
  settings().seed = schedule.seed;
  settings().workers = schedule.workers;
}

// Every test starts from the same settings, and leaves no memory behind.
class StandIn : public testing::Test {
 protected:
  void SetUp() override {
    if (!is_stand_in()) {
      GTEST_SKIP() << "on a real GPU";
    }
    settings() = Settings{};
    reset();
  }

  void TearDown() override {
    if (HasFailure()) {
      RecordProperty("replay", replay_line());
    }
    settings() = Settings{};
    reset();
    EXPECT_EQ(live_device_allocations(), 0U);
    EXPECT_EQ(live_device_bytes(), 0U);
    EXPECT_EQ(live_pinned_allocations(), 0U);
  }
};

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t count) : count_(count) {
    void* memory = nullptr;
    status_ = cudaMalloc(&memory, count * sizeof(T));
    data_ = static_cast<T*>(memory);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    status_ = cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice);
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* get() const { return data_; }
  cudaError_t status() const { return status_; }

  std::vector<T> read() const {
    std::vector<T> values(count_);
    EXPECT_EQ(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost),
              cudaSuccess)
        << last_message();
    return values;
  }

 private:
  T* data_ = nullptr;
  std::size_t count_;
  cudaError_t status_;
};

template <class T>
class PinnedArray {
 public:
  explicit PinnedArray(std::size_t count) {
    void* memory = nullptr;
    EXPECT_EQ(cudaMallocHost(&memory, count * sizeof(T)), cudaSuccess);
    data_ = static_cast<T*>(memory);
  }
  ~PinnedArray() { cudaFreeHost(data_); }
  PinnedArray(const PinnedArray&) = delete;
  PinnedArray& operator=(const PinnedArray&) = delete;

  T* get() const { return data_; }
  T& operator[](std::size_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
};

class OwnStream {
 public:
  OwnStream() { cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking); }
  ~OwnStream() { cudaStreamDestroy(stream_); }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  operator cudaStream_t() const { return stream_; }  // NOLINT: it is one

 private:
  cudaStream_t stream_ = nullptr;
};

class OwnEvent {
 public:
  OwnEvent() { cudaEventCreate(&event_); }
  ~OwnEvent() { cudaEventDestroy(event_); }
  OwnEvent(const OwnEvent&) = delete;
  OwnEvent& operator=(const OwnEvent&) = delete;
  operator cudaEvent_t() const { return event_; }  // NOLINT: it is one

 private:
  cudaEvent_t event_ = nullptr;
};

// 0.5, 1.5, ...: no two sums of neighbours are equal.
inline std::vector<float> ramp(std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = static_cast<float>(i) + 0.5F;
  }
  return values;
}

}  // namespace nibble::cuda_host::selftest
