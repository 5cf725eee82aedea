// SPDX-License-Identifier: Apache-2.0
// The runtime's functions for streams, events and graphs, with NVIDIA's prototypes.
#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "cuda_host/control.h"
#include "cuda_host/runtime.h"

namespace nibble::cuda_host {
namespace {

// A synchronisation: not allowed while something is captured.
template <class Body>
cudaError_t synchronize(const char* function, Runtime& rt, Body body) {
  if (const cudaError_t refused = rt.streams.refuse_in_capture(); refused != cudaSuccess) {
    rt.say(std::string(function) + " is called during a capture");
    return refused;
  }
  return body();
}

// For calls about one stream, which no mode of capture allows on the captured one.
cudaError_t refuse_on_captured(Runtime& rt, Stream& stream, const char* function) {
  if (stream.capture == nullptr) {
    return cudaSuccess;
  }
  stream.capture->invalid = true;
  rt.say(std::string(function) + " is called on a captured stream");
  return cudaErrorStreamCaptureUnsupported;
}

template <class Body>
cudaError_t call_with_event(cudaEvent_t handle, Body body) {
  return call([&](Runtime& rt) {
    Event* event = rt.find(handle);
    return event != nullptr ? body(rt, *event) : cudaErrorInvalidResourceHandle;
  });
}

}  // namespace
}  // namespace nibble::cuda_host

using nibble::cuda_host::call;
using nibble::cuda_host::call_on;
using nibble::cuda_host::Event;
using nibble::cuda_host::Runtime;
using nibble::cuda_host::Stream;

extern "C" {

cudaError_t CUDARTAPI cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return call([&](Runtime& rt) {
    *stream = rt.streams.create((flags & cudaStreamNonBlocking) == 0);
    return cudaSuccess;
  });
}

cudaError_t CUDARTAPI cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t CUDARTAPI cudaStreamDestroy(cudaStream_t handle) {
  return call_on(handle, [&](Runtime& rt, Stream& stream) {
    if (handle == nullptr || handle == cudaStreamLegacy || handle == cudaStreamPerThread) {
      return cudaErrorInvalidResourceHandle;
    }
    const cudaError_t refused =
        nibble::cuda_host::refuse_on_captured(rt, stream, "cudaStreamDestroy");
    if (refused == cudaSuccess) {
      rt.streams.destroy(stream);
    }
    return refused;
  });
}

cudaError_t CUDARTAPI cudaStreamSynchronize(cudaStream_t handle) {
  return call_on(handle, [&](Runtime& rt, Stream& stream) {
    return nibble::cuda_host::synchronize("cudaStreamSynchronize", rt, [&] {
      const cudaError_t refused =
          nibble::cuda_host::refuse_on_captured(rt, stream, "cudaStreamSynchronize");
      rt.streams.run_until_done(stream.last);
      return refused;
    });
  });
}

cudaError_t CUDARTAPI cudaStreamQuery(cudaStream_t handle) {
  return call_on(handle, [&](Runtime& rt, Stream& stream) {
    const cudaError_t refused =
        nibble::cuda_host::refuse_on_captured(rt, stream, "cudaStreamQuery");
    if (refused != cudaSuccess || rt.streams.is_done(stream.last)) {
      return refused;
    }
    rt.streams.run_one();  // a loop that polls must come to its end
    return cudaErrorNotReady;
  });
}

cudaError_t CUDARTAPI cudaDeviceSynchronize() {
  return call([&](Runtime& rt) {
    return nibble::cuda_host::synchronize("cudaDeviceSynchronize", rt, [&] {
      rt.streams.run_all();
      return cudaSuccess;
    });
  });
}

cudaError_t CUDARTAPI cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  return call_on(handle, [&](Runtime& rt, Stream& stream) {
    const Event* found = rt.find(event);
    if (found == nullptr) {
      return cudaErrorInvalidResourceHandle;
    }
    const cudaError_t status = rt.streams.wait(stream, *found);
    rt.after_enqueue();
    return status;
  });
}

cudaError_t CUDARTAPI cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void* data) {
  return call_on(handle, [&](Runtime& rt, Stream& stream) {
    return rt.enqueue(
        stream,
        {"a host function", [=] { nibble::cuda_host::run_host_function(function, data); }, {}});
  });
}

cudaError_t CUDARTAPI cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return call([&](Runtime& rt) {
    rt.events.push_back(std::make_unique<Event>());
    rt.events.back()->timed = (flags & cudaEventDisableTiming) == 0;
    *event = reinterpret_cast<cudaEvent_t>(rt.events.back().get());
    return cudaSuccess;
  });
}

cudaError_t CUDARTAPI cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t CUDARTAPI cudaEventDestroy(cudaEvent_t handle) {
  return nibble::cuda_host::call_with_event(handle, [&](Runtime& rt, const Event& event) {
    std::erase_if(rt.events, [&](const auto& e) { return e.get() == &event; });
    return cudaSuccess;
  });
}

cudaError_t CUDARTAPI cudaEventRecord(cudaEvent_t handle, cudaStream_t stream_handle) {
  return call_on(stream_handle, [&](Runtime& rt, Stream& stream) {
    Event* event = rt.find(handle);
    if (event == nullptr) {
      return cudaErrorInvalidResourceHandle;
    }
    const cudaError_t status = rt.streams.record(*event, stream);
    rt.after_enqueue();
    return status;
  });
}

cudaError_t CUDARTAPI cudaEventSynchronize(cudaEvent_t handle) {
  return nibble::cuda_host::call_with_event(handle, [&](Runtime& rt, const Event& event) {
    return nibble::cuda_host::synchronize("cudaEventSynchronize", rt, [&] {
      if (event.capture != nullptr) {
        return cudaErrorCapturedEvent;
      }
      rt.streams.run_until_done(event.operation);
      return cudaSuccess;
    });
  });
}

cudaError_t CUDARTAPI cudaEventQuery(cudaEvent_t handle) {
  return nibble::cuda_host::call_with_event(handle, [&](Runtime& rt, const Event& event) {
    return nibble::cuda_host::synchronize("cudaEventQuery", rt, [&] {
      if (event.capture != nullptr) {
        return cudaErrorCapturedEvent;
      }
      if (rt.streams.is_done(event.operation)) {
        return cudaSuccess;
      }
      rt.streams.run_one();
      return cudaErrorNotReady;
    });
  });
}

cudaError_t CUDARTAPI cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  return call([&](Runtime& rt) {
    const Event* events[] = {rt.find(from), rt.find(to)};
    for (const Event* event : events) {
      if (event == nullptr || !event->timed || event->time == nullptr) {
        return cudaErrorInvalidResourceHandle;
      }
      if (!rt.streams.is_done(event->operation)) {
        return cudaErrorNotReady;
      }
    }
    *milliseconds =
        std::chrono::duration<float, std::milli>(*events[1]->time - *events[0]->time).count();
    return cudaSuccess;
  });
}

}  // extern "C"
