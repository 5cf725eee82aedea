// SPDX-License-Identifier: Apache-2.0
// Which instruction sets a file compiled by foreach_target is built for. AVX2, AVX3 and AVX3_DL
// only: Highway's lower x86 targets have no fused multiply-add, so below AVX2 our scalar code runs.
#pragma once

#define HWY_COMPILE_ALL_ATTAINABLE
#define HWY_WANT_AVX3_DL
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_NEON | HWY_SVE | HWY_SVE2)
// Highway's own assertions would need libhwy.so, which libnibble does not link.
#define HWY_IS_DEBUG_BUILD 0

// True while the file is being compiled for one of ours.
#define NIBBLE_SIMD_TARGET \
  (HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL)
