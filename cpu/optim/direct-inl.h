// SPDX-License-Identifier: Apache-2.0
// The step where nothing has scales: bf16 weights and gradients beside fp32 or bf16 states, in one
// loop without a stage, since these run at the speed of memory and two passes over a chunk do not.
// The same operations as in step-inl.h. Included inside nibble::cpu::HWY_NAMESPACE.

template <class Rule, bool kBf16States, bool kStochastic>
class Direct {
 public:
  static bool serves(const backend::StepTask& task) {
    const char* states = kBf16States ? "bf16" : "fp32";
    const char* weights = kStochastic ? "bf16_stochastic" : "bf16_nearest";
    bool out = task.form == Form::kDecayBefore && task.grads.is_bf16 &&
               std::string_view(math::kWeights[task.weights.format].name) == weights;
    for (int s = 0; s < Rule::kStates; ++s) {
      out = out && task.state[s].data != nullptr &&
            std::string_view(math::kFormats[task.state[s].format].name) == states;
    }
    return out;
  }

  // Whole groups of [first, last); returns how many elements those are.
  static std::int64_t run(const backend::StepTask& task, std::int64_t first, std::int64_t last) {
    const std::int64_t count = (last - first) / kGroup * kGroup;
    const Direct direct(task);
    for (std::int64_t i = first; i < first + count; i += kGroup) {
      direct.step_group(i);
    }
    return count;
  }

 private:
  explicit Direct(const backend::StepTask& task)
      : task_(task),
        weights_(reinterpret_cast<std::uint16_t*>(task.weights.data)),
        grads_(static_cast<const std::uint16_t*>(task.grads.data)) {
    const TagF df;
    for (int t = 0; t < Rule::kTerms; ++t) {
      terms_[t].raw = hn::Set(df, task.terms[t]);
    }
    step_.raw = hn::Set(df, task.terms[math::kMinusStep] * task.step_scale);
    scale_.raw = hn::Set(df, task.grad_scale);
    keep_.raw = hn::Set(df, task.keep);
  }

  HWY_INLINE Vec load_state(int s, std::int64_t i) const {
    if constexpr (kBf16States) {
      return {bf16_to_float(reinterpret_cast<const std::uint16_t*>(task_.state[s].data) + i)};
    } else {
      return {hn::LoadU(TagF(), reinterpret_cast<const float*>(task_.state[s].data) + i)};
    }
  }
  HWY_INLINE void store_state(int s, std::int64_t i, Vec x) const {
    if constexpr (kBf16States) {
      store_upper_halves(round_to_bf16(x.raw),
                         reinterpret_cast<std::uint16_t*>(task_.state[s].data) + i);
    } else {
      hn::StoreU(x.raw, TagF(), reinterpret_cast<float*>(task_.state[s].data) + i);
    }
  }

  HWY_INLINE void step_group(std::int64_t begin) const {
    alignas(64) std::uint32_t words[kGroup];
    if constexpr (kStochastic) {
      philox_group(task_.random, begin, words);
    }
    for (std::int64_t v = 0; v < kGroup; v += kLanes) {
      const std::int64_t i = begin + v;
      Vec state[Rule::kStates];
      for (int s = 0; s < Rule::kStates; ++s) {
        state[s] = load_state(s, i);
      }
      const Vec direction = Rule::direction(terms_, Vec{bf16_to_float(grads_ + i)} * scale_, state);
      const Vec weight = fma(step_, direction, Vec{bf16_to_float(weights_ + i)} * keep_);
      VecI rounded;
      if constexpr (kStochastic) {
        const hn::ScalableTag<std::uint32_t> du;
        const VecI word = hn::BitCast(TagI(), hn::Load(du, words + v));
        rounded = WeightCodec<math::Bf16Stochastic>::round(weight.raw, word);
      } else {
        rounded = round_to_bf16(weight.raw);
      }
      store_upper_halves(rounded, weights_ + i);
      for (int s = 0; s < Rule::kStates; ++s) {
        store_state(s, i, state[s]);
      }
    }
  }

  const backend::StepTask& task_;
  std::uint16_t* weights_;
  const std::uint16_t* grads_;
  Vec terms_[Rule::kTerms];
  Vec step_, scale_, keep_;
};

// Elements of the range that were stepped.
template <class Rule>
std::int64_t step_direct(const backend::StepTask& task, std::int64_t first, std::int64_t last) {
  if (Direct<Rule, false, false>::serves(task)) {
    return Direct<Rule, false, false>::run(task, first, last);
  }
  if (Direct<Rule, true, false>::serves(task)) {
    return Direct<Rule, true, false>::run(task, first, last);
  }
  if (Direct<Rule, false, true>::serves(task)) {
    return Direct<Rule, false, true>::run(task, first, last);
  }
  if (Direct<Rule, true, true>::serves(task)) {
    return Direct<Rule, true, true>::run(task, first, last);
  }
  return 0;
}
