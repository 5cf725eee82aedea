// SPDX-License-Identifier: Apache-2.0
// The instruction sets that can be asked for (--isa); those between them only cost compile time.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/model/simd_ops.cc"
#include <hwy/foreach_target.h>
// foreach_target.h must come first.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/model/simd_ops.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using math::GgmlType;

using F32 = hn::ScalableTag<float>;
using VF = hn::Vec<F32>;
using U32 = hn::RebindToUnsigned<F32>;
using I32 = hn::RebindToSigned<F32>;
using U16 = hn::Rebind<std::uint16_t, F32>;
using U8 = hn::Rebind<std::uint8_t, F32>;
using I8 = hn::Rebind<std::int8_t, F32>;

HWY_INLINE std::int64_t lanes() { return static_cast<std::int64_t>(hn::Lanes(F32())); }

// bf16 with round to nearest even, as math::float_to_bf16 (Highway's own conversion truncates).
HWY_INLINE hn::Vec<U16> to_bf16(VF v) {
  const U32 du;
  const auto bits = hn::BitCast(du, v);
  const auto lsb = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, lsb), hn::Set(du, 0x7fff)));
  const auto quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(du, 0x40));
  const auto nan = hn::RebindMask(du, hn::IsNaN(v));
  return hn::DemoteTo(U16(), hn::BitCast(I32(), hn::IfThenElse(nan, quiet, rounded)));
}
HWY_INLINE VF from_bf16(hn::Vec<U16> v) {
  return hn::BitCast(F32(), hn::ShiftLeft<16>(hn::PromoteTo(U32(), v)));
}

// Loads and stores of either dtype; the tail forms touch only `n` elements.
template <class T>
struct Act;
template <>
struct Act<float> {
  static HWY_INLINE VF load(const float* p) { return hn::LoadU(F32(), p); }
  static HWY_INLINE void store(VF v, float* p) { hn::StoreU(v, F32(), p); }
};
template <>
struct Act<std::uint16_t> {
  static HWY_INLINE VF load(const std::uint16_t* p) { return from_bf16(hn::LoadU(U16(), p)); }
  static HWY_INLINE void store(VF v, std::uint16_t* p) { hn::StoreU(to_bf16(v), U16(), p); }
};
template <class T>
HWY_INLINE VF load_tail(const T* p, std::int64_t n) {
  HWY_ALIGN T piece[hn::MaxLanes(F32())] = {};
  std::memcpy(piece, p, static_cast<std::size_t>(n) * sizeof(T));
  return Act<T>::load(piece);
}
template <class T>
HWY_INLINE void store_tail(VF v, T* p, std::int64_t n) {
  HWY_ALIGN T piece[hn::MaxLanes(F32())];
  Act<T>::store(v, piece);
  std::memcpy(p, piece, static_cast<std::size_t>(n) * sizeof(T));
}

// body(i, load, store) for whole vectors, then once for the tail. `load(p)` and `store(v, p)` take
// the pointer to the row's element 0.
template <class Body>
HWY_INLINE void for_row(std::int64_t n, const Body& body) {
  const std::int64_t step = lanes();
  std::int64_t i = 0;
  for (; i + step <= n; i += step) {
    body([i](const auto* p)
             HWY_ATTR { return Act<std::remove_cvref_t<decltype(*p)>>::load(p + i); },
         [i](VF v, auto* p) HWY_ATTR { Act<std::remove_cvref_t<decltype(*p)>>::store(v, p + i); });
  }
  if (i < n) {
    const std::int64_t rest = n - i;
    body([i, rest](const auto* p) HWY_ATTR { return load_tail(p + i, rest); },
         [i, rest](VF v, auto* p) HWY_ATTR { store_tail(v, p + i, rest); });
  }
}

// Calls f with a null pointer of the dtype's element type.
template <class F>
HWY_INLINE void with_dtype(DType dtype, const F& f) {
  if (dtype == DType::kF32) {
    f(static_cast<float*>(nullptr));
  } else {
    f(static_cast<std::uint16_t*>(nullptr));
  }
}

// ---- decoding ---------------------------------------------------------------------------------

