// SPDX-License-Identifier: Apache-2.0
// The step over a range, and quantisation. Included inside nibble::cpu::HWY_NAMESPACE.

inline constexpr std::int64_t kPrefetchElements = 1024;
inline constexpr std::int64_t kCacheLine = 64;

using DecodeFn = void (*)(const std::uint8_t*, float, std::int64_t, float*);
using EncodeFn = void (*)(const float*, std::int64_t, std::uint32_t, math::Rounding, std::uint8_t*,
                          float*);

// By format and sign.
inline constexpr DecodeFn kDecode[][2] = {
#define NIBBLE_FORMAT(id, name, Type) \
  {&Codec<math::Type, false>::decode, &Codec<math::Type, true>::decode},
#include "math/formats/formats.def"
#undef NIBBLE_FORMAT
};
inline constexpr EncodeFn kEncode[][2] = {
#define NIBBLE_FORMAT(id, name, Type) \
  {&Codec<math::Type, false>::encode, &Codec<math::Type, true>::encode},
#include "math/formats/formats.def"
#undef NIBBLE_FORMAT
};

// One vector of elements. `largest` collects the magnitudes of each state, as integers.
template <class Rule>
HWY_INLINE void step_vec(const Vec* terms, Vec scale, float* weights, const float* grads,
                         float* const* states, VecI* largest) {
  const TagF df;
  Vec state[Rule::kStates];
  for (int s = 0; s < Rule::kStates; ++s) {
    state[s].raw = hn::LoadU(df, states[s]);
  }
  const Vec grad = Vec{hn::LoadU(df, grads)} * scale;
  const Vec weight = Rule::apply(terms, Vec{hn::LoadU(df, weights)}, grad, state);
  hn::StoreU(weight.raw, df, weights);
  for (int s = 0; s < Rule::kStates; ++s) {
    hn::StoreU(state[s].raw, df, states[s]);
    const VecI magnitude = hn::And(hn::BitCast(TagI(), state[s].raw), hn::Set(TagI(), 0x7fffffff));
    largest[s] = hn::Max(largest[s], magnitude);
  }
}

template <class Rule>
HWY_INLINE void step_elements(const backend::StepTask& task, float* weights, const float* grads,
                              float* const* states, std::int64_t n, std::uint32_t* largest) {
  const TagF df;
  VecI largest_lanes[Rule::kStates];
  for (int s = 0; s < Rule::kStates; ++s) {
    largest_lanes[s] = hn::Zero(TagI());
  }
  Vec terms[Rule::kTerms];
  for (int t = 0; t < Rule::kTerms; ++t) {
    terms[t].raw = hn::Set(df, task.terms[t]);
  }
  const Vec scale{hn::Set(df, task.grad_scale)};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    float* at[Rule::kStates];
    for (int s = 0; s < Rule::kStates; ++s) {
      at[s] = states[s] + i;
    }
    step_vec<Rule>(terms, scale, weights + i, grads + i, at, largest_lanes);
  }
  for (int s = 0; s < Rule::kStates; ++s) {
    const VecI lanes = hn::MaxOfLanes(TagI(), largest_lanes[s]);
    largest[s] = static_cast<std::uint32_t>(hn::GetLane(lanes));
  }
  if (i < n) {  // the tail, through padded copies
    VecI padded_largest[Rule::kStates] = {};
    const auto bytes = static_cast<std::size_t>(n - i) * sizeof(float);
    alignas(64) float padded[2 + Rule::kStates][kLanes] = {};
    float* at[Rule::kStates];
    std::memcpy(padded[0], weights + i, bytes);
    std::memcpy(padded[1], grads + i, bytes);
    for (int s = 0; s < Rule::kStates; ++s) {
      at[s] = padded[2 + s];
      std::memcpy(at[s], states[s] + i, bytes);
    }
    step_vec<Rule>(terms, scale, padded[0], padded[1], at, padded_largest);
    std::memcpy(weights + i, padded[0], bytes);
    for (int s = 0; s < Rule::kStates; ++s) {
      std::memcpy(states[s] + i, at[s], bytes);
      largest[s] = std::max(largest[s], largest_bits_of_tail(at[s], n - i));
    }
  }
}

