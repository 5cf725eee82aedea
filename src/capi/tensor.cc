// SPDX-License-Identifier: Apache-2.0
// nibble.h: functions over plain tensors.
#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "backend/scales.h"
#include "capi/device.h"
#include "capi/guard.h"
#include "optim/quantize.h"

using nibble::fail;
using nibble::StatusCode;
using nibble::capi::guard;
using nibble::capi::is_bf16;
using nibble::capi::read_desc;
using nibble::capi::require;
using nibble::capi::require_count;
using nibble::capi::text_or;
namespace math = nibble::math;
namespace optim = nibble::optim;

namespace {

constexpr std::size_t kQuantizeDescFirst = offsetof(nibble_quantize_desc, device);

nibble_quantize_desc read(const nibble_quantize_desc* desc) {
  return read_desc(desc, kQuantizeDescFirst, "quantize descriptor");
}

optim::QuantizeSpec make_spec(const nibble_quantize_desc& d, std::int64_t count) {
  require_count(count);
  return optim::make_quantize_spec(text_or(d.format, "int8"), text_or(d.mode, "default"),
                                   d.block_size, d.is_signed != 0);
}

// Of codes of scales, which lie on both sides of their mean.
optim::QuantizeSpec make_scale_spec(const nibble_quantize_desc& d, std::int64_t n) {
  const optim::QuantizeSpec spec = make_spec(d, n);
  if (!spec.is_signed) {
    fail(StatusCode::kInvalidArgument, "scales less their mean need is_signed = 1");
  }
  return spec;
}

struct Argument {
  const char* name;
  const void* memory;
};

// Where a call's tensors are: null for the host. They must be there.
nibble::backend::Device* place_of(const nibble_quantize_desc& desc,
                                  std::initializer_list<Argument> tensors) {
  nibble::backend::Device* device = nibble::capi::find_device(desc.device);
  for (const Argument& tensor : tensors) {
    nibble::capi::require_memory(device, tensor.memory, tensor.name);
  }
  return device;
}

nibble::backend::Device* place_of_scales(const nibble_quantize_desc& desc, const float* scales,
                                         const void* codes, const float* nested_scales,
                                         const float* offset) {
  return place_of(
      desc,
      {{"scales", scales}, {"codes", codes}, {"nested_scales", nested_scales}, {"offset", offset}});
}

}  // namespace

nibble_status nibble_global_norm(const void* const* tensors, const std::int64_t* counts,
                                 const char* const* dtypes, std::int64_t n, double* out_norm,
                                 std::int64_t* out_nonfinite) noexcept {
  return guard([&] {
    require(out_norm, "out_norm");
    require_count(n, "n");
    if (n > 0) {
      require(tensors, "tensors");
      require(counts, "counts");
    }
    std::vector<std::pair<nibble::backend::Source, std::int64_t>> sources;
    for (std::int64_t i = 0; i < n; ++i) {
      if (counts[i] < 0 || (counts[i] > 0 && tensors[i] == nullptr)) {
        fail(StatusCode::kInvalidArgument, "tensor {}: {} elements at {}", i, counts[i],
             static_cast<const void*>(tensors[i]));
      }
      const bool bf16 = dtypes != nullptr && is_bf16(dtypes[i], "global norm");
      sources.push_back({{tensors[i], bf16}, counts[i]});
    }
    const optim::Norm norm = optim::global_norm(sources);
    *out_norm = norm.value;
    if (out_nonfinite != nullptr) {
      *out_nonfinite = norm.nonfinite;
    }
  });
}

nibble_status nibble_accumulate(float* sum, const void* x, const char* dtype, std::int64_t count,
                                double scale) noexcept {
  return guard([&] {
    require_count(count);
    const bool bf16 = is_bf16(dtype, "accumulate");
    optim::check_float("accumulate: scale", scale);
    if (count > 0) {
      require(sum, "sum");
      require(x, "x");
      optim::accumulate({x, bf16}, count, static_cast<float>(scale), sum);
    }
  });
}

