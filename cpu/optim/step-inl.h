// SPDX-License-Identifier: Apache-2.0
// The step over a range: a chunk of whole blocks is staged in L1 as floats, decoded, updated and
// encoded. Included inside nibble::cpu::HWY_NAMESPACE.

using backend::Form;

inline constexpr std::int64_t kChunk = 512;  // elements of a chunk, at least a block
inline constexpr std::int64_t kMaxBlocks = kChunk / math::kMinBlock;
inline constexpr std::int64_t kPrefetchElements = 1024;
inline constexpr std::int64_t kCacheLine = 64;
inline constexpr int kStageRows = 2 + math::kMaxStates;

using DecodeFn = void (*)(const std::uint8_t*, const float*, std::int64_t, std::int64_t, float*);
using EncodeFn = void (*)(const float*, std::int64_t, std::int64_t, const std::uint32_t*,
                          math::Rounding, std::uint8_t*, float*);
using DecodeWeightsFn = void (*)(const math::WeightBlock&, std::int64_t, float*);
using EncodeWeightsFn = void (*)(const math::WeightBlock&, const float*, std::int64_t,
                                 const math::RandomStream&, std::int64_t);

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
inline constexpr DecodeWeightsFn kDecodeWeights[] = {
#define NIBBLE_WEIGHTS(id, name, Type) WeightCodec<math::Type>::decode,
#include "math/weights/weights.def"
#undef NIBBLE_WEIGHTS
};
inline constexpr EncodeWeightsFn kEncodeWeights[] = {
#define NIBBLE_WEIGHTS(id, name, Type) WeightCodec<math::Type>::encode,
#include "math/weights/weights.def"
#undef NIBBLE_WEIGHTS
};

constexpr std::int64_t whole_groups(std::int64_t n) { return (n + kGroup - 1) / kGroup * kGroup; }

// Room for one chunk, a row each for weights, gradients and states. The rows' distance is no
// multiple of a page, or the cache would map them onto each other.
class Stage {
 public:
  HWY_INLINE explicit Stage(std::int64_t chunk)
      : stride_(whole_groups(chunk) + kGroup + kGroup / 4) {}
  HWY_INLINE float* weights() { return rows_; }
  HWY_INLINE float* grads() { return rows_ + stride_; }
  HWY_INLINE float* state(int s) { return rows_ + (2 + s) * stride_; }

 private:
  std::int64_t stride_;
  alignas(64) float rows_[kStageRows * (math::kMaxBlock + 2 * kGroup)];
};

// The bits of the largest magnitude of each state in each block of a chunk.
using Largest = std::uint32_t[math::kMaxStates][kMaxBlocks];

// One chunk: where its floats are, in the stage or in place.
struct Chunk {
  std::int64_t begin, n;
  float* weights;
  const float* grads;
  float* states[math::kMaxStates];
};

// The passes over a block are too long for the core to look past them by itself.
inline void prefetch(const void* from, std::int64_t bytes) {
  const char* p = static_cast<const char*>(from);
  for (std::int64_t i = 0; i < bytes; i += kCacheLine) {
    __builtin_prefetch(p + i);
  }
}

inline void copy_padded(const float* from, std::int64_t n, float* to) {
  std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
  std::fill(to + n, to + whole_groups(n), 0.0F);
}

inline math::WeightBlock weight_block(const backend::StepTask& task, std::int64_t begin) {
  const math::WeightInfo& info = math::kWeights[task.weights.format];
  const backend::WeightView& w = task.weights;
  return {w.data + begin * (info.bits / 8),
          w.extra != nullptr ? w.extra + begin * (info.extra_bits / 8) : nullptr,
          w.scale != nullptr ? w.scale + begin / task.block : nullptr};
}

// f(begin, n): block by block where weights have scales, else all at once.
template <class F>
HWY_INLINE void for_each_weight_block(const backend::StepTask& task, std::int64_t n, const F& f) {
  const bool scaled = math::kWeights[task.weights.format].has_scale;
  for_each_block(n, scaled ? task.block : n,
                 [&](std::int64_t begin, std::int64_t count, std::int64_t) { f(begin, count); });
}

// Where weights are floats in memory, if they are.
inline float* weights_in_memory(const backend::StepTask& task, std::int64_t begin) {
  switch (math::kWeights[task.weights.format].in_place) {
    case math::WeightsInPlace::kWeights:
      return reinterpret_cast<float*>(task.weights.data) + begin;
    case math::WeightsInPlace::kExtra:
      return reinterpret_cast<float*>(task.weights.extra) + begin;
    default:
      return nullptr;
  }
}

inline bool is_rank1(const backend::StateView& view, bool is_signed) {
  return math::kFormats[view.format].scale(is_signed) == math::Scale::kRank1;
}

