// SPDX-License-Identifier: Apache-2.0
// The runtime's functions for captures and graphs, with NVIDIA's prototypes.
#include <memory>
#include <utility>

#include "cuda_host/control.h"
#include "cuda_host/runtime.h"

namespace nibble::cuda_host {
namespace {

using SharedGraph = std::shared_ptr<const Graph>;

SharedGraph& graph_of(cudaGraph_t handle) { return *reinterpret_cast<SharedGraph*>(handle); }
SharedGraph& graph_of(cudaGraphExec_t handle) { return *reinterpret_cast<SharedGraph*>(handle); }

Work replay(const SharedGraph& graph, std::uint64_t seed) {
  Work work{"a graph", [graph, seed] { run_graph(*graph, Random(seed)); }, {}};
  for (const GraphNode& node : *graph) {
    work.uses.insert(work.uses.end(), node.work.uses.begin(), node.work.uses.end());
  }
  return work;
}

}  // namespace
}  // namespace nibble::cuda_host

using nibble::cuda_host::call;
using nibble::cuda_host::call_on;
using nibble::cuda_host::Graph;
using nibble::cuda_host::graph_of;
using nibble::cuda_host::Runtime;
using nibble::cuda_host::SharedGraph;
using nibble::cuda_host::Stream;

extern "C" {

cudaError_t CUDARTAPI cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  return call_on(
      handle, [&](Runtime& rt, Stream& stream) { return rt.streams.begin_capture(stream, mode); });
}

cudaError_t CUDARTAPI cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  return call_on(handle, [&](Runtime& rt, Stream& stream) {
    *graph = nullptr;
    Graph captured;
    const cudaError_t status = rt.streams.end_capture(stream, captured);
    if (status == cudaSuccess) {
      auto* shared = new SharedGraph(std::make_shared<const Graph>(std::move(captured)));
      *graph = reinterpret_cast<cudaGraph_t>(shared);
    }
    return status;
  });
}

cudaError_t CUDARTAPI cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  return call_on(handle, [&](Runtime&, Stream& stream) {
    *status = stream.capture == nullptr ? cudaStreamCaptureStatusNone
              : stream.capture->invalid ? cudaStreamCaptureStatusInvalidated
                                        : cudaStreamCaptureStatusActive;
    return cudaSuccess;
  });
}

cudaError_t CUDARTAPI cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                           unsigned long long) {
  return call([&](Runtime&) {
    *exec = reinterpret_cast<cudaGraphExec_t>(new SharedGraph(graph_of(graph)));
    return cudaSuccess;
  });
}

cudaError_t CUDARTAPI cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t handle) {
  return call_on(handle, [&](Runtime& rt, Stream& stream) {
    if (stream.capture != nullptr) {
      stream.capture->invalid = true;
      rt.say("a graph is launched into a capture, which the stand-in does not offer");
      return cudaErrorNotSupported;
    }
    return rt.enqueue(stream, nibble::cuda_host::replay(graph_of(exec), rt.draw_seed()));
  });
}

// A graph that is still queued keeps its operations.
cudaError_t CUDARTAPI cudaGraphDestroy(cudaGraph_t graph) {
  delete &graph_of(graph);
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete &graph_of(exec);
  return cudaSuccess;
}

}  // extern "C"