nibble_status nibble_format_map(const nibble_quantize_desc* desc, float* out,
                                std::int64_t* out_count) noexcept {
  return guard([&] {
    const auto d = read(desc);
    const optim::QuantizeSpec spec =
        optim::make_quantize_spec(text_or(d.format, "int8"), "default", 0, d.is_signed != 0);
    require(out, "out");
    const std::int64_t count = math::kFormats[spec.format].bits == 4 ? 16 : 256;
    const auto values = optim::map_values(spec.format, spec.is_signed);
    std::copy(values.begin(), values.begin() + count, out);
    if (out_count != nullptr) {
      *out_count = count;
    }
  });
}

nibble_status nibble_quantized_size(const nibble_quantize_desc* desc, std::int64_t count,
                                    std::uint64_t* out_code_bytes,
                                    std::int64_t* out_scale_count) noexcept {
  return guard([&] {
    const auto d = read(desc);
    const optim::QuantizeSpec spec = make_spec(d, count);
    if (out_code_bytes != nullptr) {
      *out_code_bytes = static_cast<std::uint64_t>(math::kFormats[spec.format].packed_bytes(count));
    }
    if (out_scale_count != nullptr) {
      *out_scale_count = math::block_count(count, spec.block);
    }
  });
}

nibble_status nibble_quantize(const nibble_quantize_desc* desc, const float* src,
                              std::int64_t count, void* codes, float* scales) noexcept {
  return guard([&] {
    const auto d = read(desc);
    const optim::QuantizeSpec spec = make_spec(d, count);
    if (count > 0) {
      auto* bytes = static_cast<std::uint8_t*>(codes);
      if (auto* device = place_of(d, {{"src", src}, {"codes", codes}, {"scales", scales}})) {
        device->quantize(src, count, spec.block, spec.format, spec.is_signed, spec.rounding, bytes,
                         scales, d.stream);
      } else {
        optim::quantize(spec, src, count, bytes, scales);
      }
    }
  });
}

nibble_status nibble_dequantize(const nibble_quantize_desc* desc, const void* codes,
                                const float* scales, std::int64_t count, float* dst) noexcept {
  return guard([&] {
    const auto d = read(desc);
    const optim::QuantizeSpec spec = make_spec(d, count);
    if (count > 0) {
      const auto* bytes = static_cast<const std::uint8_t*>(codes);
      if (auto* device = place_of(d, {{"codes", codes}, {"scales", scales}, {"dst", dst}})) {
        device->dequantize(bytes, scales, count, spec.block, spec.format, spec.is_signed, dst,
                           d.stream);
      } else {
        optim::dequantize(spec, bytes, scales, count, dst);
      }
    }
  });
}

nibble_status nibble_compress_scales(const nibble_quantize_desc* desc, float* scales,
                                     std::int64_t n, void* codes, float* nested_scales,
                                     float* offset) noexcept {
  return guard([&] {
    const auto d = read(desc);
    const optim::QuantizeSpec spec = make_scale_spec(d, n);
    if (n > 0) {
      auto* bytes = static_cast<std::uint8_t*>(codes);
      if (auto* device = place_of_scales(d, scales, codes, nested_scales, offset)) {
        device->subtract_mean(scales, n, offset, d.stream);
        device->quantize(scales, n, spec.block, spec.format, true, spec.rounding, bytes,
                         nested_scales, d.stream);
      } else {
        nibble::backend::subtract_mean(scales, n, offset);
        optim::quantize(spec, scales, n, bytes, nested_scales);
      }
    }
  });
}

nibble_status nibble_expand_scales(const nibble_quantize_desc* desc, const void* codes,
                                   const float* nested_scales, const float* offset, std::int64_t n,
                                   float* scales) noexcept {
  return guard([&] {
    const auto d = read(desc);
    const optim::QuantizeSpec spec = make_scale_spec(d, n);
    if (n > 0) {
      const auto* bytes = static_cast<const std::uint8_t*>(codes);
      if (auto* device = place_of_scales(d, scales, codes, nested_scales, offset)) {
        device->dequantize(bytes, nested_scales, n, spec.block, spec.format, true, scales,
                           d.stream);
        device->add(scales, n, offset, d.stream);
      } else {
        optim::dequantize(spec, bytes, nested_scales, n, scales);
        nibble::backend::add(scales, n, offset);
      }
    }
  });
}
