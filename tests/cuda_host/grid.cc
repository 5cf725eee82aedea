// SPDX-License-Identifier: Apache-2.0
#include "cuda_host/grid.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

#include "cuda_host/random.h"
#include "cuda_host/sanitizers.h"
#include "cuda_host/worker.h"

namespace nibble::cuda_host {
namespace {

// Workers keep their stacks from launch to launch; launches take turns.
std::vector<std::unique_ptr<Worker>>& kept_workers() {
  static auto* workers = new std::vector<std::unique_ptr<Worker>>;  // never destroyed: exit order
  return *workers;
}

// The i-th block to be started. For a random order, a walk with a stride that shares no factor with
// the number of blocks. (More blocks than the limit would not end in anybody's lifetime.)
class BlockOrder {
 public:
  BlockOrder(const Launch& launch, const Settings& settings)
      : grid_(launch.grid),
        blocks_(std::uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z),
        order_(settings.order) {
    if (order_ == Order::kRandom && blocks_ > 1 && blocks_ < kMostToShuffle) {
      Random random(settings.seed);
      offset_ = random.below(blocks_);
      do {
        stride_ = random.below(blocks_);
      } while (std::gcd(stride_, blocks_) != 1);
    }
  }

  std::uint64_t blocks() const { return blocks_; }

  uint3 block(std::uint64_t i) const {
    if (order_ == Order::kReverse) {
      i = blocks_ - 1 - i;
    } else if (order_ == Order::kRandom) {
      i = (i * stride_ + offset_) % blocks_;
    }
    return {static_cast<unsigned>(i % grid_.x), static_cast<unsigned>(i / grid_.x % grid_.y),
            static_cast<unsigned>(i / grid_.x / grid_.y)};
  }

 private:
  static constexpr std::uint64_t kMostToShuffle = 1U << 31;  // products stay below 2^64

  dim3 grid_;
  std::uint64_t blocks_;
  Order order_;
  std::uint64_t offset_ = 0;
  std::uint64_t stride_ = 1;
};

}  // namespace

std::string run_grid(const Launch& launch, const Settings& settings) {
  static std::mutex one_launch_at_a_time;
  const std::lock_guard turn(one_launch_at_a_time);
  static LaunchOrder order;  // its address is what matters
  const BlockOrder blocks(launch, settings);
  std::atomic<std::uint64_t> started{0};
  std::mutex error_mutex;
  std::string error;
  sanitizers::release(&order.begin);

  const auto run_blocks = [&](Worker& worker) {
    worker.begin_launch(launch, settings, order);
    for (std::uint64_t i = started++; i < blocks.blocks(); i = started++) {
      if (!worker.run_block(blocks.block(i), settings.seed + i)) {
        started = blocks.blocks();
        const std::lock_guard lock(error_mutex);
        error = error.empty() ? worker.error() : error;
      }
    }
  };

  const auto count = static_cast<std::size_t>(
      std::min<std::uint64_t>(std::max(1U, settings.workers), blocks.blocks()));
  std::vector<std::unique_ptr<Worker>>& workers = kept_workers();
  while (workers.size() < count) {
    workers.push_back(std::make_unique<Worker>());
  }
  if (count == 1) {
    run_blocks(*workers[0]);
  } else {
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < count; ++i) {
      threads.emplace_back([&, i] { run_blocks(*workers[i]); });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
  }
  sanitizers::acquire(&order.end);
  return error;
}

}  // namespace nibble::cuda_host
