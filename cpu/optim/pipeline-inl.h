// SPDX-License-Identifier: Apache-2.0
// The step for the pairs of rule and format that the bench asks for. The division and the root of
// an update wait for one slow unit, encoding for the others, so a block's update runs beside the
// encoding of the block before it: the same operations as in step-inl.h, a third less time.
// Included inside nibble::cpu::HWY_NAMESPACE.

template <class Rule, class Format>
class Pipeline {
 public:
  // All states in Format, blocks of whole groups, a mode that the codecs handle.
  static bool serves(const backend::StepTask& task) {
    bool out = task.form == Form::kDecayBefore && task.block % kGroup == 0;
    for (int s = 0; s < kStates; ++s) {
      out = out && task.state[s].data != nullptr && task.state[s].format == format_index();
    }
    return out && task.rounding == math::Rounding::kSafe;
  }

  // Elements [first, last): whole blocks.
  static void run(const backend::StepTask& task, std::int64_t first, std::int64_t last) {
    Pipeline pipeline(task);
    for (std::int64_t begin = first; begin < last; begin += task.block) {
      pipeline.step_block(begin, begin + kPrefetchElements + task.block <= last);
    }
    pipeline.finish();
  }

 private:
  static constexpr int kStates = Rule::kStates;
  using States = std::make_integer_sequence<int, kStates>;
  template <int kState>
  using CodecOf = Codec<Format, Rule::kState[kState].is_signed>;

  static int format_index() {
    static const int kIndex = [] {
      int i = 0;
      while (math::kFormats[i].decode != &Format::decode) {
        ++i;
      }
      return i;
    }();
    return kIndex;
  }

  // A block whose new states are known but not yet encoded.
  struct Pending {
    std::int64_t begin = -1;  // none
    math::BlockScale scale[kStates];
  };

  HWY_INLINE explicit Pipeline(const backend::StepTask& task)
      : task_(task), stride_(task.block + kGroup / 4) {}

  static constexpr std::int64_t bytes_of(std::int64_t n) { return n * Format::kBits / 8; }
  HWY_INLINE float* stage(int slot, int s) { return rows_ + (slot * kStates + s) * stride_; }
  HWY_INLINE std::uint8_t* codes(int s, std::int64_t i) const {
    return task_.state[s].data + bytes_of(i);
  }
  HWY_INLINE float& scale(int s, std::int64_t begin) const {
    return task_.state[s].scale[begin / task_.block];
  }

  template <class Body, int... kIndex>
  static HWY_INLINE void each(const Body& body, std::integer_sequence<int, kIndex...>) {
    (body(std::integral_constant<int, kIndex>()), ...);
  }

  HWY_INLINE void step_block(std::int64_t begin, bool ahead) {
    const std::int64_t n = task_.block;
    float* weights = load_weights(task_, begin, n, true, weight_stage_);
    const float* grads = load_grads(task_, begin, n, true, grad_stage_);
    VecI largest[kStates];
    if (pending_.begin >= 0) {
      update<true>(begin, ahead, weights, grads, largest);
    } else {
      update<false>(begin, ahead, weights, grads, largest);
    }
    store_weights(task_, {begin, n, weights, grads, {}});
    close_block(begin, largest);
  }

  template <bool kPending>
  HWY_INLINE void update(std::int64_t begin, bool ahead, float* weights, const float* grads,
                         VecI* largest) {
    const TagF df;
    Vec terms[Rule::kTerms];
    for (int t = 0; t < Rule::kTerms; ++t) {
      terms[t].raw = hn::Set(df, task_.terms[t]);
    }
    const Vec step{hn::Set(df, task_.terms[math::kMinusStep] * task_.step_scale)};
    const Vec by{hn::Set(df, task_.grad_scale)};
    const Vec keep{hn::Set(df, task_.keep)};
    for (int s = 0; s < kStates; ++s) {
      largest[s] = hn::Zero(TagI());
    }
    const math::RuleInfo& rule = math::kRules[task_.rule];
    for (std::int64_t i = 0; i < task_.block; i += kGroup) {
      if (ahead) {  // little by little: a burst would fill the queue of misses
        prefetch_block(task_, rule, begin + i + kPrefetchElements, kGroup);
      }
      each(
          [&](auto s) HWY_ATTR {
            CodecOf<s>::decode_group(codes(s, begin + i), hn::Set(df, scale(s, begin)),
                                     stage(slot_, s) + i);
          },
          States());
      for (std::int64_t v = i; v < i + kGroup; v += kLanes) {
        update_vec(terms, step, by, keep, weights + v, grads + v, v, largest);
      }
      if constexpr (kPending) {
        each([&](auto s) HWY_ATTR { encode_group<s>(i); }, States());
      }
    }
  }

