// SPDX-License-Identifier: Apache-2.0
#include <hwy/highway.h>
#include <hwy/targets.h>

#include <algorithm>
#include <dnnl.hpp>
#include <functional>
#include <mutex>
#include <string>

#include "backend/model_ops.h"
#include "core/parallel.h"
#include "core/status.h"
#include "cpu/model/attention.h"
#include "cpu/model/linear.h"
#include "cpu/model/simd_ops.h"

namespace nibble::backend {
namespace {

using math::RandomStream;

// Rows a task takes: enough work to pay for the task, few enough for the balance.
constexpr std::int64_t kRows = 16;

void for_rows(std::int64_t rows, const std::function<void(std::int64_t)>& body) {
  parallel_for((rows + kRows - 1) / kRows, [&](std::int64_t task) {
    const std::int64_t end = std::min(rows, (task + 1) * kRows);
    for (std::int64_t i = task * kRows; i < end; ++i) {
      body(i);
    }
  });
}

template <class Void>
Void* row_of(const BasicMatrix<Void>& m, std::int64_t i) {
  return m.row_range(i, 1).data;
}

class CpuModelOps final : public ModelOps {
 public:
  explicit CpuModelOps(DType act) : act_(act) {}

  DType act() const override { return act_; }

  void embed(const QuantizedMatrix& table, std::span<const std::int32_t> ids, Matrix out) override {
    const std::int64_t blocks = table.cols / math::ggml_type_info(table.type).block_elements;
    for_rows(static_cast<std::int64_t>(ids.size()), [&](std::int64_t i) {
      cpu::decode_tile(table, ids[static_cast<std::size_t>(i)], 1, 0, blocks, DType::kF32,
                       row_of(out, i), out.stride);
    });
  }

  void linear(ConstMatrix x, const QuantizedMatrix& weight, const LowRank& low_rank, Matrix y,
              bool accumulate) override {
    cpu::linear(act_, x, weight, low_rank, y, accumulate);
  }
  void linear_grad_input(ConstMatrix dy, const QuantizedMatrix& weight, const LowRank& low_rank,
                         Matrix dx, bool accumulate) override {
    cpu::linear_grad_input(act_, dy, weight, low_rank, dx, accumulate);
  }
  void low_rank_product(const LowRank& term, Matrix out) override {
    for_rows(out.rows, [&](std::int64_t i) {
      cpu::gemm(term.left.row_range(i, 1), term.right, cpu::Transpose::kNo, out.row_range(i, 1),
                false);
    });
  }
  void add(ConstMatrix x, Matrix out) override {
    for_rows(x.rows,
             [&](std::int64_t i) { cpu::add_row(x.row<float>(i), x.cols, out.row<float>(i)); });
  }
  void project(ConstMatrix x, ConstMatrix a, float scale, Matrix out) override {
    cpu::project(x, a, scale, out);
  }
  void outer_accumulate(ConstMatrix left, ConstMatrix right, Matrix grad) override {
    cpu::outer_accumulate(left, right, grad);
  }

  void rms_norm(ConstMatrix x, std::span<const float> weight, float eps, Matrix out,
                std::span<float> inverse_rms) override {
    for_rows(x.rows, [&](std::int64_t i) {
      inverse_rms[static_cast<std::size_t>(i)] =
          cpu::rms_norm_row(x.row<float>(i), weight.data(), x.cols, eps, out.dtype, row_of(out, i));
    });
  }
  void rms_norm_grad(ConstMatrix dy, ConstMatrix x, std::span<const float> weight,
                     std::span<const float> inverse_rms, Matrix dx) override {
    for_rows(x.rows, [&](std::int64_t i) {
      cpu::rms_norm_grad_row(dy.row<float>(i), x.row<float>(i), weight.data(),
                             inverse_rms[static_cast<std::size_t>(i)], x.cols, dx.row<float>(i));
    });
  }

  void rope(Matrix x, const AttentionShape& shape, std::int64_t first_position, ConstMatrix cos,
            ConstMatrix sin, bool inverse) override {
    const std::int64_t heads = x.cols / shape.head_dim;
    for_rows(shape.starts.back(), [&](std::int64_t i) {
      const auto next = std::upper_bound(shape.starts.begin(), shape.starts.end(), i);
      const std::int64_t position = i - *(next - 1) + first_position;
      cpu::rope_row(row_of(x, i), x.dtype, heads, shape.head_dim, cos.row<float>(position),
                    sin.row<float>(position), inverse ? -1.0F : 1.0F);
    });
  }

  void attention(ConstMatrix q, ConstMatrix k, ConstMatrix v, const AttentionShape& shape,
                 Matrix out, Matrix log_sum_exp) override {
    cpu::attention(q, k, v, shape, out, log_sum_exp);
  }
  void attention_grad(ConstMatrix d_out, ConstMatrix q, ConstMatrix k, ConstMatrix v,
                      ConstMatrix out, ConstMatrix log_sum_exp, const AttentionShape& shape,
                      Matrix dq, Matrix dk, Matrix dv) override {
    cpu::attention_grad(d_out, q, k, v, out, log_sum_exp, shape, dq, dk, dv);
  }
  void attention_decode(ConstMatrix q, ConstMatrix k, ConstMatrix v, const AttentionShape& shape,
                        Matrix out) override {
    cpu::attention_decode(q, k, v, shape, out);
  }