template <class T>
HWY_INLINE void decode_nibbles(const std::uint8_t* q, float d, float offset, bool centred, T* out) {
  const F32 df;
  const auto vd = hn::Set(df, d);
  const auto vo = hn::Set(df, offset);
  for (std::int64_t j = 0; j < 16; j += lanes()) {
    const auto bytes = hn::PromoteTo(I32(), hn::LoadU(U8(), q + j));
    auto low = hn::And(bytes, hn::Set(I32(), 15));
    auto high = hn::ShiftRight<4>(bytes);
    if (centred) {  // Q4_0: d (q - 8)
      low = hn::Sub(low, hn::Set(I32(), 8));
      high = hn::Sub(high, hn::Set(I32(), 8));
      Act<T>::store(hn::Mul(vd, hn::ConvertTo(df, low)), out + j);
      Act<T>::store(hn::Mul(vd, hn::ConvertTo(df, high)), out + j + 16);
    } else {  // Q4_1: d q + m, product and sum rounded apart
      Act<T>::store(hn::Add(hn::Mul(vd, hn::ConvertTo(df, low)), vo), out + j);
      Act<T>::store(hn::Add(hn::Mul(vd, hn::ConvertTo(df, high)), vo), out + j + 16);
    }
  }
}

template <class T>
HWY_INLINE void decode_block(GgmlType type, const std::byte* block, T* out) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(block);
  const float d = math::fp16_to_float(math::load_unaligned<math::fp16>(block));
  if (type == GgmlType::kQ4_1) {
    const float m = math::fp16_to_float(math::load_unaligned<math::fp16>(block + 2));
    decode_nibbles(bytes + 4, d, m, false, out);
  } else if (type == GgmlType::kQ4_0) {
    decode_nibbles(bytes + 2, d, 0, true, out);
  } else {
    const auto vd = hn::Set(F32(), d);
    for (std::int64_t j = 0; j < 32; j += lanes()) {
      const auto q = hn::LoadU(I8(), reinterpret_cast<const std::int8_t*>(bytes) + 2 + j);
      Act<T>::store(hn::Mul(vd, hn::ConvertTo(F32(), hn::PromoteTo(I32(), q))), out + j);
    }
  }
}

// F32, F16, BF16: blocks of one element.
template <class T>
HWY_INLINE void decode_plain(GgmlType type, const std::byte* in, std::int64_t n, T* out) {
  for (std::int64_t i = 0; i < n; ++i) {
    const float value = math::decode_ggml_element(type, in + i * (type == GgmlType::kF32 ? 4 : 2));
    if constexpr (std::is_same_v<T, float>) {
      out[i] = value;
    } else {
      out[i] = math::float_to_bf16(value);
    }
  }
}

void DecodeTile(const backend::QuantizedMatrix& weight, std::int64_t first_row, std::int64_t rows,
                std::int64_t first_block, std::int64_t blocks, DType dtype, void* out,
                std::int64_t out_stride) {
  const math::GgmlTypeInfo& info = math::ggml_type_info(weight.type);
  const std::int64_t row_bytes = weight.row_bytes();
  with_dtype(dtype, [&](auto* tag) HWY_ATTR {
    using T = std::remove_pointer_t<decltype(tag)>;
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::byte* in =
          weight.data + (first_row + r) * row_bytes + first_block * info.block_bytes;
      T* to = static_cast<T*>(out) + r * out_stride;
      if (info.block_elements == 1) {
        decode_plain(weight.type, in, blocks, to);
        continue;
      }
      for (std::int64_t b = 0; b < blocks; ++b, in += info.block_bytes, to += 32) {
        decode_block(weight.type, in, to);
      }
    }
  });
}

void RoundRow(const float* x, std::int64_t n, float scale, DType dtype, void* out) {
  const auto factor = hn::Set(F32(), scale);
  with_dtype(dtype, [&](auto* tag) HWY_ATTR {
    auto* to = static_cast<decltype(tag)>(out);
    for_row(n, [&](const auto& load, const auto& store)
                   HWY_ATTR { store(hn::Mul(load(x), factor), to); });
  });
}

void WidenRow(const void* x, DType dtype, std::int64_t n, float* out) {
  with_dtype(dtype, [&](auto* tag) HWY_ATTR {
    const auto* from = static_cast<const std::remove_pointer_t<decltype(tag)>*>(x);
    for_row(n, [&](const auto& load, const auto& store) HWY_ATTR { store(load(from), out); });
  });
}

