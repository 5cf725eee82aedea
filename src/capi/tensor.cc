// SPDX-License-Identifier: Apache-2.0
// nibble.h: functions over plain tensors.
#include "capi/guard.h"
#include "optim/quantize.h"

using nibble::fail;
using nibble::StatusCode;
using nibble::capi::guard;
using nibble::capi::read_desc;
using nibble::capi::require;
using nibble::capi::text_or;
namespace math = nibble::math;
namespace optim = nibble::optim;

namespace {

optim::QuantizeSpec make_spec(const nibble_quantize_desc* desc, std::int64_t count) {
  const auto d = read_desc(desc, sizeof(nibble_quantize_desc), "quantize descriptor");
  if (count < 0) {
    fail(StatusCode::kInvalidArgument, "count is {}: 0 or more expected", count);
  }
  return optim::make_quantize_spec(text_or(d.format, "int8"), text_or(d.mode, "default"),
                                   d.block_size != 0 ? d.block_size : math::kDefaultBlock,
                                   d.is_signed != 0);
}

}  // namespace

nibble_status nibble_global_norm(const float* const* tensors, const std::int64_t* counts,
                                 std::int64_t n, double* out_norm,
                                 std::int64_t* out_nonfinite) noexcept {
  return guard([&] {
    require(out_norm, "out_norm");
    if (n < 0) {
      fail(StatusCode::kInvalidArgument, "n is {}: 0 or more expected", n);
    }
    if (n > 0) {
      require(tensors, "tensors");
      require(counts, "counts");
    }
    for (std::int64_t i = 0; i < n; ++i) {
      if (counts[i] < 0 || (counts[i] > 0 && tensors[i] == nullptr)) {
        fail(StatusCode::kInvalidArgument, "tensor {}: {} elements at {}", i, counts[i],
             static_cast<const void*>(tensors[i]));
      }
    }
    const optim::Norm norm = optim::global_norm(tensors, counts, n);
    *out_norm = norm.value;
    if (out_nonfinite != nullptr) {
      *out_nonfinite = norm.nonfinite;
    }
  });
}

nibble_status nibble_quantized_size(const nibble_quantize_desc* desc, std::int64_t count,
                                    std::uint64_t* out_code_bytes,
                                    std::int64_t* out_absmax_count) noexcept {
  return guard([&] {
    const optim::QuantizeSpec spec = make_spec(desc, count);
    if (out_code_bytes != nullptr) {
      *out_code_bytes = static_cast<std::uint64_t>(math::kFormats[spec.format].packed_bytes(count));
    }
    if (out_absmax_count != nullptr) {
      *out_absmax_count = math::block_count(count, spec.block);
    }
  });
}

nibble_status nibble_quantize(const nibble_quantize_desc* desc, const float* src,
                              std::int64_t count, void* codes, float* absmax) noexcept {
  return guard([&] {
    const optim::QuantizeSpec spec = make_spec(desc, count);
    if (count > 0) {
      require(src, "src");
      require(codes, "codes");
      require(absmax, "absmax");
      optim::quantize(spec, src, count, static_cast<std::uint8_t*>(codes), absmax);
    }
  });
}

nibble_status nibble_dequantize(const nibble_quantize_desc* desc, const void* codes,
                                const float* absmax, std::int64_t count, float* dst) noexcept {
  return guard([&] {
    const optim::QuantizeSpec spec = make_spec(desc, count);
    if (count > 0) {
      require(codes, "codes");
      require(absmax, "absmax");
      require(dst, "dst");
      optim::dequantize(spec, static_cast<const std::uint8_t*>(codes), absmax, count, dst);
    }
  });
}