  HWY_INLINE void update_vec(const Vec* terms, Vec step, Vec by, Vec keep, float* weights,
                             const float* grads, std::int64_t at, VecI* largest) {
    const TagF df;
    const TagI di;
    Vec state[kStates];
    for (int s = 0; s < kStates; ++s) {
      state[s].raw = hn::LoadU(df, stage(slot_, s) + at);
    }
    const Vec direction = Rule::direction(terms, Vec{hn::LoadU(df, grads)} * by, state);
    const Vec weight = fma(step, direction, Vec{hn::LoadU(df, weights)} * keep);
    hn::StoreU(weight.raw, df, weights);
    for (int s = 0; s < kStates; ++s) {
      hn::StoreU(state[s].raw, df, stage(slot_, s) + at);
      const VecI bits = hn::And(hn::BitCast(di, state[s].raw), hn::Set(di, 0x7fffffff));
      largest[s] = hn::Max(largest[s], bits);
    }
  }

  template <int kState>
  HWY_INLINE void encode_group(std::int64_t i) {
    const typename CodecOf<kState>::Encoder encoder(pending_.scale[kState], task_.rounding);
    encoder.group(stage(1 - slot_, kState) + i, codes(kState, pending_.begin + i));
  }

  // The block becomes the pending one; if something in it is not finite, the definition encodes it.
  HWY_INLINE void close_block(std::int64_t begin, const VecI* largest) {
    pending_.begin = begin;
    each(
        [&](auto s) HWY_ATTR {
          const auto bits =
              static_cast<std::uint32_t>(hn::GetLane(hn::MaxOfLanes(TagI(), largest[s])));
          constexpr float kTop = Format::map(Rule::kState[s].is_signed).top;
          pending_.scale[s] =
              math::BlockScale::of(std::bit_cast<float>(bits), kTop, task_.rounding);
          scale(s, begin) = pending_.scale[s].stored;
          odd_ = odd_ || bits >= kInfinityBits;
        },
        States());
    slot_ = 1 - slot_;
    if (HWY_UNLIKELY(odd_)) {
      each(
          [&](auto s) {
            Format::encode(Rule::kState[s].is_signed, stage(1 - slot_, s), task_.block,
                           task_.rounding, codes(s, begin), &scale(s, begin));
          },
          States());
      pending_.begin = -1;
      odd_ = false;
    }
  }

  HWY_INLINE void finish() {
    for (std::int64_t i = 0; pending_.begin >= 0 && i < task_.block; i += kGroup) {
      each([&](auto s) HWY_ATTR { encode_group<s>(i); }, States());
    }
  }

  const backend::StepTask& task_;
  std::int64_t stride_;
  Pending pending_;
  int slot_ = 0;
  bool odd_ = false;
  alignas(64) float weight_stage_[math::kMaxBlock + kGroup];
  alignas(64) float grad_stage_[math::kMaxBlock + kGroup];
  alignas(64) float rows_[2 * kStates * (math::kMaxBlock + kGroup)];
};

// Whole blocks of the range that a pipeline took.
template <class Rule, class Format>
HWY_INLINE bool run_pipeline(const backend::StepTask& task, std::int64_t first, std::int64_t last,
                             std::int64_t* done) {
  if (!Pipeline<Rule, Format>::serves(task)) {
    return false;
  }
  *done = (last - first) / task.block * task.block;
  Pipeline<Rule, Format>::run(task, first, first + *done);
  return true;
}

inline const int kAdamW = math::find_rule("adamw");

// Elements of the range that were stepped; the rest, at most a short block, is for step-inl.h.
inline std::int64_t step_pipelined(const backend::StepTask& task, std::int64_t first,
                                   std::int64_t last) {
  std::int64_t done = 0;
  if (task.rule == kAdamW) {
    run_pipeline<AdamW, math::Int8>(task, first, last, &done) ||
        run_pipeline<AdamW, math::Int8Log>(task, first, last, &done) ||
        run_pipeline<AdamW, math::Int4>(task, first, last, &done) ||
        run_pipeline<AdamW, math::Fp8>(task, first, last, &done) ||
        (done = step_direct<AdamW>(task, first, last)) > 0;
  }
  return done;
}

void step(const backend::StepTask& task, std::int64_t first, std::int64_t last) noexcept {
  if (task.skip_nonfinite || task.stats != nullptr) {  // rare
    backend::reference_backend().step(task, first, last);
    return;
  }
  const std::int64_t done = step_pipelined(task, first, last);
  step_chunks(task, first + done, last);
}