// ---- norm, rope, swiglu -----------------------------------------------------------------------

float DotRow(const float* x, const float* y, std::int64_t n) {
  auto sum = hn::Zero(F32());
  for_row(n,
          [&](const auto& load, const auto&) HWY_ATTR { sum = hn::MulAdd(load(x), load(y), sum); });
  return hn::GetLane(hn::SumOfLanes(F32(), sum));
}

float RmsNormRow(const float* x, const float* weight, std::int64_t n, float eps, DType dtype,
                 void* out) {
  const float inverse = 1.0F / std::sqrt(DotRow(x, x, n) / static_cast<float>(n) + eps);
  const auto factor = hn::Set(F32(), inverse);
  with_dtype(dtype, [&](auto* tag) HWY_ATTR {
    auto* to = static_cast<decltype(tag)>(out);
    for_row(n, [&](const auto& load, const auto& store)
                   HWY_ATTR { store(hn::Mul(hn::Mul(load(x), factor), load(weight)), to); });
  });
  return inverse;
}

// y = x w i with i = (mean(x^2) + eps)^-1/2: dx = i (w dy - x i^2 mean(w dy x)).
void RmsNormGradRow(const float* dy, const float* x, const float* weight, float inverse_rms,
                    std::int64_t n, float* dx) {
  auto sum = hn::Zero(F32());
  for_row(n, [&](const auto& load, const auto&)
                 HWY_ATTR { sum = hn::MulAdd(hn::Mul(load(dy), load(weight)), load(x), sum); });
  const float mean = hn::GetLane(hn::SumOfLanes(F32(), sum)) / static_cast<float>(n);
  const auto inverse = hn::Set(F32(), inverse_rms);
  const auto back = hn::Set(F32(), mean * inverse_rms * inverse_rms);
  for_row(n, [&](const auto& load, const auto& store) HWY_ATTR {
    const auto direct = hn::Mul(load(dy), load(weight));
    const auto total = hn::NegMulAdd(load(x), back, direct);
    store(hn::MulAdd(total, inverse, load(dx)), dx);
  });
}

void RopeRow(void* x, DType dtype, std::int64_t heads, std::int64_t head_dim, const float* cos,
             const float* sin, float sign) {
  for (std::int64_t h = 0; h < heads; ++h) {
    for (std::int64_t i = 0; i < head_dim / 2; ++i) {
      const std::int64_t at = h * head_dim + 2 * i;
      float a, b;
      if (dtype == DType::kF32) {
        a = static_cast<float*>(x)[at];
        b = static_cast<float*>(x)[at + 1];
      } else {
        a = math::bf16_to_float(static_cast<math::bf16*>(x)[at]);
        b = math::bf16_to_float(static_cast<math::bf16*>(x)[at + 1]);
      }
      const float s = sign * sin[i];
      const float ra = a * cos[i] - b * s;
      const float rb = a * s + b * cos[i];
      if (dtype == DType::kF32) {
        static_cast<float*>(x)[at] = ra;
        static_cast<float*>(x)[at + 1] = rb;
      } else {
        static_cast<math::bf16*>(x)[at] = math::float_to_bf16(ra);
        static_cast<math::bf16*>(x)[at + 1] = math::float_to_bf16(rb);
      }
    }
  }
}

HWY_INLINE VF sigmoid(VF x) {
  const F32 d;
  const auto one = hn::Set(d, 1.0F);
  return hn::Div(one, hn::Add(one, hn::Exp(d, hn::Neg(x))));
}

void SwigluRow(const void* gate, const void* up, DType dtype, std::int64_t n, void* out) {
  with_dtype(dtype, [&](auto* tag) HWY_ATTR {
    using T = std::remove_pointer_t<decltype(tag)>;
    const T* g = static_cast<const T*>(gate);
    const T* u = static_cast<const T*>(up);
    for_row(n, [&](const auto& load, const auto& store) HWY_ATTR {
      const auto vg = load(g);
      store(hn::Mul(hn::Mul(vg, sigmoid(vg)), load(u)), static_cast<T*>(out));
    });
  });
}

