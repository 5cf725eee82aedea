// SPDX-License-Identifier: Apache-2.0
// Attention in tiles of 64 x 64. See ModelOps for the contracts.
#pragma once

#include "backend/model_ops.h"

namespace nibble::cpu {

using backend::AttentionShape;
using backend::ConstMatrix;
using backend::Matrix;

void attention(ConstMatrix q, ConstMatrix k, ConstMatrix v, const AttentionShape& shape, Matrix out,
               Matrix log_sum_exp);
void attention_grad(ConstMatrix d_out, ConstMatrix q, ConstMatrix k, ConstMatrix v, ConstMatrix out,
                    ConstMatrix log_sum_exp, const AttentionShape& shape, Matrix dq, Matrix dk,
                    Matrix dv);
void attention_decode(ConstMatrix q, ConstMatrix k, ConstMatrix v, const AttentionShape& shape,
                      Matrix out);

}  // namespace nibble::cpu