// The passes over a block are too long for the core to look past them by itself.
HWY_INLINE void prefetch(const void* from, std::int64_t bytes) {
  const char* p = static_cast<const char*>(from);
  for (std::int64_t i = 0; i < bytes; i += kCacheLine) {
    __builtin_prefetch(p + i);
  }
}

template <class Rule>
void step_blocks(const backend::StepTask& task, std::int64_t first, std::int64_t last) {
  alignas(64) float stage[Rule::kStates][math::kMaxBlock];
  float* states[Rule::kStates];
  for (std::int64_t begin = first; begin < last; begin += task.block) {
    const std::int64_t n = std::min(task.block, last - begin);
    const std::int64_t block = begin / task.block;
    const bool ahead = begin + kPrefetchElements + n <= last;
    for (int s = 0; s < Rule::kStates; ++s) {
      const backend::StateView& view = task.state[s];
      const math::FormatInfo& format = math::kFormats[view.format];
      std::uint8_t* data = view.data + format.packed_bytes(begin);
      if (format.block_wise) {
        states[s] = stage[s];
        kDecode[view.format][Rule::kState[s].is_signed](data, view.absmax[block], n, stage[s]);
      } else {
        states[s] = reinterpret_cast<float*>(data);
      }
      if (ahead) {
        prefetch(data + format.packed_bytes(kPrefetchElements), format.packed_bytes(n));
      }
    }
    if (ahead) {
      prefetch(task.weights + begin + kPrefetchElements, n * 4);
      prefetch(task.grads + begin + kPrefetchElements, n * 4);
    }
    std::uint32_t largest[Rule::kStates];
    step_elements<Rule>(task, task.weights + begin, task.grads + begin, states, n, largest);
    for (int s = 0; s < Rule::kStates; ++s) {
      const backend::StateView& view = task.state[s];
      const math::FormatInfo& format = math::kFormats[view.format];
      if (format.block_wise) {
        kEncode[view.format][Rule::kState[s].is_signed](stage[s], n, largest[s], task.rounding,
                                                        view.data + format.packed_bytes(begin),
                                                        &view.absmax[block]);
      }
    }
  }
}

void step(const backend::StepTask& task, std::int64_t first, std::int64_t last) noexcept {
  using StepFn = void (*)(const backend::StepTask&, std::int64_t, std::int64_t);
  static constexpr StepFn kSteps[] = {
#define NIBBLE_RULE(id, name, Type) &step_blocks<Type>,
#include "math/rules/rules.def"
#undef NIBBLE_RULE
  };
  if (task.skip_nonfinite) {  // rare: only steps that hold a non-finite gradient
    backend::reference_backend().step(task, first, last);
    return;
  }
  kSteps[task.rule](task, first, last);
}

void quantize(const float* x, std::int64_t n, std::int64_t block, int format, bool is_signed,
              math::Rounding rounding, std::uint8_t* codes, float* absmax) noexcept {
  for (std::int64_t begin = 0; begin < n; begin += block) {
    const std::int64_t count = std::min(block, n - begin);
    kEncode[format][is_signed](x + begin, count, largest_bits(x + begin, count), rounding,
                               codes + math::kFormats[format].packed_bytes(begin),
                               absmax + begin / block);
  }
}

void dequantize(const std::uint8_t* codes, const float* absmax, std::int64_t n, std::int64_t block,
                int format, bool is_signed, float* out) noexcept {
  for (std::int64_t begin = 0; begin < n; begin += block) {
    kDecode[format][is_signed](codes + math::kFormats[format].packed_bytes(begin),
                               absmax[begin / block], std::min(block, n - begin), out + begin);
  }
}
