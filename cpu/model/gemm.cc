// SPDX-License-Identifier: Apache-2.0
#include "cpu/model/gemm.h"

#include <omp.h>

#include <array>
#include <cstdlib>
#include <dnnl.hpp>
#include <memory>
#include <new>
#include <unordered_map>
#include <utility>

#include "core/status.h"

namespace nibble::cpu {
namespace {

using dnnl::memory;

struct Key {
  std::array<std::int64_t, 6> numbers;  // M, N, K and the three strides
  std::uint32_t flags;
  bool operator==(const Key&) const = default;
};

struct KeyHash {
  std::size_t operator()(const Key& key) const {
    std::uint64_t hash = key.flags;
    for (const std::int64_t number : key.numbers) {
      hash = (hash ^ static_cast<std::uint64_t>(number)) * 0x9E3779B97F4A7C15U;
      hash ^= hash >> 29;
    }
    return hash;
  }
};

struct Kernel {
  dnnl::matmul matmul;
  memory a, b, c;
  std::unordered_map<int, memory> arguments;
};

dnnl::engine& engine() {
  static dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

memory::data_type data_type(DType dtype) {
  return dtype == DType::kF32 ? memory::data_type::f32 : memory::data_type::bf16;
}

Kernel make_kernel(ConstMatrix a, ConstMatrix b, Transpose transpose_b, ConstMatrix c,
                   bool accumulate) {
  const memory::dims b_strides =
      transpose_b == Transpose::kYes ? memory::dims{1, b.stride} : memory::dims{b.stride, 1};
  const memory::desc da({a.rows, a.cols}, data_type(a.dtype), memory::dims{a.stride, 1});
  const memory::desc db({a.cols, c.cols}, data_type(b.dtype), b_strides);
  const memory::desc dc({c.rows, c.cols}, data_type(c.dtype), memory::dims{c.stride, 1});
  dnnl::primitive_attr attributes;
  if (accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0F);
    attributes.set_post_ops(sum);
  }
  Kernel kernel;
  kernel.matmul = dnnl::matmul(
      dnnl::matmul::primitive_desc(dnnl::matmul::desc(da, db, dc), attributes, engine()));
  kernel.a = memory(da, engine(), nullptr);
  kernel.b = memory(db, engine(), nullptr);
  kernel.c = memory(dc, engine(), nullptr);
  kernel.arguments = {
      {DNNL_ARG_SRC, kernel.a}, {DNNL_ARG_WEIGHTS, kernel.b}, {DNNL_ARG_DST, kernel.c}};
  return kernel;
}

// What a thread needs of its own: oneDNN's team is held to one thread, kernels are not shared.
struct ThreadState {
  ThreadState() : stream(engine()) { omp_set_num_threads(1); }
  dnnl::stream stream;
  std::unordered_map<Key, Kernel, KeyHash> kernels;
};

// Ragged batches bring new shapes for ever; past this many the cache starts again.
constexpr std::size_t kMaxKernels = 4096;

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
struct Scratch {
  std::unique_ptr<void, Free> memory;
  std::size_t bytes = 0;
};

}  // namespace

void gemm(ConstMatrix a, ConstMatrix b, Transpose transpose_b, Matrix c, bool accumulate) {
  thread_local ThreadState state;
  const Key key{{c.rows, c.cols, a.cols, a.stride, b.stride, c.stride},
                static_cast<std::uint32_t>(a.dtype) | static_cast<std::uint32_t>(c.dtype) << 1 |
                    (transpose_b == Transpose::kYes ? 4U : 0U) | (accumulate ? 8U : 0U)};
  try {
    auto found = state.kernels.find(key);
    if (found == state.kernels.end()) {
      if (state.kernels.size() >= kMaxKernels) {
        state.kernels.clear();
      }
      found = state.kernels.emplace(key, make_kernel(a, b, transpose_b, c, accumulate)).first;
    }
    Kernel& kernel = found->second;
    kernel.a.set_data_handle(const_cast<void*>(a.data));
    kernel.b.set_data_handle(const_cast<void*>(b.data));
    kernel.c.set_data_handle(c.data);
    kernel.matmul.execute(state.stream, kernel.arguments);
  } catch (const dnnl::error& error) {
    if (error.status == dnnl_out_of_memory) {
      throw std::bad_alloc();
    }
    fail(StatusCode::kInternal, "matrix product {} x {} x {}: oneDNN: {}", c.rows, c.cols, a.cols,
         error.what());
  }
}

void* thread_scratch(int slot, std::size_t bytes) {
  thread_local std::array<Scratch, 8> slots;
  Scratch& scratch = slots.at(static_cast<std::size_t>(slot));
  if (scratch.bytes < bytes) {
    const std::size_t rounded = (bytes + 4095) / 4096 * 4096;
    scratch.memory.reset();
    scratch.bytes = 0;
    scratch.memory.reset(std::aligned_alloc(64, rounded));
    if (!scratch.memory) {
      throw std::bad_alloc();
    }
    scratch.bytes = rounded;
  }
  return scratch.memory.get();
}

}  // namespace nibble::cpu
