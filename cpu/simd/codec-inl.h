// SPDX-License-Identifier: Apache-2.0
// What the step needs of a state format. Included inside nibble::cpu::HWY_NAMESPACE.
//
// Both directions work on a run of whole blocks (the last may be short). Floats lie in stages that
// are padded by a group, so decode() may write floats up to a group behind the end; codes are
// exact.

inline std::uint32_t largest_bits_of_tail(const float* x, std::int64_t n) {
  std::uint32_t largest = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    largest = std::max(largest, std::bit_cast<std::uint32_t>(x[i]) & 0x7fffffffU);
  }
  return largest;
}

// The bits of the largest |x|; NaN and infinity are larger than every finite value.
HWY_INLINE std::uint32_t largest_bits(const float* x, std::int64_t n) {
  const TagI di;
  const VecI magnitude = hn::Set(di, 0x7fffffff);
  VecI a = hn::Zero(di);
  VecI b = hn::Zero(di);
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    a = hn::Max(a, hn::And(magnitude, hn::BitCast(di, hn::LoadU(TagF(), x + i))));
    b = hn::Max(b, hn::And(magnitude, hn::BitCast(di, hn::LoadU(TagF(), x + i + kLanes))));
  }
  auto largest = static_cast<std::uint32_t>(hn::GetLane(hn::MaxOfLanes(di, hn::Max(a, b))));
  return std::max(largest, largest_bits_of_tail(x + i, n - i));
}

inline constexpr std::uint32_t kInfinityBits = 0x7f800000U;

// f(begin, n of that block, index of the block).
template <class F>
HWY_INLINE void for_each_block(std::int64_t n, std::int64_t block, const F& f) {
  for (std::int64_t begin = 0, i = 0; begin < n; begin += block, ++i) {
    f(begin, std::min(block, n - begin), i);
  }
}

// A format that has only its scalar functions.
template <class Format, bool kSigned>
struct Codec {
  static void decode(const std::uint8_t* codes, const float* scales, std::int64_t n,
                     std::int64_t block, float* out) {
    if constexpr (Format::kBits != 32) {
      for_each_block(n, block, [&](std::int64_t begin, std::int64_t count, std::int64_t i) {
        Format::decode(kSigned, codes + begin * Format::kBits / 8, scales + i, count, out + begin);
      });
    }
  }
  static void encode(const float* x, std::int64_t n, std::int64_t block, const std::uint32_t*,
                     math::Rounding rounding, std::uint8_t* codes, float* scales) {
    if constexpr (Format::kBits != 32) {
      for_each_block(n, block, [&](std::int64_t begin, std::int64_t count, std::int64_t i) {
        Format::encode(kSigned, x + begin, count, rounding, codes + begin * Format::kBits / 8,
                       scales + i);
      });
    }
  }
};

// encoder.codes() of each vector of a group.
template <class Encoder>
HWY_INLINE void codes_of_group(const Encoder& encoder, const float* x, VecI* code) {
  for (std::int64_t v = 0; v < kGroupVecs; ++v) {
    code[v] = encoder.codes(hn::LoadU(TagF(), x + v * kLanes));
  }
}

// A table format, group by group: Self says which modes it handles(), decode_group(codes, scale,
// out) and an Encoder(BlockScale, Rounding) with group(x, codes). What is rare and subtle (blocks
// that are not finite, peers' modes) is left to the definition.
template <class Self, class Format, bool kSigned>
struct GroupCodec {
  static constexpr std::int64_t bytes_of(std::int64_t n) { return (n * Format::kBits + 7) / 8; }

  static void decode(const std::uint8_t* codes, const float* scales, std::int64_t n,
                     std::int64_t block, float* out) {
    for_each_block(n, block, [&](std::int64_t begin, std::int64_t count, std::int64_t b) {
      const VecF by = hn::Set(TagF(), scales[b]);
      const std::uint8_t* from = codes + bytes_of(begin);
      std::int64_t i = 0;
      for (; i + kGroup <= count; i += kGroup) {
        Self::decode_group(from + bytes_of(i), by, out + begin + i);
      }
      if (i < count) {
        std::uint8_t padded[kGroup] = {};
        std::memcpy(padded, from + bytes_of(i), static_cast<std::size_t>(bytes_of(count - i)));
        Self::decode_group(padded, by, out + begin + i);
      }
    });
  }

  static void encode(const float* x, std::int64_t n, std::int64_t block,
                     const std::uint32_t* largest, math::Rounding rounding, std::uint8_t* codes,
                     float* scales) {
    for_each_block(n, block, [&](std::int64_t begin, std::int64_t count, std::int64_t b) {
      const std::uint32_t bits = largest[b];
      std::uint8_t* to = codes + bytes_of(begin);
      if (HWY_UNLIKELY(bits >= kInfinityBits || !Self::handles(rounding))) {
        Format::encode(kSigned, x + begin, count, rounding, to, scales + b);
        return;
      }
      constexpr float kTop = Format::map(kSigned).top;
      const auto by = math::BlockScale::of(std::bit_cast<float>(bits), kTop, rounding);
      scales[b] = by.stored;
      encode_block(x + begin, count, typename Self::Encoder(by, rounding), to);
    });
  }

 private:
  template <class Encoder>
  static HWY_INLINE void encode_block(const float* x, std::int64_t n, const Encoder& encoder,
                                      std::uint8_t* codes) {
    std::int64_t i = 0;
    for (; i + kGroup <= n; i += kGroup) {
      encoder.group(x + i, codes + bytes_of(i));
    }
    if (i < n) {
      alignas(64) float padded[kGroup] = {};
      std::uint8_t out[kGroup];
      std::memcpy(padded, x + i, static_cast<std::size_t>(n - i) * sizeof(float));
      encoder.group(padded, out);
      std::memcpy(codes + bytes_of(i), out, static_cast<std::size_t>(bytes_of(n - i)));
      if constexpr (Format::kBits == 4) {
        if (n % 2 != 0) {  // the half byte behind the end
          std::uint8_t& last = codes[n / 2];
          last = static_cast<std::uint8_t>((last & 0xf0) | Format::map(kSigned).zero);
        }
      }
    }
  }
};
