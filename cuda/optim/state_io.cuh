// SPDX-License-Identifier: Apache-2.0
// A thread's states, read and written in every format. Nothing here knows arithmetic: src/math
// decodes and encodes, on bytes in registers.
#pragma once

#include "cuda/optim/lane.cuh"

namespace nibble::cuda {

// 4-bit codes of an odd number of elements end with a zero's, which is no element's.
template <class Format>
__device__ void end_with_zero(bool is_signed, int valid, std::uint8_t* raw) {
  if (Format::kBits == 4 && valid % 2 == 1) {
    raw[valid / 2] =
        static_cast<std::uint8_t>((raw[valid / 2] & 0xf0) | Format::map(is_signed).zero);
  }
}

// One state of a tensor, as a thread sees it.
struct StateLane {
  const backend::StateView& view;
  const backend::StepTask& task;
  Lane at;
  float* scratch;  // of block_max
};

template <class Format>
struct StateIo {
  static constexpr bool has_blocks(bool is_signed) {
    return (is_signed ? Format::kSignedScale : Format::kUnsignedScale) == math::Scale::kBlock;
  }
  static constexpr bool is_rank1(bool is_signed) {
    return (is_signed ? Format::kSignedScale : Format::kUnsignedScale) == math::Scale::kRank1;
  }
  __device__ static std::uint8_t* data(const StateLane& s) {
    return s.view.data + (Format::kBits == 4 ? s.at.begin / 2 : s.at.begin * (Format::kBits / 8));
  }

  template <bool kSigned>
  __device__ static void load(const StateLane& s, float* out) {
    if constexpr (Format::kBits == 32) {
      load_floats(s.view.data, s.at, out);
    } else {
      std::uint8_t raw[Format::kBits];
      load_bits<Format::kBits>(data(s), s.at.valid, raw);
      if constexpr (is_rank1(kSigned)) {
        NIBBLE_UNROLL
        for (int i = 0; i < kLane; ++i) {
          const std::int64_t element = s.at.begin + (i < s.at.valid ? i : 0);
          out[i] = s.at.valid == 0
                       ? 0.0F
                       : Format::decode_at((raw[i / 2] >> (i % 2 == 0 ? 4 : 0)) & 15,
                                           s.view.rank1.row[element / s.task.columns],
                                           s.view.rank1.column[element % s.task.columns]);
        }
      } else {
        float scale = 0.0F;
        if constexpr (has_blocks(kSigned)) {
          scale = s.at.valid > 0 ? s.view.scale[s.at.begin / s.task.block] : 0.0F;
        }
        Format::decode(kSigned, raw, &scale, kLane, out);
      }
    }
  }

  // Every thread of the thread block takes part.
  template <bool kSigned>
  __device__ static void store(const StateLane& s, const float* x) {
    if constexpr (Format::kBits == 32) {
      store_floats(s.view.data, s.at, x);
    } else {
      std::uint8_t raw[Format::kBits];
      if constexpr (is_rank1(kSigned)) {
        NIBBLE_UNROLL
        for (int i = 0; i < kLane; i += 2) {
          raw[i / 2] =
              static_cast<std::uint8_t>((rank1_code(s, i, x) << 4) | rank1_code(s, i + 1, x));
        }
      } else if constexpr (has_blocks(kSigned)) {
        store_blocks<kSigned>(s, x, raw);
      } else {
        Format::encode(kSigned, x, kLane, s.task.rounding, raw, nullptr);
      }
      store_bits<Format::kBits>(data(s), s.at.valid, raw);
    }
  }

 private:
  __device__ static int rank1_code(const StateLane& s, int i, const float* x) {
    const std::int64_t element = s.at.begin + i;
    return i < s.at.valid ? Format::encode_at(math::saturated(x[i]),
                                              s.view.rank1.next_row[element / s.task.columns],
                                              s.view.rank1.next_column[element % s.task.columns])
                          : 0;
  }

  template <bool kSigned>
  __device__ static void store_blocks(const StateLane& s, const float* x, std::uint8_t* raw) {
    const float absmax = block_max(lane_absmax(x, s.at.valid), s.task.block, s.scratch);
    const math::BlockScale by = Format::scale_of(kSigned, absmax, s.task.rounding);
    Format::encode_scaled(kSigned, x, kLane, by, s.task.rounding, raw);
    end_with_zero<Format>(kSigned, s.at.valid, raw);
    if (s.at.valid > 0 && s.at.begin % s.task.block == 0) {
      s.view.scale[s.at.begin / s.task.block] = by.stored;
    }
  }
};

// Indices of the formats in math::kFormats.
enum FormatIndex {
#define NIBBLE_FORMAT(id, name, Type) kIndexOf##Type,
#include "math/formats/formats.def"
#undef NIBBLE_FORMAT
};

// States of any formats, chosen at run time; the uniform choices have kernels of their own.
struct AnyFormat {};
template <>
struct StateIo<AnyFormat> {
  template <bool kSigned>
  __device__ static void load(const StateLane& s, float* out) {
    switch (s.view.format) {
#define NIBBLE_FORMAT(id, name, Type)                      \
  case kIndexOf##Type:                                     \
    if constexpr (math::Type::kForStates) {                \
      StateIo<math::Type>::template load<kSigned>(s, out); \
    }                                                      \
    break;
#include "math/formats/formats.def"
#undef NIBBLE_FORMAT
      default:
        break;
    }
  }
  template <bool kSigned>
  __device__ static void store(const StateLane& s, const float* x) {
    switch (s.view.format) {
#define NIBBLE_FORMAT(id, name, Type)                     \
  case kIndexOf##Type:                                    \
    if constexpr (math::Type::kForStates) {               \
      StateIo<math::Type>::template store<kSigned>(s, x); \
    }                                                     \
    break;
#include "math/formats/formats.def"
#undef NIBBLE_FORMAT
      default:
        break;
    }
  }
};

}  // namespace nibble::cuda
