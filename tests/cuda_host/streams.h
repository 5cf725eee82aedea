// SPDX-License-Identifier: Apache-2.0
// Streams, events and captures: what has been asked for, in which order it may run.
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

#include "cuda_host/control.h"
#include "cuda_host/memory.h"
#include "cuda_host/random.h"

namespace nibble::cuda_host {

// A kernel, a copy, a fill, a callback.
struct Work {
  std::string name;
  std::function<void()> run;
  std::vector<Range> uses;
};

// The operations of a graph; each comes after those with the given indices, which are lower.
struct GraphNode {
  Work work;
  std::vector<std::size_t> after;
};
using Graph = std::vector<GraphNode>;

struct Stream;

// One cudaStreamBeginCapture. Other streams join by waiting for an event of a captured stream.
struct Capture {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  Stream* origin = nullptr;
  Graph graph;
  bool invalid = false;
};

struct Operation {
  std::uint64_t id = 0;
  Work work;
  std::vector<std::uint64_t> after;
};

struct Stream {
  bool blocking = true;  // against the legacy default stream
  bool destroyed = false;
  std::deque<Operation> queue;
  std::uint64_t last = 0;
  std::shared_ptr<Capture> capture;
  std::vector<std::size_t> capture_tail;  // what the next captured operation comes after
};

struct Event {
  bool timed = true;
  bool recorded = false;
  std::uint64_t operation = 0;
  std::shared_ptr<std::chrono::steady_clock::time_point> time;
  std::shared_ptr<Capture> capture;  // when it was recorded in one
  std::vector<std::size_t> nodes;
};

class StreamSet {
 public:
  StreamSet();

  cudaStream_t create(bool blocking);
  // The default streams have handles of their own. Null for what is not, or no longer, a stream.
  Stream* find(cudaStream_t handle);
  void destroy(Stream& stream);

  // Queues the work, or adds it to the capture of the stream. Operations run in calls of run_*.
  cudaError_t enqueue(Stream& stream, Work work, std::vector<std::uint64_t> after = {});
  bool is_done(std::uint64_t operation) const { return !pending_.contains(operation); }
  // Runs one operation, drawn by `random` from those that may run. False if there is none.
  bool run_one();
  void run_until_done(std::uint64_t operation);
  void run_all();
  void set_seed(std::uint64_t seed) { random_ = Random(seed); }
  // An operation not yet run that touches the allocation, or null.
  const Operation* find_user(const Allocation& allocation) const;

  cudaError_t begin_capture(Stream& stream, cudaStreamCaptureMode mode);
  cudaError_t end_capture(Stream& stream, Graph& graph);
  // For calls that no capture allows: the captures they concern become invalid.
  cudaError_t refuse_in_capture();
  void end_captures();

  cudaError_t record(Event& event, Stream& stream);
  cudaError_t wait(Stream& stream, const Event& event);

 private:
  std::vector<Stream*> all();
  cudaError_t add_to_capture(Stream& stream, Work work);
  cudaError_t wait_in_capture(Stream& stream, const Event& event);
  void leave_capture(const std::shared_ptr<Capture>& capture);

  Stream legacy_;
  Stream per_thread_;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::unordered_set<std::uint64_t> pending_;
  std::uint64_t next_id_ = 0;
  Random random_;
};

// Runs the nodes in an order that the graph allows, drawn by `random`.
void run_graph(const Graph& graph, Random random);

}  // namespace nibble::cuda_host
