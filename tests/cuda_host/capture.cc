// SPDX-License-Identifier: Apache-2.0
// StreamSet: capture of operations into a graph, and its replay.
#include <algorithm>

#include "cuda_host/streams.h"

namespace nibble::cuda_host {
namespace {

// The nodes that come before `tail`, and those of `tail` themselves.
std::vector<bool> ancestors(const Graph& graph, const std::vector<std::size_t>& tail) {
  std::vector<bool> reached(graph.size(), false);
  for (const std::size_t node : tail) {
    reached[node] = true;
  }
  for (std::size_t node = graph.size(); node-- > 0;) {
    if (reached[node]) {
      for (const std::size_t before : graph[node].after) {
        reached[before] = true;
      }
    }
  }
  return reached;
}

}  // namespace

cudaError_t StreamSet::add_to_capture(Stream& stream, Work work) {
  Capture& capture = *stream.capture;
  if (capture.invalid) {
    return cudaErrorStreamCaptureInvalidated;
  }
  capture.graph.push_back({std::move(work), stream.capture_tail});
  stream.capture_tail = {capture.graph.size() - 1};
  return cudaSuccess;
}

cudaError_t StreamSet::wait_in_capture(Stream& stream, const Event& event) {
  if (event.capture->origin == nullptr || event.capture->invalid) {
    return cudaErrorStreamCaptureInvalidated;
  }
  if (&stream == &legacy_) {
    event.capture->invalid = true;
    return cudaErrorStreamCaptureImplicit;
  }
  if (stream.capture == nullptr) {
    stream.capture = event.capture;
    stream.capture_tail.clear();
  } else if (stream.capture != event.capture) {
    stream.capture->invalid = event.capture->invalid = true;
    return cudaErrorStreamCaptureMerge;
  }
  stream.capture_tail.insert(stream.capture_tail.end(), event.nodes.begin(), event.nodes.end());
  return cudaSuccess;
}

cudaError_t StreamSet::begin_capture(Stream& stream, cudaStreamCaptureMode mode) {
  if (&stream == &legacy_) {
    return cudaErrorStreamCaptureUnsupported;
  }
  if (stream.capture != nullptr) {
    return cudaErrorIllegalState;
  }
  stream.capture = std::make_shared<Capture>();
  stream.capture->mode = mode;
  stream.capture->thread = std::this_thread::get_id();
  stream.capture->origin = &stream;
  stream.capture_tail.clear();
  return cudaSuccess;
}

void StreamSet::leave_capture(const std::shared_ptr<Capture>& capture) {
  for (Stream* stream : all()) {
    if (stream->capture == capture) {
      stream->capture = nullptr;
      stream->capture_tail.clear();
    }
  }
  capture->origin = nullptr;
}

cudaError_t StreamSet::end_capture(Stream& stream, Graph& graph) {
  const std::shared_ptr<Capture> capture = stream.capture;
  if (capture == nullptr) {
    return cudaErrorIllegalState;
  }
  if (capture->origin != &stream) {
    return cudaErrorStreamCaptureUnmatched;
  }
  if (capture->mode != cudaStreamCaptureModeRelaxed &&
      capture->thread != std::this_thread::get_id()) {
    return cudaErrorStreamCaptureWrongThread;
  }
  const std::vector<bool> joined = ancestors(capture->graph, stream.capture_tail);
  const bool complete = std::all_of(joined.begin(), joined.end(), [](bool node) { return node; });
  const bool invalid = capture->invalid;
  leave_capture(capture);
  if (invalid) {
    return cudaErrorStreamCaptureInvalidated;
  }
  if (!complete) {
    return cudaErrorStreamCaptureUnjoined;
  }
  graph = std::move(capture->graph);
  return cudaSuccess;
}

cudaError_t StreamSet::refuse_in_capture() {
  cudaError_t status = cudaSuccess;
  for (Stream* stream : all()) {
    const Capture* capture = stream->capture.get();
    if (capture != nullptr && (capture->mode == cudaStreamCaptureModeGlobal ||
                               (capture->mode == cudaStreamCaptureModeThreadLocal &&
                                capture->thread == std::this_thread::get_id()))) {
      stream->capture->invalid = true;
      status = cudaErrorStreamCaptureUnsupported;
    }
  }
  return status;
}

void StreamSet::end_captures() {
  for (Stream* stream : all()) {
    if (stream->capture != nullptr) {
      leave_capture(std::shared_ptr<Capture>(stream->capture));
    }
  }
}

void run_graph(const Graph& graph, Random random) {
  std::vector<bool> done(graph.size(), false);
  for (std::size_t count = 0; count < graph.size(); ++count) {
    std::vector<std::size_t> candidates;
    for (std::size_t node = 0; node < graph.size(); ++node) {
      if (!done[node] && std::all_of(graph[node].after.begin(), graph[node].after.end(),
                                     [&](std::size_t before) { return done[before]; })) {
        candidates.push_back(node);
      }
    }
    const std::size_t chosen = candidates[random.below(candidates.size())];
    graph[chosen].work.run();
    done[chosen] = true;
  }
}

}  // namespace nibble::cuda_host
