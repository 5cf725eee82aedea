// SPDX-License-Identifier: Apache-2.0
// math::Int8 for SIMD: the same bits as its scalar functions, 64 elements at a time.
// Included inside nibble::cpu::HWY_NAMESPACE.

inline constexpr std::int64_t kGroup = 64;
inline constexpr std::int64_t kGroupVecs = kGroup / kLanes;

// Where each decade's slope, offset and top are found.
#if HWY_TARGET == HWY_AVX2

struct DecadeTables {
  alignas(32) float slope[8], offset[8], top[8];
  float threshold[8];
};

constexpr DecadeTables make_decades(const math::Dynamic8Segments& segments) {
  DecadeTables out{};
  for (std::size_t d = 0; d < 8; ++d) {
    out.slope[d] = segments.slope[d], out.offset[d] = segments.offset[d];
    out.top[d] = segments.top[d], out.threshold[d] = segments.threshold[d];
  }
  return out;
}

struct Decades {
  HWY_INLINE explicit Decades(const DecadeTables& from) : tables(from) {}

  // min(a * slope + offset, top) of a's decade: the number of thresholds below a.
  HWY_INLINE VecF position(VecF a) const {
    const TagI di;
    VecI decade = hn::Zero(di);
    for (int i = 0; i < math::kDynamic8Decades; ++i) {
      const auto above = hn::Gt(a, hn::Set(TagF(), tables.threshold[i]));
      decade = hn::Sub(decade, hn::BitCast(di, hn::VecFromMask(TagF(), above)));
    }
    const VecF t = hn::MulAdd(a, lookup8(tables.slope, decade), lookup8(tables.offset, decade));
    return hn::Min(t, lookup8(tables.top, decade));
  }

  const DecadeTables& tables;
};

#else

// By the float's exponent (its low five bits: magnitudes from 2^-31 to 2): a binade holds at most
// one threshold.
struct DecadeTables {
  alignas(64) float threshold[32];
  alignas(64) std::int32_t decade[32];  // below the threshold
  alignas(64) float slope[16], offset[16], top[16];
};

constexpr DecadeTables make_decades(const math::Dynamic8Segments& segments) {
  DecadeTables out{};
  for (std::size_t k = 0; k < 32; ++k) {
    const float low = std::bit_cast<float>(static_cast<std::uint32_t>(96 + k) << 23);
    std::size_t decade = 0;
    while (decade < math::kDynamic8Decades && segments.threshold[decade] < low) {
      ++decade;
    }
    out.decade[k] = static_cast<std::int32_t>(decade);
    out.threshold[k] = segments.threshold[decade];  // of the last decade: +infinity
  }
  for (std::size_t d = 0; d < 16; ++d) {
    out.slope[d] = segments.slope[d % 8], out.offset[d] = segments.offset[d % 8];
    out.top[d] = segments.top[d % 8];
  }
  return out;
}

struct Decades {
  HWY_INLINE explicit Decades(const DecadeTables& from)
      : threshold_low(hn::Load(TagF(), from.threshold)),
        threshold_high(hn::Load(TagF(), from.threshold + 16)),
        decade_low(hn::Load(TagI(), from.decade)),
        decade_high(hn::Load(TagI(), from.decade + 16)),
        slope(hn::Load(TagF(), from.slope)),
        offset(hn::Load(TagF(), from.offset)),
        top(hn::Load(TagF(), from.top)) {}

  HWY_INLINE VecF position(VecF a) const {
    const TagI di;
    const VecI exponent = hn::ShiftRight<23>(hn::BitCast(di, a));
    const auto above =
        hn::RebindMask(di, hn::Gt(a, lookup32(threshold_low, threshold_high, exponent)));
    const VecI below = lookup32(decade_low, decade_high, exponent);
    const VecI decade = hn::IfThenElse(above, hn::Add(below, hn::Set(di, 1)), below);
    const VecF t = hn::MulAdd(a, lookup16(slope, decade), lookup16(offset, decade));
    return hn::Min(t, lookup16(top, decade));
  }

