// SPDX-License-Identifier: Apache-2.0
// The first of two passes: what must be known of a tensor before its step. Included inside
// nibble::cpu::HWY_NAMESPACE.

inline double sum_of_squares(const float* x, std::int64_t n) {
  return sum_leaf({x, false}, 0, n, 1.0F).sum_of_squares;
}

// The larger of what is known of rows and columns and the block's values.
HWY_INLINE void raise_maxima(const float* x, std::int64_t columns, std::int64_t begin,
                             std::int64_t n, float* row_maximum, float* column_maximum) {
  const TagF df;
  const VecF limit = hn::Set(df, std::numeric_limits<float>::max());
  for_each_row(columns, begin, n,
               [&](std::int64_t row, std::int64_t column, std::int64_t i, std::int64_t count) {
                 float* maxima = column_maximum + column;
                 VecF largest = hn::Zero(df);
                 std::int64_t j = 0;
                 for (; j + kLanes <= count; j += kLanes) {
                   const VecF value =
                       hn::Min(hn::Max(hn::LoadU(df, x + i + j), hn::Zero(df)), limit);
                   largest = hn::Max(largest, value);
                   hn::StoreU(hn::Max(value, hn::LoadU(df, maxima + j)), df, maxima + j);
                 }
                 float in_row = hn::GetLane(hn::MaxOfLanes(df, largest));
                 for (; j < count; ++j) {
                   const float value = math::saturated(x[i + j]);
                   maxima[j] = math::max(value, maxima[j]);
                   in_row = math::max(value, in_row);
                 }
                 row_maximum[row] = math::max(in_row, row_maximum[row]);
               });
}

// The update of a chunk that is wholly staged, in `updates`; its states are the new ones then.
inline void compute_updates(const backend::StepTask& task, Chunk& chunk, float* updates) {
  Largest largest;
  const float* weights = chunk.weights;
  chunk.weights = updates;
  Form form = Form::kDirection;
  if (task.form == Form::kDecayIntoGradient) {  // the gradient needs the weights
    form = task.form;
    std::copy(weights, weights + whole_groups(chunk.n), updates);
  }
  kApply[task.rule][static_cast<int>(form)](task, chunk, largest);
}

HWY_INLINE void add_norms(const backend::StepTask& task, const float* weights, float* updates,
                          std::int64_t n, backend::Measures* out) {
  const VecF decay = hn::Set(TagF(), task.decay);
  for (std::int64_t i = 0; i < whole_groups(n); i += kLanes) {
    const VecF update =
        hn::MulAdd(decay, hn::LoadU(TagF(), weights + i), hn::Load(TagF(), updates + i));
    hn::Store(update, TagF(), updates + i);
  }
  for_each_block(n, task.block, [&](std::int64_t begin, std::int64_t count, std::int64_t) {
    out->weight_squares += sum_of_squares(weights + begin, count);
    out->update_squares += sum_of_squares(updates + begin, count);
  });
}

void measure(const backend::StepTask& task, std::int64_t first, std::int64_t last,
             backend::Measures* out) noexcept {
  if (task.skip_nonfinite) {  // rare
    backend::reference_backend().measure(task, first, last, out);
    return;
  }
  const math::RuleInfo& rule = math::kRules[task.rule];
  const std::int64_t size = std::max(task.block, kChunk);
  Stage stage(size);
  alignas(64) float updates[math::kMaxBlock + kGroup];
  for (int s = 0; s < rule.states; ++s) {
    if (out->column_maximum[s] != nullptr) {
      std::fill(out->column_maximum[s], out->column_maximum[s] + task.columns, 0.0F);
    }
  }
  for (std::int64_t begin = first; begin < last; begin += size) {
    const std::int64_t n = std::min(size, last - begin);
    Chunk chunk = load_chunk(task, rule, begin, n, false, stage);
    const float* weights = chunk.weights;
    compute_updates(task, chunk, updates);
    if (rule.kind == math::RuleKind::kTrustRatio) {
      add_norms(task, weights, updates, n, out);
    }
    for (int s = 0; s < rule.states; ++s) {
      if (out->column_maximum[s] != nullptr) {
        raise_maxima(chunk.states[s], task.columns, begin, n, out->row_maximum[s],
                     out->column_maximum[s]);
      }
    }
  }
}
