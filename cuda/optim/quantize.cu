// SPDX-License-Identifier: Apache-2.0
// Quantising and dequantising of whole tensors, gradient accumulation, and the decoding of GGUF's
// block formats.
#include "cuda/optim/launch.h"
#include "cuda/optim/state_io.cuh"
#include "math/formats/ggml_blocks.h"

namespace nibble::cuda {
namespace {

template <class Format>
__device__ std::uint8_t* codes_at(std::uint8_t* codes, std::int64_t begin) {
  return codes + (Format::kBits == 4 ? begin / 2 : begin * (Format::kBits / 8));
}

template <class Format>
__global__ void __launch_bounds__(kThreads)
    quantize_kernel(const float* x, std::int64_t n, std::int64_t block, bool is_signed,
                    math::Rounding rounding, std::uint8_t* codes, float* scale) {
  NIBBLE_SHARED(float, scratch, kThreads / 32);
  const Lane at = lane_of(blockIdx.x, n);
  float values[kLane];
  load_floats(x, at, values);
  const float absmax = block_max(lane_absmax(values, at.valid), block, scratch);
  const math::BlockScale by = Format::scale_of(is_signed, absmax, rounding);
  std::uint8_t raw[Format::kBits];
  Format::encode_scaled(is_signed, values, kLane, by, rounding, raw);
  end_with_zero<Format>(is_signed, at.valid, raw);
  store_bits<Format::kBits>(codes_at<Format>(codes, at.begin), at.valid, raw);
  if (at.valid > 0 && at.begin % block == 0) {
    scale[at.begin / block] = by.stored;
  }
}

template <class Format>
__global__ void __launch_bounds__(kThreads)
    dequantize_kernel(const std::uint8_t* codes, const float* scale, std::int64_t n,
                      std::int64_t block, bool is_signed, float* out) {
  const Lane at = lane_of(blockIdx.x, n);
  if (at.valid == 0) {
    return;
  }
  std::uint8_t raw[Format::kBits];
  float values[kLane];
  load_bits<Format::kBits>(codes_at<Format>(const_cast<std::uint8_t*>(codes), at.begin), at.valid,
                           raw);
  Format::decode(is_signed, raw, scale + at.begin / block, kLane, values);
  store_floats(out, at, values);
}

__global__ void __launch_bounds__(kThreads)
    accumulate_kernel(backend::Source x, std::int64_t n, float scale, float* out) {
  const Lane at = lane_of(blockIdx.x, n);
  float values[kLane];
  float sums[kLane];
  load_source(x, at, values);
  load_floats(out, at, sums);
  NIBBLE_UNROLL
  for (int i = 0; i < kLane; ++i) {
    sums[i] = math::fma(values[i], scale, sums[i]);
  }
  store_floats(out, at, sums);
}

constexpr int kBlockThreads = 256;
constexpr int kMaxBlockElements = 32;

// A thread a block of the file's format.
template <math::GgmlType kType>
__global__ void __launch_bounds__(kBlockThreads)
    decode_ggml_kernel(const std::byte* blocks, std::int64_t count, float* out) {
  constexpr math::GgmlTypeInfo kInfo = math::ggml_type_info(kType);
  const std::int64_t i = std::int64_t{blockIdx.x} * kBlockThreads + threadIdx.x;
  if (i >= count) {
    return;
  }
  float values[kMaxBlockElements];
  math::decode_ggml_block(kType, blocks + i * kInfo.block_bytes, values);
  for (std::uint32_t e = 0; e < kInfo.block_elements; ++e) {
    out[i * kInfo.block_elements + e] = values[e];
  }
}

template <class Format, class... Args>
cudaError_t quantize_as(dim3 grid, cudaStream_t stream, Args... args) {
  if constexpr (Format::kQuantised) {
    return NIBBLE_LAUNCH(quantize_kernel<Format>, grid, dim3(kThreads), 0, stream, args...);
  } else {
    return cudaErrorInvalidValue;
  }
}

template <class Format, class... Args>
cudaError_t dequantize_as(dim3 grid, cudaStream_t stream, Args... args) {
  if constexpr (Format::kQuantised) {
    return NIBBLE_LAUNCH(dequantize_kernel<Format>, grid, dim3(kThreads), 0, stream, args...);
  } else {
    return cudaErrorInvalidValue;
  }
}

dim3 chunks_of(std::int64_t n) { return dim3(static_cast<unsigned>(math::block_count(n, kChunk))); }

}  // namespace

cudaError_t launch_quantize(const float* x, std::int64_t n, std::int64_t block, int format,
                            bool is_signed, math::Rounding rounding, std::uint8_t* codes,
                            float* scale, cudaStream_t stream) {
  switch (format) {
#define NIBBLE_FORMAT(id, name, Type)                                                             \
  case kIndexOf##Type:                                                                            \
    return quantize_as<math::Type>(chunks_of(n), stream, x, n, block, is_signed, rounding, codes, \
                                   scale);
#include "math/formats/formats.def"
#undef NIBBLE_FORMAT
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t launch_dequantize(const std::uint8_t* codes, const float* scale, std::int64_t n,
                              std::int64_t block, int format, bool is_signed, float* out,
                              cudaStream_t stream) {
  switch (format) {
#define NIBBLE_FORMAT(id, name, Type) \
  case kIndexOf##Type:                \
    return dequantize_as<math::Type>(chunks_of(n), stream, codes, scale, n, block, is_signed, out);
#include "math/formats/formats.def"
#undef NIBBLE_FORMAT
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t launch_accumulate(backend::Source x, std::int64_t n, float scale, float* out,
                              cudaStream_t stream) {
  return NIBBLE_LAUNCH(accumulate_kernel, chunks_of(n), dim3(kThreads), 0, stream, x, n, scale,
                       out);
}

cudaError_t launch_decode_ggml(math::GgmlType type, const std::byte* blocks, std::int64_t count,
                               float* out, cudaStream_t stream) {
  const auto grid = dim3(static_cast<unsigned>(math::block_count(count, kBlockThreads)));
  switch (type) {
#define NIBBLE_GGML_TYPE(id, name, elements, bytes)                                              \
  case math::GgmlType::k##name:                                                                  \
    return NIBBLE_LAUNCH(decode_ggml_kernel<math::GgmlType::k##name>, grid, dim3(kBlockThreads), \
                         0, stream, blocks, count, out);
#include "math/formats/ggml_types.def"
#undef NIBBLE_GGML_TYPE
  }
  return cudaErrorInvalidValue;
}

}  // namespace nibble::cuda
