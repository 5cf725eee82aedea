// SPDX-License-Identifier: Apache-2.0
// parallel_for over a plain pool, for ThreadSanitizer, which cannot see into libtbb. Nested calls,
// and calls while another thread's loop runs, are served by the calling thread alone.
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/parallel.h"

namespace nibble {
namespace {

thread_local bool inside_loop = false;

class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; ++i) {
      workers_.emplace_back([this] { work(); });
    }
  }

  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) {
      worker.join();
    }
  }

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  void run(std::int64_t count, const std::function<void(std::int64_t)>& body) {
    std::unique_lock lock(mutex_);
    body_ = &body;
    count_ = count;
    next_ = 0;
    busy_ = workers_.size();
    error_ = nullptr;
    ++generation_;
    lock.unlock();
    wake_.notify_all();
    drain();
    lock.lock();
    done_.wait(lock, [this] { return busy_ == 0; });
    if (error_ != nullptr) {
      std::rethrow_exception(error_);
    }
  }

 private:
  void work() {
    std::uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stopping_ || generation_ != seen; });
      if (stopping_) {
        return;
      }
      seen = generation_;
      lock.unlock();
      drain();
      lock.lock();
      if (--busy_ == 0) {
        done_.notify_one();
      }
    }
  }

  void drain() {
    inside_loop = true;
    try {
      for (std::int64_t i = next_++; i < count_; i = next_++) {
        (*body_)(i);
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (error_ == nullptr) {
        error_ = std::current_exception();
      }
    }
    inside_loop = false;
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> workers_;
  const std::function<void(std::int64_t)>* body_ = nullptr;
  std::int64_t count_ = 0;
  std::atomic<std::int64_t> next_{0};
  std::size_t busy_ = 0;
  std::uint64_t generation_ = 0;
  std::exception_ptr error_;
  bool stopping_ = false;
};

void run_serially(std::int64_t count, const std::function<void(std::int64_t)>& body) {
  for (std::int64_t i = 0; i < count; ++i) {
    body(i);
  }
}

}  // namespace

void parallel_for(std::int64_t count, const std::function<void(std::int64_t)>& body) {
  static std::mutex in_use;
  static std::unique_ptr<Pool> pool;
  const int threads = thread_count();
  std::unique_lock lock(in_use, std::defer_lock);
  if (count <= 1 || threads == 1 || inside_loop || !lock.try_lock()) {
    run_serially(count, body);
    return;
  }
  if (pool == nullptr || pool->threads() != threads) {
    pool.reset();
    pool = std::make_unique<Pool>(threads);
  }
  pool->run(count, body);
}

}  // namespace nibble