  VecF threshold_low, threshold_high;
  VecI decade_low, decade_high;
  VecF slope, offset, top;
};

#endif

template <bool kSigned>
struct Int8Encoder {
  static constexpr const math::Dynamic8Segments& kSegments =
      kSigned ? math::kSegmentsSigned : math::kSegmentsUnsigned;
  static constexpr DecadeTables kTables = make_decades(kSegments);
  static constexpr float kRoundingBias = 0x1p23F;  // t + 2^23 holds round(t) in its low bits

  Decades decades{kTables};
  VecF reciprocal;
  float scalar_reciprocal;
  math::Rounding rounding;

  HWY_INLINE Int8Encoder(float r, math::Rounding how)
      : reciprocal(hn::Set(TagF(), r)), scalar_reciprocal(r), rounding(how) {}

  // One vector of finite values: the position among the codes of their magnitudes, whose nearest
  // integer is the code, and the codes.
  template <bool kSafe>
  HWY_INLINE VecI codes_of(VecF x, VecF& t) const {
    const TagF df;
    const TagI di;
    const VecF bias = hn::Set(df, kRoundingBias);
    const VecF smallest = hn::Set(df, 0x1p-30F);  // keeps the exponent in the table
    const VecF scaled = hn::Mul(x, reciprocal);
    if constexpr (kSigned) {
      // A tie goes to the lower code: to the larger magnitude if x is negative. One unit in the
      // last place more makes "above the bound" mean "at or above" there.
      const VecI sign = hn::ShiftRight<31>(hn::BitCast(di, x));  // 0 or -1
      const VecF limited = hn::Max(scaled, hn::Set(df, math::kDynamic8Signed.value[0]));
      const VecI nudged = hn::Sub(hn::BitCast(di, hn::Abs(limited)), sign);
      t = decades.position(hn::Max(hn::BitCast(df, nudged), smallest));
      const VecI k = hn::BitCast(di, hn::Add(t, bias));
      const VecI zero_code = hn::Set(di, math::kDynamic8Signed.zero);
      return hn::Add(hn::Xor(k, sign), hn::Sub(zero_code, sign));  // zero_code + k or - k
    } else {
      const VecF a = hn::Max(scaled, smallest);
      t = hn::Max(decades.position(a), hn::Set(df, 1.0F));
      const VecI k = hn::BitCast(di, hn::Add(t, bias));
      const auto nonzero =
          kSafe ? hn::Gt(x, hn::Zero(df)) : hn::Gt(a, hn::Set(df, kSegments.zero_bound));
      return hn::IfThenElseZero(hn::RebindMask(di, nonzero), k);
    }
  }

  template <bool kSafe>
  HWY_INLINE void encode_group(const float* x, std::uint8_t* codes) const {
    VecF t[kGroupVecs];
    VecI code[kGroupVecs];
    VecF farthest = hn::Zero(TagF());
    for (std::int64_t v = 0; v < kGroupVecs; ++v) {
      code[v] = codes_of<kSafe>(hn::LoadU(TagF(), x + v * kLanes), t[v]);
      farthest = max_fraction(farthest, t[v]);
    }
    store_low_bytes(code, codes);
    const VecF limit = hn::Set(TagF(), 0.5F - math::kTieWindow);
    if (HWY_UNLIKELY(!hn::AllFalse(TagF(), hn::Gt(farthest, limit)))) {
      settle_ties(x, t, codes);
    }
  }

  // Rare: the arithmetic may err next to a bound, so the definition decides there.
  HWY_NOINLINE void settle_ties(const float* x, const VecF* t, std::uint8_t* codes) const {
    alignas(64) float position[kGroup];
    for (std::int64_t v = 0; v < kGroupVecs; ++v) {
      hn::Store(t[v], TagF(), position + v * kLanes);
    }
    for (std::int64_t i = 0; i < kGroup; ++i) {
      const float fraction = position[i] - static_cast<float>(static_cast<int>(position[i]));
      if (fraction - 0.5F < math::kTieWindow && 0.5F - fraction < math::kTieWindow) {
        codes[i] =
            math::Int8::encode_one(math::Int8::map(kSigned), x[i], scalar_reciprocal, rounding);
      }
    }
  }

