// SPDX-License-Identifier: Apache-2.0
// What the block loop needs of a state format. Included inside nibble::cpu::HWY_NAMESPACE.
//
// Floats lie in stages that are padded to whole groups, so a codec may read and write floats to the
// end of the last group; codes are exact. encode() is told the bits of the block's largest |x|
// (largest_bits), which the step has at hand.

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

// A format that has only its scalar functions.
template <class Format, bool kSigned>
struct Codec {
  static void decode(const std::uint8_t* codes, const float* scale, std::int64_t n, float* out) {
    if constexpr (Format::kBits != 32) {
      Format::decode(kSigned, codes, scale, n, out);
    }
  }
  static void encode(const float* x, std::int64_t n, std::uint32_t, math::Rounding rounding,
                     std::uint8_t* codes, float* scale) {
    if constexpr (Format::kBits != 32) {
      Format::encode(kSigned, x, n, rounding, codes, scale);
    }
  }
};

// A table format, group by group: Self says which modes it handles(), decode_group(codes, scale,
// out) and an Encoder(BlockScale, Rounding) with group(x, codes). What is rare and subtle (blocks
// that are not finite, peers' modes) is left to the definition.
template <class Self, class Format, bool kSigned>
struct GroupCodec {
  static constexpr std::int64_t kGroupBytes = kGroup * Format::kBits / 8;

  static void decode(const std::uint8_t* codes, const float* scale, std::int64_t n, float* out) {
    const VecF by = hn::Set(TagF(), *scale);
    std::int64_t i = 0;
    for (; i + kGroup <= n; i += kGroup) {
      Self::decode_group(codes + i * Format::kBits / 8, by, out + i);
    }
    if (i < n) {
      std::uint8_t padded[kGroup] = {};
      std::memcpy(padded, codes + i * Format::kBits / 8, bytes_of(n - i));
      Self::decode_group(padded, by, out + i);
    }
  }

  static void encode(const float* x, std::int64_t n, std::uint32_t bits, math::Rounding rounding,
                     std::uint8_t* codes, float* scale) {
    if (HWY_UNLIKELY(bits >= kInfinityBits || !Self::handles(rounding))) {
      Format::encode(kSigned, x, n, rounding, codes, scale);
      return;
    }
    constexpr float kTop = Format::map(kSigned).top;
    const auto by = math::BlockScale::of(std::bit_cast<float>(bits), kTop, rounding);
    *scale = by.stored;
    const typename Self::Encoder encoder(by, rounding);
    std::int64_t i = 0;
    for (; i + kGroup <= n; i += kGroup) {
      encoder.group(x + i, codes + i * Format::kBits / 8);
    }
    if (i < n) {
      alignas(64) float padded[kGroup] = {};
      std::uint8_t out[kGroup];
      std::memcpy(padded, x + i, static_cast<std::size_t>(n - i) * sizeof(float));
      encoder.group(padded, out);
      std::memcpy(codes + i * Format::kBits / 8, out, bytes_of(n - i));
      if constexpr (Format::kBits == 4) {
        if (n % 2 != 0) {  // the half byte behind the end
          std::uint8_t& last = codes[n / 2];
          last = static_cast<std::uint8_t>((last & 0xf0) | Format::map(kSigned).zero);
        }
      }
    }
  }

  static std::size_t bytes_of(std::int64_t n) {
    return static_cast<std::size_t>((n * Format::kBits + 7) / 8);
  }
};
