// SPDX-License-Identifier: Apache-2.0
// A thread's weights, read and written in every format, as state_io.cuh has it for states.
#pragma once

#include "cuda/optim/lane.cuh"

namespace nibble::cuda {

struct WeightLane {
  const backend::StepTask& task;
  Lane at;
  math::RandomStream random;
  float* scratch;  // of block_max
};

template <class Weights>
struct WeightIo {
  static constexpr int kBits = Weights::kInfo.bits;
  static constexpr int kExtraBits = Weights::kInfo.extra_bits;
  static constexpr auto kInPlace = Weights::kInfo.in_place;

  __device__ static std::uint8_t* data(const WeightLane& w) {
    return w.task.weights.data + w.at.begin * (kBits / 8);
  }
  __device__ static std::uint8_t* extra(const WeightLane& w) {
    return w.task.weights.extra + w.at.begin * (kExtraBits / 8);
  }

  __device__ static void load(const WeightLane& w, float* out) {
    if constexpr (kInPlace == math::WeightsInPlace::kWeights) {
      load_floats(w.task.weights.data, w.at, out);
    } else if constexpr (kInPlace == math::WeightsInPlace::kExtra) {
      load_floats(w.task.weights.extra, w.at, out);
    } else {
      std::uint8_t raw[kBits];
      std::uint8_t raw_extra[kExtraBits == 0 ? 1 : kExtraBits];
      load_bits<kBits>(data(w), w.at.valid, raw);
      if constexpr (kExtraBits != 0) {
        load_bits<kExtraBits>(extra(w), w.at.valid, raw_extra);
      }
      float scale = 0.0F;
      if constexpr (Weights::kInfo.has_scale) {
        scale = w.at.valid > 0 ? w.task.weights.scale[w.at.begin / w.task.block] : 0.0F;
      }
      Weights::decode(math::WeightBlock{raw, raw_extra, &scale}, kLane, out);
    }
  }

  // Every thread of the thread block takes part.
  __device__ static void store(const WeightLane& w, const float* x) {
    if constexpr (kInPlace == math::WeightsInPlace::kWeights) {
      store_floats(w.task.weights.data, w.at, x);
    } else {
      std::uint8_t raw[kBits];
      std::uint8_t raw_extra[kExtraBits == 0 ? 1 : kExtraBits];
      const math::WeightBlock block{raw, raw_extra, nullptr};
      if constexpr (Weights::kInfo.has_scale) {
        const float absmax = block_max(lane_absmax(x, w.at.valid), w.task.block, w.scratch);
        const math::BlockScale by = Weights::scale_of(absmax);
        Weights::encode_scaled(block, x, kLane, by, w.random, w.at.begin);
        if (w.at.valid > 0 && w.at.begin % w.task.block == 0) {
          w.task.weights.scale[w.at.begin / w.task.block] = by.stored;
        }
      } else {
        Weights::encode(block, x, kLane, w.random, w.at.begin);
      }
      store_bits<kBits>(data(w), w.at.valid, raw);
      if constexpr (kInPlace == math::WeightsInPlace::kExtra) {
        store_floats(w.task.weights.extra, w.at, x);
      } else if constexpr (kExtraBits != 0) {
        store_bits<kExtraBits>(extra(w), w.at.valid, raw_extra);
      }
    }
  }
};

enum WeightsIndex {
#define NIBBLE_WEIGHTS(id, name, Type) kIndexOf##Type,
#include "math/weights/weights.def"
#undef NIBBLE_WEIGHTS
};

__device__ inline void load_weights(const WeightLane& w, float* out) {
  switch (w.task.weights.format) {
#define NIBBLE_WEIGHTS(id, name, Type)  \
  case kIndexOf##Type:                  \
    WeightIo<math::Type>::load(w, out); \
    break;
#include "math/weights/weights.def"
#undef NIBBLE_WEIGHTS
    default:
      break;
  }
}
__device__ inline void store_weights(const WeightLane& w, const float* x) {
  switch (w.task.weights.format) {
#define NIBBLE_WEIGHTS(id, name, Type) \
  case kIndexOf##Type:                 \
    WeightIo<math::Type>::store(w, x); \
    break;
#include "math/weights/weights.def"
#undef NIBBLE_WEIGHTS
    default:
      break;
  }
}

}  // namespace nibble::cuda
