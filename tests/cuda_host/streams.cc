// SPDX-License-Identifier: Apache-2.0
#include "cuda_host/streams.h"

#include <algorithm>

namespace nibble::cuda_host {

StreamSet::StreamSet() = default;

cudaStream_t StreamSet::create(bool blocking) {
  streams_.push_back(std::make_unique<Stream>());
  streams_.back()->blocking = blocking;
  return reinterpret_cast<cudaStream_t>(streams_.back().get());
}

Stream* StreamSet::find(cudaStream_t handle) {
  if (handle == nullptr || handle == cudaStreamLegacy) {
    return &legacy_;
  }
  if (handle == cudaStreamPerThread) {
    return &per_thread_;
  }
  for (const std::unique_ptr<Stream>& stream : streams_) {
    if (reinterpret_cast<cudaStream_t>(stream.get()) == handle && !stream->destroyed) {
      return stream.get();
    }
  }
  return nullptr;
}

std::vector<Stream*> StreamSet::all() {
  std::vector<Stream*> result{&legacy_, &per_thread_};
  for (const std::unique_ptr<Stream>& stream : streams_) {
    result.push_back(stream.get());
  }
  return result;
}

// What is queued still runs, as late as everything else.
void StreamSet::destroy(Stream& stream) {
  stream.destroyed = true;
  std::erase_if(streams_, [](const auto& s) { return s->destroyed && s->queue.empty(); });
}

cudaError_t StreamSet::enqueue(Stream& stream, Work work, std::vector<std::uint64_t> after) {
  if (stream.capture != nullptr) {
    return add_to_capture(stream, std::move(work));
  }
  const bool legacy = &stream == &legacy_;
  for (Stream* other : all()) {
    if (legacy && other != &legacy_ && other->blocking) {
      if (other->capture != nullptr) {
        other->capture->invalid = true;  // the default stream would have to wait for it
        return cudaErrorStreamCaptureImplicit;
      }
      after.push_back(other->last);
    }
  }
  if (!legacy && stream.blocking) {
    after.push_back(legacy_.last);
  }
  stream.last = ++next_id_;
  pending_.insert(stream.last);
  stream.queue.push_back({stream.last, std::move(work), std::move(after)});
  return cudaSuccess;
}

bool StreamSet::run_one() {
  std::vector<Stream*> candidates;
  for (Stream* stream : all()) {
    if (!stream->queue.empty() &&
        std::all_of(stream->queue.front().after.begin(), stream->queue.front().after.end(),
                    [this](std::uint64_t id) { return is_done(id); })) {
      candidates.push_back(stream);
    }
  }
  if (candidates.empty()) {
    return false;
  }
  Stream& chosen = *candidates[random_.below(candidates.size())];
  const Operation operation = std::move(chosen.queue.front());
  chosen.queue.pop_front();
  operation.work.run();
  pending_.erase(operation.id);
  std::erase_if(streams_, [](const auto& s) { return s->destroyed && s->queue.empty(); });
  return true;
}

void StreamSet::run_until_done(std::uint64_t operation) {
  while (!is_done(operation) && run_one()) {
  }
}

void StreamSet::run_all() {
  while (run_one()) {
  }
}

const Operation* StreamSet::find_user(const Allocation& allocation) const {
  const auto uses = [&](const Operation& operation) {
    return std::any_of(
        operation.work.uses.begin(), operation.work.uses.end(), [&](const Range& range) {
          const auto* low = static_cast<const char*>(range.low);
          return low + range.bytes > allocation.low && low < allocation.low + allocation.bytes;
        });
  };
  for (const Stream* stream : const_cast<StreamSet*>(this)->all()) {
    for (const Operation& operation : stream->queue) {
      if (uses(operation)) {
        return &operation;
      }
    }
  }
  return nullptr;
}

cudaError_t StreamSet::record(Event& event, Stream& stream) {
  if (stream.capture != nullptr) {
    event.capture = stream.capture;
    event.nodes = stream.capture_tail;
    event.recorded = true;
    return stream.capture->invalid ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
  }
  auto time = std::make_shared<std::chrono::steady_clock::time_point>();
  const cudaError_t status =
      enqueue(stream, {"event", [time] { *time = std::chrono::steady_clock::now(); }, {}});
  if (status == cudaSuccess) {
    event.capture = nullptr;
    event.time = time;
    event.operation = stream.last;
    event.recorded = true;
  }
  return status;
}

cudaError_t StreamSet::wait(Stream& stream, const Event& event) {
  if (!event.recorded) {
    return cudaSuccess;
  }
  if (event.capture != nullptr) {
    return wait_in_capture(stream, event);
  }
  if (stream.capture != nullptr) {
    stream.capture->invalid = true;  // a graph cannot wait for what is outside of it
    return cudaErrorStreamCaptureIsolation;
  }
  return enqueue(stream, {"event wait", [] {}, {}}, {event.operation});
}

}  // namespace nibble::cuda_host
