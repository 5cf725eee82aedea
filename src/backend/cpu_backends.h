// SPDX-License-Identifier: Apache-2.0
// What cpu/optim offers to the registry.
#pragma once

#include <vector>

#include "backend/backend.h"

namespace nibble::backend {

inline constexpr const char* kAvx512 = "avx512";           // with VBMI, VBMI2, VNNI, BITALG
inline constexpr const char* kAvx512Base = "avx512_base";  // F, BW, DQ, VL, CD
inline constexpr const char* kAvx2 = "avx2";               // with FMA, BMI, F16C
inline constexpr const char* kIsaNames[] = {kAvx512, kAvx512Base, kAvx2, "scalar"};

// The SIMD backends that this build holds and this CPU (and its system) can run, best first.
std::vector<const Backend*> cpu_backends();

}  // namespace nibble::backend