void SwigluGradRow(const float* d_out, const void* gate, const void* up, DType dtype,
                   std::int64_t n, void* d_gate, void* d_up) {
  const auto one = hn::Set(F32(), 1.0F);
  with_dtype(dtype, [&](auto* tag) HWY_ATTR {
    using T = std::remove_pointer_t<decltype(tag)>;
    const T* g = static_cast<const T*>(gate);
    const T* u = static_cast<const T*>(up);
    for_row(n, [&](const auto& load, const auto& store) HWY_ATTR {
      const auto vg = load(g);
      const auto vd = load(d_out);
      const auto s = sigmoid(vg);
      // silu'(x) = s (1 + x (1 - s))
      const auto slope = hn::Mul(s, hn::MulAdd(vg, hn::Sub(one, s), one));
      store(hn::Mul(hn::Mul(vd, load(u)), slope), static_cast<T*>(d_gate));
      store(hn::Mul(vd, hn::Mul(vg, s)), static_cast<T*>(d_up));
    });
  });
}

// ---- softmax ----------------------------------------------------------------------------------

float MaxRow(const float* x, std::int64_t n) {
  float best = -INFINITY;
  const std::int64_t step = lanes();
  std::int64_t i = 0;
  if (n >= step) {
    auto top = hn::LoadU(F32(), x);
    for (i = step; i + step <= n; i += step) {
      top = hn::Max(top, hn::LoadU(F32(), x + i));
    }
    best = hn::GetLane(hn::MaxOfLanes(F32(), top));
  }
  for (; i < n; ++i) {
    best = std::max(best, x[i]);
  }
  return best;
}

float ExpRow(float* x, std::int64_t n, float scale, float shift) {
  const F32 d;
  const auto vs = hn::Set(d, scale);
  const auto vt = hn::Set(d, shift);
  const std::int64_t step = lanes();
  auto sum = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + step <= n; i += step) {
    const auto e = hn::Exp(d, hn::MulSub(hn::LoadU(d, x + i), vs, vt));
    hn::StoreU(e, d, x + i);
    sum = hn::Add(sum, e);
  }
  float total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < n; ++i) {
    x[i] = std::exp(x[i] * scale - shift);
    total += x[i];
  }
  return total;
}

void AddRow(const float* x, std::int64_t n, float* y) {
  for_row(n, [&](const auto& load, const auto& store)
                 HWY_ATTR { store(hn::Add(load(x), load(y)), y); });
}

void ScaleRow(float* x, std::int64_t n, float factor) {
  const auto vf = hn::Set(F32(), factor);
  for_row(n, [&](const auto& load, const auto& store) HWY_ATTR { store(hn::Mul(load(x), vf), x); });
}

void SoftmaxGradRow(const float* p, float* dp, std::int64_t n, float delta, float scale) {
  const auto vd = hn::Set(F32(), delta);
  const auto vs = hn::Set(F32(), scale);
  for_row(n, [&](const auto& load, const auto& store)
                 HWY_ATTR { store(hn::Mul(hn::Mul(load(p), vs), hn::Sub(load(dp), vd)), dp); });
}

double ExpSumRow(const float* x, std::int64_t n, float shift) {
  const F32 d;
  const auto vt = hn::Set(d, shift);
  const std::int64_t step = lanes();
  double total = 0;
  for (std::int64_t begin = 0; begin < n; begin += 4096) {
    const std::int64_t end = std::min(n, begin + 4096);
    auto sum = hn::Zero(d);
    std::int64_t i = begin;
    for (; i + step <= end; i += step) {
      sum = hn::Add(sum, hn::Exp(d, hn::Sub(hn::LoadU(d, x + i), vt)));
    }
    total += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, sum)));
    for (; i < end; ++i) {
      total += static_cast<double>(std::exp(x[i] - shift));
    }
  }
  return total;
}

void SoftmaxRow(const float* x, std::int64_t n, float shift, float factor, DType dtype, void* out) {
  const auto vt = hn::Set(F32(), shift);
  const auto vf = hn::Set(F32(), factor);
  with_dtype(dtype, [&](auto* tag) HWY_ATTR {
    auto* to = static_cast<decltype(tag)>(out);
    for_row(n, [&](const auto& load, const auto& store)
                   HWY_ATTR { store(hn::Mul(hn::Exp(F32(), hn::Sub(load(x), vt)), vf), to); });
  });
}

}  // namespace nibble::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::cpu {

