// SPDX-License-Identifier: Apache-2.0
// Linear layers over quantised weights: tiles are decoded into a scratch of the compute dtype and
// multiplied there. See ModelOps for the contracts.
#pragma once

#include "backend/model_ops.h"
#include "cpu/model/gemm.h"

namespace nibble::cpu {

void linear(DType act, ConstMatrix x, const backend::QuantizedMatrix& weight,
            const backend::LowRank& low_rank, Matrix y, bool accumulate);
void linear_grad_input(DType act, ConstMatrix dy, const backend::QuantizedMatrix& weight,
                       const backend::LowRank& low_rank, Matrix dx, bool accumulate);
void project(ConstMatrix x, ConstMatrix a, float scale, Matrix out);
void outer_accumulate(ConstMatrix left, ConstMatrix right, Matrix grad);

}  // namespace nibble::cpu
