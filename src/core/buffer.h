// SPDX-License-Identifier: Apache-2.0
// A block of memory, 64-byte aligned, uninitialised. Movable. Throws std::bad_alloc.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace nibble {

class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes) { reserve(bytes); }

  // Makes room for `bytes`; what was inside is lost when it has to grow.
  void reserve(std::size_t bytes) {
    if (bytes <= bytes_) {
      return;
    }
    data_.reset();
    bytes_ = 0;
    const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (rounded < bytes) {
      throw std::bad_alloc();
    }
    data_.reset(std::aligned_alloc(kAlignment, rounded));
    if (!data_) {
      throw std::bad_alloc();
    }
    bytes_ = rounded;
  }

  void* data() { return data_.get(); }
  const void* data() const { return data_.get(); }
  std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kAlignment = 64;
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> data_;
  std::size_t bytes_ = 0;
};

}  // namespace nibble
