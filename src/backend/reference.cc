// SPDX-License-Identifier: Apache-2.0
// The scalar backend: the oracle of all others, and what runs below AVX2. Plain loops over the
// definitions in src/math.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "backend/backend.h"

namespace nibble::backend {
namespace {

using math::Scale;

float load(Source x, std::int64_t i) {
  return x.is_bf16 ? math::bf16_to_float(static_cast<const math::bf16*>(x.data)[i])
                   : static_cast<const float*>(x.data)[i];
}

bool is_finite(float x) { return math::is_finite_bits(std::bit_cast<std::uint32_t>(x)); }

// One block in floats: weights, gradients and states before and after the rule.
struct Stage {
  float weights[math::kMaxBlock];
  float states[math::kMaxStates][math::kMaxBlock];
};

math::WeightBlock weight_block(const StepTask& task, std::int64_t begin) {
  const math::WeightInfo& info = math::kWeights[task.weights.format];
  const WeightView& w = task.weights;
  return {w.data + begin * (info.bits / 8),
          w.extra != nullptr ? w.extra + begin * (info.extra_bits / 8) : nullptr,
          w.scale != nullptr ? w.scale + begin / task.block : nullptr};
}

void decode_weights(const StepTask& task, std::int64_t begin, std::int64_t n, float* out) {
  const math::WeightInfo& info = math::kWeights[task.weights.format];
  const math::WeightBlock block = weight_block(task, begin);
  if (info.decode != nullptr) {
    info.decode(block, n, out);
  } else {
    const bool own = info.in_place == math::WeightsInPlace::kExtra;
    std::memcpy(out, own ? block.extra : block.data, static_cast<std::size_t>(n) * sizeof(float));
  }
}

void encode_weights(const StepTask& task, std::int64_t begin, std::int64_t n, const float* x) {
  const math::WeightInfo& info = math::kWeights[task.weights.format];
  const math::WeightBlock block = weight_block(task, begin);
  if (info.in_place != math::WeightsInPlace::kNowhere) {
    const bool own = info.in_place == math::WeightsInPlace::kExtra;
    std::memcpy(own ? block.extra : block.data, x, static_cast<std::size_t>(n) * sizeof(float));
  }
  if (info.encode != nullptr) {
    info.encode(block, x, n, task.random, begin);
  }
}

// f(row's index, column's index, i) for the n elements from `begin`.
template <class F>
void for_each_cell(std::int64_t columns, std::int64_t begin, std::int64_t n, const F& f) {
  std::int64_t row = begin / columns;
  std::int64_t column = begin % columns;
  for (std::int64_t i = 0; i < n; ++i) {
    f(row, column, i);
    if (++column == columns) {
      column = 0;
      ++row;
    }
  }
}

int nibble_at(const std::uint8_t* codes, std::int64_t i) {
  return (codes[i / 2] >> (i % 2 == 0 ? 4 : 0)) & 15;
}

void decode_state(const StepTask& task, int s, bool is_signed, std::int64_t begin, std::int64_t n,
                  float* out) {
  const StateView& view = task.state[s];
  const math::FormatInfo& format = math::kFormats[view.format];
  if (view.data == nullptr) {
    std::fill(out, out + n, 0.0F);
    return;
  }
  const std::uint8_t* codes = view.data + format.packed_bytes(begin);
  if (format.decode == nullptr) {
    std::memcpy(out, codes, static_cast<std::size_t>(n) * sizeof(float));
  } else if (format.scale(is_signed) == Scale::kRank1) {
    const Rank1Scales& by = view.rank1;
    for_each_cell(task.columns, begin, n, [&](std::int64_t r, std::int64_t c, std::int64_t i) {
      out[i] = math::Int4Rank1::decode_at(nibble_at(codes, i), by.row[r], by.column[c]);
    });
  } else {
    format.decode(is_signed, codes,
                  view.scale != nullptr ? view.scale + begin / task.block : nullptr, n, out);
  }
}

void encode_state(const StepTask& task, int s, bool is_signed, std::int64_t begin, std::int64_t n,
                  const float* x) {
  const StateView& view = task.state[s];
  const math::FormatInfo& format = math::kFormats[view.format];
  if (view.data == nullptr) {
    return;
  }
  std::uint8_t* codes = view.data + format.packed_bytes(begin);
  if (format.encode == nullptr) {
    std::memcpy(codes, x, static_cast<std::size_t>(n) * sizeof(float));
  } else if (format.scale(is_signed) == Scale::kRank1) {
    const Rank1Scales& by = view.rank1;
    for_each_cell(task.columns, begin, n, [&](std::int64_t r, std::int64_t c, std::int64_t i) {
      const int code =
          math::Int4Rank1::encode_at(math::saturated(x[i]), by.next_row[r], by.next_column[c]);
      codes[i / 2] =
          static_cast<std::uint8_t>(i % 2 == 0 ? code << 4 : (codes[i / 2] & 0xf0) | code);
    });
  } else {
    format.encode(is_signed, x, n, task.rounding, codes,
                  view.scale != nullptr ? view.scale + begin / task.block : nullptr);
  }
}

template <class Rule>
void apply_rule(const StepTask& task, std::int64_t begin, std::int64_t n, Stage& stage) {
  for (std::int64_t i = 0; i < n; ++i) {
    float state[math::kMaxStates];
    for (int s = 0; s < Rule::kStates; ++s) {
      state[s] = stage.states[s][i];
    }
    update_element<Rule>(task, load(task.grads, begin + i), stage.weights[i], state);
    for (int s = 0; s < Rule::kStates; ++s) {
      stage.states[s][i] = state[s];
    }
  }
}

template <class Rule>
void load_stage(const StepTask& task, std::int64_t begin, std::int64_t n, Stage& stage) {
  if (task.form != Form::kDirection) {
    decode_weights(task, begin, n, stage.weights);
  }
  for (int s = 0; s < Rule::kStates; ++s) {
    decode_state(task, s, Rule::kState[s].is_signed, begin, n, stage.states[s]);
  }
}

void add_stats(StepStats& stats, int s, const float* computed, const float* stored,
               std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const double error = double{stored[i]} - double{computed[i]};
    stats.error_squares[s] += error * error;
    stats.squares[s] += double{computed[i]} * double{computed[i]};
    stats.largest_error[s] = std::max(stats.largest_error[s], std::abs(error));
    stats.lost[s] += computed[i] != 0.0F && stored[i] == 0.0F ? 1 : 0;
  }
}

template <class Rule>
void step_blocks(const StepTask& task, std::int64_t first, std::int64_t last) {
  Stage stage;
  float stored[math::kMaxBlock];
  for (std::int64_t begin = first; begin < last; begin += task.block) {
    const std::int64_t n = std::min(task.block, last - begin);
    load_stage<Rule>(task, begin, n, stage);
    apply_rule<Rule>(task, begin, n, stage);
    encode_weights(task, begin, n, stage.weights);
    for (int s = 0; s < Rule::kStates; ++s) {
      encode_state(task, s, Rule::kState[s].is_signed, begin, n, stage.states[s]);
    }
    for (int s = 0; task.stats != nullptr && s < Rule::kStates; ++s) {
      StepTask after = task;  // rank-1 codes are now of the next scales
      after.state[s].rank1.row = task.state[s].rank1.next_row;
      after.state[s].rank1.column = task.state[s].rank1.next_column;
      decode_state(after, s, Rule::kState[s].is_signed, begin, n, stored);
      add_stats(*task.stats, s, stage.states[s], stored, n);
    }
  }
}

LeafSum sum_leaf(Source x, std::int64_t first, std::int64_t n, float scale) noexcept {
  double acc[16] = {};
  LeafSum out;
  for (std::int64_t i = 0; i < n; ++i) {
    const float element = load(x, first + i) * scale;
    const double value = is_finite(element) ? element : 0.0F;
    acc[i % 16] += value * value;  // the square of a float is exact in double
    out.nonfinite += is_finite(element) ? 0 : 1;
  }
  out.sum_of_squares = combine_accumulators(acc);
  return out;
}

double sum_of_squares(const float* x, std::int64_t n) {
  return sum_leaf({x, false}, 0, n, 1.0F).sum_of_squares;
}

template <class Rule>
void measure_blocks(const StepTask& task, std::int64_t first, std::int64_t last, Measures* out) {
  Stage stage;
  for (int s = 0; s < Rule::kStates; ++s) {
    if (out->column_maximum[s] != nullptr) {
      std::fill(out->column_maximum[s], out->column_maximum[s] + task.columns, 0.0F);
    }
  }
  for (std::int64_t begin = first; begin < last; begin += task.block) {
    const std::int64_t n = std::min(task.block, last - begin);
    load_stage<Rule>(task, begin, n, stage);
    float before[math::kMaxBlock];
    std::copy(stage.weights, stage.weights + n, before);
    StepTask directions = task;
    directions.form = Rule::kKind == math::RuleKind::kTrustRatio ? Form::kDirection : task.form;
    apply_rule<Rule>(directions, begin, n, stage);
    if (Rule::kKind == math::RuleKind::kTrustRatio) {
      for (std::int64_t i = 0; i < n; ++i) {
        stage.weights[i] =
            decayed_direction(task, load(task.grads, begin + i), stage.weights[i], before[i]);
      }
      out->weight_squares += sum_of_squares(before, n);
      out->update_squares += sum_of_squares(stage.weights, n);
    }
    for (int s = 0; s < Rule::kStates; ++s) {
      if (out->column_maximum[s] != nullptr) {
        for_each_cell(task.columns, begin, n, [&](std::int64_t r, std::int64_t c, std::int64_t i) {
          const float value = math::saturated(stage.states[s][i]);
          float& row = out->row_maximum[s][r];
          float& column = out->column_maximum[s][c];
          row = math::max(value, row);
          column = math::max(value, column);
        });
      }
    }
  }
}

using StepFn = void (*)(const StepTask&, std::int64_t, std::int64_t);
using MeasureFn = void (*)(const StepTask&, std::int64_t, std::int64_t, Measures*);

void step(const StepTask& task, std::int64_t first, std::int64_t last) noexcept {
  static constexpr StepFn kSteps[] = {
#define NIBBLE_RULE(id, name, Type) &step_blocks<math::Type>,
#include "math/rules/rules.def"
#undef NIBBLE_RULE
  };
  kSteps[task.rule](task, first, last);
}

void measure(const StepTask& task, std::int64_t first, std::int64_t last, Measures* out) noexcept {
  static constexpr MeasureFn kMeasures[] = {
#define NIBBLE_RULE(id, name, Type) &measure_blocks<math::Type>,
#include "math/rules/rules.def"
#undef NIBBLE_RULE
  };
  kMeasures[task.rule](task, first, last, out);
}

std::int64_t count_nonfinite(Source x, std::int64_t first, std::int64_t n, float scale) noexcept {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    count += is_finite(load(x, first + i) * scale) ? 0 : 1;
  }
  return count;
}

