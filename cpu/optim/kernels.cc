// SPDX-License-Identifier: Apache-2.0
// The SIMD backends: this file is compiled once for AVX2, AVX3 and AVX3_DL (Highway's
// foreach_target), and again at its end for the table of what was built. One pass over a block
// staged in L1: decode, rule, encode.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <string_view>
#include <utility>

#include "backend/cpu_backends.h"
#include "cpu/simd/targets.h"
#include "math/formats/formats.h"
#include "math/maps/dynamic8_lines.h"
#include "math/rules/rules.h"
#include "math/weights/weights.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/optim/kernels.cc"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#if NIBBLE_SIMD_TARGET
HWY_BEFORE_NAMESPACE();
namespace nibble::cpu::HWY_NAMESPACE {

// Each needs what stands before it.
// clang-format off
#include "cpu/simd/vec-inl.h"
#include "cpu/simd/lookup-inl.h"
#include "cpu/simd/codec-inl.h"
#include "cpu/simd/int8-inl.h"
#include "cpu/simd/formats-inl.h"
#include "cpu/simd/rank1-inl.h"
#include "cpu/simd/weights-inl.h"
#include "nibble_rule_files.inc"
#include "cpu/optim/reduce-inl.h"
#include "cpu/optim/step-inl.h"
#include "cpu/optim/direct-inl.h"
#include "cpu/optim/pipeline-inl.h"
#include "cpu/optim/measure-inl.h"
#include "cpu/optim/tensor-inl.h"
// clang-format on

inline constexpr backend::Backend kBackend = {
    HWY_TARGET == HWY_AVX3_DL ? backend::kAvx512
    : HWY_TARGET == HWY_AVX3  ? backend::kAvx512Base
                              : backend::kAvx2,
    &step,
    &measure,
    &sum_leaf,
    &count_nonfinite,
    &accumulate,
    &quantize,
    &dequantize,
    &matmul,
};

}  // namespace nibble::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace nibble::backend {

// Our own dispatch: Highway's would need libhwy.so at run time.
std::vector<const Backend*> cpu_backends() {
  std::vector<const Backend*> out;
#if HWY_ARCH_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool avx3 = avx2 && __builtin_cpu_supports("avx512f") &&
                    __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd");
  const bool avx3_dl =
      avx3 && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
      __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bitalg") &&
      __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("vpclmulqdq");
#if HWY_TARGETS & HWY_AVX3_DL
  if (avx3_dl) {
    out.push_back(&cpu::N_AVX3_DL::kBackend);
  }
#endif
#if HWY_TARGETS & HWY_AVX3
  if (avx3) {
    out.push_back(&cpu::N_AVX3::kBackend);
  }
#endif
#if HWY_TARGETS & HWY_AVX2
  if (avx2) {
    out.push_back(&cpu::N_AVX2::kBackend);
  }
#endif
#endif
  return out;
}

}  // namespace nibble::backend
#endif