HWY_EXPORT(DecodeTile);
HWY_EXPORT(RoundRow);
HWY_EXPORT(WidenRow);
HWY_EXPORT(DotRow);
HWY_EXPORT(RmsNormRow);
HWY_EXPORT(RmsNormGradRow);
HWY_EXPORT(RopeRow);
HWY_EXPORT(SwigluRow);
HWY_EXPORT(SwigluGradRow);
HWY_EXPORT(MaxRow);
HWY_EXPORT(ExpRow);
HWY_EXPORT(AddRow);
HWY_EXPORT(ScaleRow);
HWY_EXPORT(SoftmaxGradRow);
HWY_EXPORT(ExpSumRow);
HWY_EXPORT(SoftmaxRow);

void decode_tile(const backend::QuantizedMatrix& weight, std::int64_t first_row, std::int64_t rows,
                 std::int64_t first_block, std::int64_t blocks, DType dtype, void* out,
                 std::int64_t out_stride) {
  HWY_DYNAMIC_DISPATCH(DecodeTile)
  (weight, first_row, rows, first_block, blocks, dtype, out, out_stride);
}
void round_row(const float* x, std::int64_t n, float scale, DType dtype, void* out) {
  HWY_DYNAMIC_DISPATCH(RoundRow)(x, n, scale, dtype, out);
}
void widen_row(const void* x, DType dtype, std::int64_t n, float* out) {
  HWY_DYNAMIC_DISPATCH(WidenRow)(x, dtype, n, out);
}
float dot_row(const float* x, const float* y, std::int64_t n) {
  return HWY_DYNAMIC_DISPATCH(DotRow)(x, y, n);
}
float rms_norm_row(const float* x, const float* weight, std::int64_t n, float eps, DType dtype,
                   void* out) {
  return HWY_DYNAMIC_DISPATCH(RmsNormRow)(x, weight, n, eps, dtype, out);
}
void rms_norm_grad_row(const float* dy, const float* x, const float* weight, float inverse_rms,
                       std::int64_t n, float* dx) {
  HWY_DYNAMIC_DISPATCH(RmsNormGradRow)(dy, x, weight, inverse_rms, n, dx);
}
void rope_row(void* x, DType dtype, std::int64_t heads, std::int64_t head_dim, const float* cos,
              const float* sin, float sign) {
  HWY_DYNAMIC_DISPATCH(RopeRow)(x, dtype, heads, head_dim, cos, sin, sign);
}
void swiglu_row(const void* gate, const void* up, DType dtype, std::int64_t n, void* out) {
  HWY_DYNAMIC_DISPATCH(SwigluRow)(gate, up, dtype, n, out);
}
void swiglu_grad_row(const float* d_out, const void* gate, const void* up, DType dtype,
                     std::int64_t n, void* d_gate, void* d_up) {
  HWY_DYNAMIC_DISPATCH(SwigluGradRow)(d_out, gate, up, dtype, n, d_gate, d_up);
}
float max_row(const float* x, std::int64_t n) { return HWY_DYNAMIC_DISPATCH(MaxRow)(x, n); }
float exp_row(float* x, std::int64_t n, float scale, float shift) {
  return HWY_DYNAMIC_DISPATCH(ExpRow)(x, n, scale, shift);
}
void add_row(const float* x, std::int64_t n, float* y) { HWY_DYNAMIC_DISPATCH(AddRow)(x, n, y); }
void scale_row(float* x, std::int64_t n, float factor) {
  HWY_DYNAMIC_DISPATCH(ScaleRow)(x, n, factor);
}
void softmax_grad_row(const float* p, float* dp, std::int64_t n, float delta, float scale) {
  HWY_DYNAMIC_DISPATCH(SoftmaxGradRow)(p, dp, n, delta, scale);
}
double exp_sum_row(const float* x, std::int64_t n, float shift) {
  return HWY_DYNAMIC_DISPATCH(ExpSumRow)(x, n, shift);
}
void softmax_row(const float* x, std::int64_t n, float shift, float factor, DType dtype,
                 void* out) {
  HWY_DYNAMIC_DISPATCH(SoftmaxRow)(x, n, shift, factor, dtype, out);
}

}  // namespace nibble::cpu
#endif  // HWY_ONCE
