// SPDX-License-Identifier: Apache-2.0
// The element-wise and row-wise work of the model on the CPU, one row or tile a call, vectorised
// with Highway. "act" pointers are fp32 or bf16 as `dtype` says.
#pragma once

#include <cstdint>

#include "backend/matrix.h"

namespace nibble::cpu {

using backend::DType;

// Decodes `blocks` blocks from block `first_block` on of each of `rows` rows; bits as
// math::decode_ggml_block, rounded to nearest even for bf16.
void decode_tile(const backend::QuantizedMatrix& weight, std::int64_t first_row, std::int64_t rows,
                 std::int64_t first_block, std::int64_t blocks, DType dtype, void* out,
                 std::int64_t out_stride);

void round_row(const float* x, std::int64_t n, float scale, DType dtype, void* out);
void widen_row(const void* x, DType dtype, std::int64_t n, float* out);

// Returns 1 / sqrt(mean(x^2) + eps).
float rms_norm_row(const float* x, const float* weight, std::int64_t n, float eps, DType dtype,
                   void* out);
void rms_norm_grad_row(const float* dy, const float* x, const float* weight, float inverse_rms,
                       std::int64_t n, float* dx);

void rope_row(void* x, DType dtype, std::int64_t heads, std::int64_t head_dim, const float* cos,
              const float* sin, float sign);

void swiglu_row(const void* gate, const void* up, DType dtype, std::int64_t n, void* out);
void swiglu_grad_row(const float* d_out, const void* gate, const void* up, DType dtype,
                     std::int64_t n, void* d_gate, void* d_up);

// Returns the largest of x[0, n).
float max_row(const float* x, std::int64_t n);
// x = exp(scale * x - shift); returns the sum of the results.
float exp_row(float* x, std::int64_t n, float scale, float shift);
// y += x.
void add_row(const float* x, std::int64_t n, float* y);
// x *= factor.
void scale_row(float* x, std::int64_t n, float factor);
float dot_row(const float* x, const float* y, std::int64_t n);
// ds = p * (dp - delta) * scale, written over dp.
void softmax_grad_row(const float* p, float* dp, std::int64_t n, float delta, float scale);
// Sum of exp(x - shift) in double over pieces of 4096.
double exp_sum_row(const float* x, std::int64_t n, float shift);
// out = exp(x - shift) * factor; out may lie over x (at the same address).
void softmax_row(const float* x, std::int64_t n, float shift, float factor, DType dtype, void* out);

}  // namespace nibble::cpu