  template <bool kSafe>
  HWY_INLINE void encode(const float* x, std::int64_t n, std::uint8_t* codes) const {
    std::int64_t i = 0;
    for (; i + kGroup <= n; i += kGroup) {
      encode_group<kSafe>(x + i, codes + i);
    }
    if (i < n) {
      alignas(64) float padded[kGroup] = {};
      std::uint8_t out[kGroup];
      std::memcpy(padded, x + i, static_cast<std::size_t>(n - i) * sizeof(float));
      encode_group<kSafe>(padded, out);
      std::memcpy(codes + i, out, static_cast<std::size_t>(n - i));
    }
  }
};

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

// What the block loop needs of a format; the primary template serves a format that has only its
// scalar functions.
//
// encode() is told the bits of the block's largest |x| (largest_bits), which the step has at hand.
template <class Format, bool kSigned>
struct Codec {
  static void decode(const std::uint8_t* codes, float absmax, std::int64_t n, float* out) {
    if constexpr (Format::kBlockWise) {
      Format::decode(kSigned, codes, absmax, n, out);
    }
  }
  static void encode(const float* x, std::int64_t n, std::uint32_t, math::Rounding rounding,
                     std::uint8_t* codes, float* absmax) {
    if constexpr (Format::kBlockWise) {
      Format::encode(kSigned, x, n, rounding, codes, absmax);
    }
  }
};

template <bool kSigned>
struct Codec<math::Int8, kSigned> {
  static void decode(const std::uint8_t* codes, float absmax, std::int64_t n, float* out) {
    std::int64_t i = 0;
    for (; i + kGroup <= n; i += kGroup) {
      decode_group(codes + i, absmax, out + i);
    }
    if (i < n) {
      std::uint8_t padded[kGroup] = {};
      alignas(64) float values[kGroup];
      std::memcpy(padded, codes + i, static_cast<std::size_t>(n - i));
      decode_group(padded, absmax, values);
      std::memcpy(out + i, values, static_cast<std::size_t>(n - i) * sizeof(float));
    }
  }

  static void encode(const float* x, std::int64_t n, std::uint32_t bits, math::Rounding rounding,
                     std::uint8_t* codes, float* absmax) {
    if (HWY_UNLIKELY(bits >= 0x7f800000U)) {  // rare and subtle: one definition for all
      math::Int8::encode(kSigned, x, n, rounding, codes, absmax);
      return;
    }
    const float largest = std::bit_cast<float>(bits);
    *absmax = largest;
    const float floor = math::Int8::kAbsmaxFloor;
    const Int8Encoder<kSigned> encoder(1.0F / (largest > floor ? largest : floor), rounding);
    if (rounding == math::Rounding::kSafe) {
      encoder.template encode<true>(x, n, codes);
    } else {
      encoder.template encode<false>(x, n, codes);
    }
  }

 private:
#if HWY_TARGET == HWY_AVX3_DL
  static constexpr BytePlanes kPlanes = make_planes(math::Int8::map(kSigned).value);
#endif

  static HWY_INLINE void decode_group(const std::uint8_t* codes, float absmax, float* out) {
    const VecF scale = hn::Set(TagF(), absmax);
#if HWY_TARGET == HWY_AVX3_DL
    VecF values[kGroupVecs];
    lookup256(kPlanes, codes, values);
    for (std::int64_t v = 0; v < kGroupVecs; ++v) {
      hn::StoreU(hn::Mul(values[v], scale), TagF(), out + v * kLanes);
    }
#else
    const float* table = math::Int8::map(kSigned).value.data();
    for (std::int64_t v = 0; v < kGroupVecs; ++v) {
      const auto bytes = hn::LoadU(hn::Rebind<std::uint8_t, TagI>(), codes + v * kLanes);
      const VecF value = hn::GatherIndex(TagF(), table, hn::PromoteTo(TagI(), bytes));
      hn::StoreU(hn::Mul(value, scale), TagF(), out + v * kLanes);
    }
#endif
  }
};