// Floats of the block's weights; `in_place` where the memory itself serves.
inline float* load_weights(const backend::StepTask& task, std::int64_t begin, std::int64_t n,
                           bool in_place, float* stage) {
  if (task.form == Form::kDirection && !in_place) {
    return stage;
  }
  float* memory = weights_in_memory(task, begin);
  if (memory != nullptr && in_place) {
    return memory;
  }
  if (memory != nullptr) {
    copy_padded(memory, n, stage);
  } else {
    for_each_weight_block(task, n, [&](std::int64_t at, std::int64_t count) {
      kDecodeWeights[task.weights.format](weight_block(task, begin + at), count, stage + at);
    });
    std::fill(stage + n, stage + whole_groups(n), 0.0F);
  }
  return stage;
}

inline const float* load_grads(const backend::StepTask& task, std::int64_t begin, std::int64_t n,
                               bool in_place, float* stage) {
  if (task.grads.is_bf16) {
    decode_bf16(static_cast<const math::bf16*>(task.grads.data) + begin, n, stage);
    std::fill(stage + n, stage + whole_groups(n), 0.0F);
    return stage;
  }
  const float* memory = static_cast<const float*>(task.grads.data) + begin;
  if (in_place) {
    return memory;
  }
  copy_padded(memory, n, stage);
  return stage;
}

inline float* load_state(const backend::StepTask& task, int s, bool is_signed, std::int64_t begin,
                         std::int64_t n, bool in_place, float* stage) {
  const backend::StateView& view = task.state[s];
  const math::FormatInfo& format = math::kFormats[view.format];
  if (view.data == nullptr) {
    std::fill(stage, stage + whole_groups(n), 0.0F);
    return stage;
  }
  std::uint8_t* codes = view.data + format.packed_bytes(begin);
  if (format.decode == nullptr) {
    auto* memory = reinterpret_cast<float*>(codes);
    if (in_place) {
      return memory;
    }
    copy_padded(memory, n, stage);
  } else if (is_rank1(view, is_signed)) {
    decode_rank1(view.rank1.row, view.rank1.column, task.columns, begin, n, codes, stage);
  } else {
    const float* scale = view.scale != nullptr ? view.scale + begin / task.block : nullptr;
    kDecode[view.format][is_signed](codes, scale, n, task.block, stage);
    if (n % kLanes != 0) {
      std::fill(stage + n, stage + whole_groups(n), 0.0F);
    }
  }
  return stage;
}

// In place only where the block is whole groups: then there is no tail to care for.
inline Chunk load_chunk(const backend::StepTask& task, const math::RuleInfo& rule,
                        std::int64_t begin, std::int64_t n, bool in_place, Stage& stage) {
  Chunk chunk{begin, n, nullptr, nullptr, {}};
  for (int s = 0; s < rule.states; ++s) {
    chunk.states[s] =
        load_state(task, s, rule.state[s].is_signed, begin, n, in_place, stage.state(s));
  }
  chunk.weights = load_weights(task, begin, n, in_place, stage.weights());
  chunk.grads = load_grads(task, begin, n, in_place, stage.grads());
  return chunk;
}

inline void store_weights(const backend::StepTask& task, const Chunk& chunk) {
  float* memory = weights_in_memory(task, chunk.begin);
  if (memory != nullptr && memory != chunk.weights) {
    std::memcpy(memory, chunk.weights, static_cast<std::size_t>(chunk.n) * sizeof(float));
  }
  if (kEncodeWeights[task.weights.format] != nullptr) {
    for_each_weight_block(task, chunk.n, [&](std::int64_t at, std::int64_t count) {
      kEncodeWeights[task.weights.format](weight_block(task, chunk.begin + at), chunk.weights + at,
                                          count, task.random, chunk.begin + at);
    });
  }
}

inline void store_state(const backend::StepTask& task, int s, bool is_signed, const Chunk& chunk,
                        const std::uint32_t* largest) {
  const backend::StateView& view = task.state[s];
  const math::FormatInfo& format = math::kFormats[view.format];
  if (view.data == nullptr) {
    return;
  }
  std::uint8_t* codes = view.data + format.packed_bytes(chunk.begin);
  if (format.encode == nullptr) {
    if (reinterpret_cast<float*>(codes) != chunk.states[s]) {
      std::memcpy(codes, chunk.states[s], static_cast<std::size_t>(chunk.n) * sizeof(float));
    }
  } else if (is_rank1(view, is_signed)) {
    encode_rank1(view.rank1.next_row, view.rank1.next_column, task.columns, chunk.begin, chunk.n,
                 chunk.states[s], codes);
  } else {
    float* scale = view.scale != nullptr ? view.scale + chunk.begin / task.block : nullptr;
    kEncode[view.format][is_signed](chunk.states[s], chunk.n, task.block, largest, task.rounding,
                                    codes, scale);
  }
}