  void swiglu(ConstMatrix gate, ConstMatrix up, Matrix out) override {
    for_rows(gate.rows, [&](std::int64_t i) {
      cpu::swiglu_row(row_of(gate, i), row_of(up, i), gate.dtype, gate.cols, row_of(out, i));
    });
  }
  void swiglu_grad(ConstMatrix d_out, ConstMatrix gate, ConstMatrix up, Matrix d_gate,
                   Matrix d_up) override {
    for_rows(gate.rows, [&](std::int64_t i) {
      cpu::swiglu_grad_row(d_out.row<float>(i), row_of(gate, i), row_of(up, i), gate.dtype,
                           gate.cols, row_of(d_gate, i), row_of(d_up, i));
    });
  }

  void softmax_cross_entropy(Matrix logits, std::span<const std::int32_t> targets, float scale,
                             std::span<double> loss, Matrix grad) override {
    parallel_for(logits.rows, [&](std::int64_t i) {
      const auto at = static_cast<std::size_t>(i);
      const float* row = logits.row<float>(i);
      const float top = cpu::max_row(row, logits.cols);
      const double sum = cpu::exp_sum_row(row, logits.cols, top);
      const float target = row[targets[at]];
      loss[at] = std::log(sum) + static_cast<double>(top) - static_cast<double>(target);
      if (grad.empty()) {
        return;
      }
      const auto factor = static_cast<float>(static_cast<double>(scale) / sum);
      const float at_target = std::exp(target - top) * factor - scale;
      cpu::softmax_row(row, logits.cols, top, factor, grad.dtype, row_of(grad, i));
      cpu::round_row(&at_target, 1, 1.0F, grad.dtype, grad.block(i, targets[at], 1, 1).data);
    });
  }

  void convert(ConstMatrix x, Matrix out) override {
    for_rows(x.rows, [&](std::int64_t i) {
      cpu::round_row(x.row<float>(i), x.cols, 1.0F, out.dtype, row_of(out, i));
    });
  }

  void dropout(ConstMatrix x, const RandomStream& stream, float keep, Matrix out) override {
    for_rows(x.rows, [&](std::int64_t i) {
      for (std::int64_t j = 0; j < x.cols; ++j) {
        const bool kept = stream.uniform(static_cast<std::uint64_t>(i * x.cols + j)) < keep;
        float value = 0;
        cpu::widen_row(x.block(i, j, 1, 1).data, x.dtype, 1, &value);
        value = kept ? value / keep : 0.0F;
        cpu::round_row(&value, 1, 1.0F, out.dtype, out.block(i, j, 1, 1).data);
      }
    });
  }

 private:
  DType act_;
};

std::mutex g_limit_mutex;
std::string g_limit;  // the name given to limit_cpu_model_isa

// oneDNN takes a limit only before its first use, and only where it was built to take one.
void limit_onednn(dnnl::cpu_isa isa, std::string_view name) {
  if (dnnl::set_max_cpu_isa(isa) == dnnl::status::success) {
    return;
  }
  if (dnnl::get_effective_cpu_isa() != isa) {
    fail(StatusCode::kWrongOrder,
         "oneDNN cannot be limited to {} any more: it was used before, or does not take limits",
         name);
  }
}

}  // namespace

void limit_cpu_model_isa(std::string_view isa) {
  const std::lock_guard lock(g_limit_mutex);
  if (g_limit == isa) {
    return;
  }
  if (!g_limit.empty()) {
    fail(StatusCode::kWrongOrder, "the model's instruction set is already limited to {}", g_limit);
  }
  constexpr std::int64_t kAvx512 = HWY_AVX3 | HWY_AVX3_DL;
  if (isa == "avx2") {
    limit_onednn(dnnl::cpu_isa::avx2, isa);
    hwy::DisableTargets(kAvx512);
  } else if (isa == "scalar") {
    limit_onednn(dnnl::cpu_isa::sse41, isa);
    hwy::DisableTargets(kAvx512 | HWY_AVX2);
  } else if (isa != "avx512") {
    fail(StatusCode::kInvalidArgument, "unknown instruction set \"{}\"", isa);
  }
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  g_limit = isa;
}

bool cpu_has_bf16() {
  const dnnl::cpu_isa isa = dnnl::get_effective_cpu_isa();
  return isa == dnnl::cpu_isa::avx512_core_bf16 || isa == dnnl::cpu_isa::avx512_core_amx;
}

std::unique_ptr<ModelOps> make_cpu_model_ops(DType act) {
  if (act == DType::kBf16 && !cpu_has_bf16()) {
    fail(StatusCode::kUnsupported,
         "--compute-dtype bf16 needs AVX-512 BF16, which this processor (or the forced "
         "instruction set) lacks: use fp32 or auto");
  }
  return std::make_unique<CpuModelOps>(act);
}

}  // namespace nibble::backend