void accumulate(Source x, std::int64_t first, std::int64_t n, float scale, float* out) noexcept {
  for (std::int64_t i = 0; i < n; ++i) {
    out[first + i] = math::fma(load(x, first + i), scale, out[first + i]);
  }
}

void quantize(const float* x, std::int64_t n, std::int64_t block, int format, bool is_signed,
              math::Rounding rounding, std::uint8_t* codes, float* scale) noexcept {
  const math::FormatInfo& info = math::kFormats[format];
  for (std::int64_t begin = 0; begin < n; begin += block) {
    info.encode(is_signed, x + begin, std::min(block, n - begin), rounding,
                codes + info.packed_bytes(begin), scale + begin / block);
  }
}

void dequantize(const std::uint8_t* codes, const float* scale, std::int64_t n, std::int64_t block,
                int format, bool is_signed, bool /*past_caches*/, float* out) noexcept {
  const math::FormatInfo& info = math::kFormats[format];
  for (std::int64_t begin = 0; begin < n; begin += block) {
    info.decode(is_signed, codes + info.packed_bytes(begin), scale + begin / block,
                std::min(block, n - begin), out + begin);
  }
}

void matmul(const float* a, const float* b, float* c, std::int64_t rows, std::int64_t columns,
            std::int64_t depth) noexcept {
  for (std::int64_t i = 0; i < rows; ++i) {
    float* out = c + i * columns;
    std::fill(out, out + columns, 0.0F);
    for (std::int64_t k = 0; k < depth; ++k) {
      for (std::int64_t j = 0; j < columns; ++j) {
        out[j] = math::fma(a[i * depth + k], b[k * columns + j], out[j]);
      }
    }
  }
}

}  // namespace

const Backend& reference_backend() {
  static constexpr Backend kBackend = {"scalar",         &step,       &measure,  &sum_leaf,
                                       &count_nonfinite, &accumulate, &quantize, &dequantize,
                                       &matmul};
  return kBackend;
}

}  // namespace nibble::backend
