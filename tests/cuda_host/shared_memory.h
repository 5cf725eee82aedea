// SPDX-License-Identifier: Apache-2.0
// The `__shared__` memory of one block at a time: 0xFF (NaN, -1) until written, red zones around
// every array.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "cuda_host/execution.h"

namespace nibble::cuda_host {

class SharedMemory {
 public:
  SharedMemory();
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  void begin_block(std::size_t dynamic_bytes, std::size_t limit);
  // Null if the block has more shared memory than `limit`.
  void* array(SharedArray& array, std::size_t bytes, std::size_t alignment);
  void* dynamic() const { return dynamic_; }
  std::size_t used_bytes() const { return used_bytes_; }
  // Ends the block. What was written beside an array, or nothing.
  std::string end_block();

 private:
  struct Slot {
    const SharedArray* array = nullptr;
    unsigned long block = 0;  // the block in which it got its memory
    char* low = nullptr;
    std::size_t bytes = 0;
  };

  void forget_history();
  char* take(std::size_t bytes, std::size_t alignment);

  char* arena_;
  char* top_;
  char* dynamic_ = nullptr;
  std::size_t dynamic_bytes_ = 0;
  std::size_t used_bytes_ = 0;
  std::size_t limit_ = 0;
  unsigned long block_ = 0;
  std::vector<Slot> slots_;
  std::vector<unsigned> used_slots_;
};

}  // namespace nibble::cuda_host