template <class Rule, Form kForm>
void apply_rule(const backend::StepTask& task, const Chunk& chunk, Largest& largest) {
  const TagF df;
  const TagI di;
  Vec terms[Rule::kTerms];
  for (int t = 0; t < Rule::kTerms; ++t) {
    terms[t].raw = hn::Set(df, task.terms[t]);
  }
  const Vec step{hn::Set(df, task.terms[math::kMinusStep] * task.step_scale)};
  const Vec scale{hn::Set(df, task.grad_scale)};
  const Vec keep{hn::Set(df, task.keep)};
  const Vec decay{hn::Set(df, task.decay)};
  const VecI magnitude = hn::Set(di, 0x7fffffff);
  for_each_block(chunk.n, task.block, [&](std::int64_t begin, std::int64_t n, std::int64_t b) {
    VecI largest_lanes[Rule::kStates];
    for (int s = 0; s < Rule::kStates; ++s) {
      largest_lanes[s] = hn::Zero(di);
    }
    const std::int64_t end = begin + (n + kLanes - 1) / kLanes * kLanes;
    for (std::int64_t i = begin; i < end; i += kLanes) {
      Vec state[Rule::kStates];
      for (int s = 0; s < Rule::kStates; ++s) {
        state[s].raw = hn::LoadU(df, chunk.states[s] + i);
      }
      Vec grad = Vec{hn::LoadU(df, chunk.grads + i)} * scale;
      Vec weight{hn::Zero(df)};
      if constexpr (kForm != Form::kDirection) {
        weight.raw = hn::LoadU(df, chunk.weights + i);
      }
      if constexpr (kForm == Form::kDecayIntoGradient) {
        grad = fma(decay, weight, grad);
      }
      const Vec direction = Rule::direction(terms, grad, state);
      if constexpr (kForm == Form::kDirection) {
        weight = direction;
      } else if constexpr (kForm == Form::kDecayBefore) {
        weight = fma(step, direction, weight * keep);
      } else {
        weight = fma(step, direction, weight);
      }
      if constexpr (kForm == Form::kDecayAfter) {
        weight = weight * keep;
      }
      hn::StoreU(weight.raw, df, chunk.weights + i);
      for (int s = 0; s < Rule::kStates; ++s) {
        hn::StoreU(state[s].raw, df, chunk.states[s] + i);
        const VecI bits = hn::And(hn::BitCast(di, state[s].raw), magnitude);
        largest_lanes[s] = hn::Max(largest_lanes[s], bits);
      }
    }
    for (int s = 0; s < Rule::kStates; ++s) {
      const auto lanes = hn::GetLane(hn::MaxOfLanes(di, largest_lanes[s]));
      // Behind the end of a tensor there may be anything.
      largest[s][b % kMaxBlocks] = n % kLanes == 0 ? static_cast<std::uint32_t>(lanes)
                                                   : largest_bits(chunk.states[s] + begin, n);
    }
  });
}

using ApplyFn = void (*)(const backend::StepTask&, const Chunk&, Largest&);

// By rule and form: the only code that grows with the rules.
inline constexpr ApplyFn kApply[][4] = {
#define NIBBLE_RULE(id, name, Type)                                             \
  {&apply_rule<Type, Form::kDecayBefore>, &apply_rule<Type, Form::kDecayAfter>, \
   &apply_rule<Type, Form::kDecayIntoGradient>, &apply_rule<Type, Form::kDirection>},
#include "math/rules/rules.def"
#undef NIBBLE_RULE
};

inline void prefetch_block(const backend::StepTask& task, const math::RuleInfo& rule,
                           std::int64_t begin, std::int64_t n) {
  for (int s = 0; s < rule.states; ++s) {
    const backend::StateView& view = task.state[s];
    const math::FormatInfo& format = math::kFormats[view.format];
    if (view.data != nullptr) {
      prefetch(view.data + format.packed_bytes(begin), format.packed_bytes(n));
    }
  }
  const math::WeightInfo& info = math::kWeights[task.weights.format];
  prefetch(task.weights.data + begin * (info.bits / 8), n * (info.bits / 8));
  if (info.extra_bits > 0) {
    prefetch(task.weights.extra + begin * (info.extra_bits / 8), n * (info.extra_bits / 8));
  }
  const std::int64_t grad_bytes = task.grads.is_bf16 ? 2 : 4;
  prefetch(static_cast<const char*>(task.grads.data) + begin * grad_bytes, n * grad_bytes);
}

inline void step_chunks(const backend::StepTask& task, std::int64_t first, std::int64_t last) {
  const math::RuleInfo& rule = math::kRules[task.rule];
  const ApplyFn apply = kApply[task.rule][static_cast<int>(task.form)];
  const std::int64_t size = std::max(task.block, kChunk);
  Stage stage(size);
  for (std::int64_t begin = first; begin < last; begin += size) {
    const std::int64_t n = std::min(size, last - begin);
    const Chunk chunk = load_chunk(task, rule, begin, n, n % kGroup == 0, stage);
    if (begin + kPrefetchElements + n <= last) {
      prefetch_block(task, rule, begin + kPrefetchElements, n);
    }
    Largest largest;
    apply(task, chunk, largest);
    store_weights(task, chunk);
    for (int s = 0; s < rule.states; ++s) {
      store_state(task, s, rule.state[s].is_signed, chunk, largest[s]);
    }
  }
}
