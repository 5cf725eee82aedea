// SPDX-License-Identifier: Apache-2.0
// math::Int8 for SIMD: the same bits as its scalar functions, a group at a time.
// Included inside nibble::cpu::HWY_NAMESPACE.

// Where each decade's slope, offset and last code are found.
#if HWY_TARGET == HWY_AVX2

struct DecadeTables {
  alignas(32) float slope[8], offset[8], last[8];
  float threshold[8];
};

constexpr DecadeTables make_decades(const math::Dynamic8Lines& lines) {
  DecadeTables out{};
  for (std::size_t d = 0; d < 8; ++d) {
    out.slope[d] = lines.slope[d], out.offset[d] = lines.offset[d];
    out.last[d] = lines.last[d], out.threshold[d] = lines.threshold[d];
  }
  return out;
}

struct Decades {
  HWY_INLINE explicit Decades(const DecadeTables& from) : tables(from) {}

  // min(a * slope + offset, last) of a's decade: the number of thresholds below a.
  HWY_INLINE VecF position(VecF a) const {
    const TagI di;
    VecI decade = hn::Zero(di);
    for (int i = 0; i < math::kDynamic8Decades; ++i) {
      const auto above = hn::Gt(a, hn::Set(TagF(), tables.threshold[i]));
      decade = hn::Sub(decade, hn::BitCast(di, hn::VecFromMask(TagF(), above)));
    }
    const VecF t = hn::MulAdd(a, lookup8(tables.slope, decade), lookup8(tables.offset, decade));
    return hn::Min(t, lookup8(tables.last, decade));
  }

  const DecadeTables& tables;
};

#else

// By the upper bits of the float's exponent: a range of two octaves holds at most one threshold.
// The low four bits of exponent / 2 name the ranges from 2^-32 to 2.
struct DecadeTables {
  alignas(64) float threshold[16];
  alignas(64) std::int32_t decade[16];  // below the threshold
  alignas(64) float slope[16], offset[16], last[16];
};

constexpr DecadeTables make_decades(const math::Dynamic8Lines& lines) {
  DecadeTables out{};
  for (std::size_t k = 0; k < 16; ++k) {
    const float low = std::bit_cast<float>(static_cast<std::uint32_t>(96 + 2 * k) << 23);
    std::size_t decade = 0;
    while (decade < math::kDynamic8Decades && lines.threshold[decade] < low) {
      ++decade;
    }
    out.decade[k] = static_cast<std::int32_t>(decade);
    out.threshold[k] = lines.threshold[decade];  // of the last decade: +infinity
  }
  for (std::size_t d = 0; d < 16; ++d) {
    out.slope[d] = lines.slope[d % 8], out.offset[d] = lines.offset[d % 8];
    out.last[d] = lines.last[d % 8];
  }
  return out;
}

struct Decades {
  HWY_INLINE explicit Decades(const DecadeTables& from)
      : threshold(hn::Load(TagF(), from.threshold)),
        decade_below(hn::Load(TagI(), from.decade)),
        slope(hn::Load(TagF(), from.slope)),
        offset(hn::Load(TagF(), from.offset)),
        last(hn::Load(TagF(), from.last)) {}

  HWY_INLINE VecF position(VecF a) const {
    const TagI di;
    const VecI range = hn::ShiftRight<24>(hn::BitCast(di, a));
    const auto above = hn::RebindMask(di, hn::Gt(a, lookup16(threshold, range)));
    const VecI below = lookup16(decade_below, range);
    const VecI decade =
        VecI{_mm512_mask_add_epi32(below.raw, above.raw, below.raw, _mm512_set1_epi32(1))};
    const VecF t = hn::MulAdd(a, lookup16(slope, decade), lookup16(offset, decade));
    return hn::Min(t, lookup16(last, decade));
  }

  VecF threshold;
  VecI decade_below;
  VecF slope, offset, last;
};

#endif

template <bool kSigned>
struct Int8Encoder {
  static constexpr const math::Dynamic8Lines& kLines =
      kSigned ? math::kLinesSigned : math::kLinesUnsigned;
  static constexpr DecadeTables kTables = make_decades(kLines);
  static constexpr const math::CodeMap& kMap = math::Int8::map(kSigned);

  Decades decades{kTables};
  VecF reciprocal;
  math::BlockScale scale;

  HWY_INLINE explicit Int8Encoder(math::BlockScale by)
      : reciprocal(hn::Set(TagF(), by.reciprocal)), scale(by) {}

  // Rounding::kSafe: the nearest integer on the line is the code. Signed codes come less 128, and a
  // magnitude of 128 below zero as -129: store_biased_bytes limits it to the lowest code.
  HWY_INLINE VecI safe_codes(VecF x) const {
    const TagF df;
    const TagI di;
    const VecF scaled = hn::Mul(x, reciprocal);
    if constexpr (kSigned) {
      const VecF smallest = hn::Set(df, 0x1p-30F);  // keeps the exponent in the table
      const VecF t = decades.position(magnitude_from(scaled, smallest));
      return hn::Sub(with_sign_of(to_integer(t), x), hn::Set(di, 128 - kMap.zero));
    } else {
      const VecF t = decades.position(hn::Max(scaled, hn::Set(df, kMap.value[1])));
      const auto positive = hn::RebindMask(di, hn::Gt(x, hn::Zero(df)));
      return hn::IfThenElseZero(positive, to_integer(t));
    }
  }

  // Rounding::kNearest, but for what lies near a bound; t: the position whose nearest integer it
  // is.
  HWY_INLINE VecI nearest_codes(VecF x, VecF& t) const {
    const TagF df;
    const TagI di;
    const VecF bias = hn::Set(df, math::kToInteger);
    const VecF smallest = hn::Set(df, 0x1p-30F);
    const VecF scaled = hn::Mul(x, reciprocal);
    if constexpr (kSigned) {
      // A tie goes to the lower code: to the larger magnitude if x is negative. One unit in the
      // last place more makes "above the bound" mean "at or above" there.
      const VecI sign = hn::ShiftRight<31>(hn::BitCast(di, x));
      const VecF limited = hn::Max(scaled, hn::Set(df, kMap.value[0]));
      const VecI nudged = hn::Sub(hn::BitCast(di, hn::Abs(limited)), sign);
      t = decades.position(hn::Max(hn::BitCast(df, nudged), smallest));
      const VecI k = hn::BitCast(di, hn::Add(t, bias));
      return hn::Add(hn::Xor(k, sign), hn::Sub(hn::Set(di, kMap.zero), sign));
    } else {
      const VecF a = hn::Max(scaled, smallest);
      t = hn::Max(decades.position(a), hn::Set(df, 1.0F));
      const auto nonzero = hn::Gt(a, hn::Set(df, kLines.zero_bound));
      const VecI k = hn::BitCast(di, hn::Add(t, bias));
      return hn::IfThenElseZero(hn::RebindMask(di, nonzero), k);
    }
  }

  template <math::Rounding kRounding>
  HWY_INLINE void encode_group(const float* x, std::uint8_t* codes) const {
    VecI code[kGroupVecs];
    if constexpr (kRounding == math::Rounding::kSafe) {
      for (std::int64_t v = 0; v < kGroupVecs; ++v) {
        code[v] = safe_codes(hn::LoadU(TagF(), x + v * kLanes));
      }
      if constexpr (kSigned) {
        store_biased_bytes(code, codes);
      } else {
        store_low_bytes(code, codes);
      }
    } else {
      VecF t[kGroupVecs];
      VecF farthest = hn::Zero(TagF());
      for (std::int64_t v = 0; v < kGroupVecs; ++v) {
        code[v] = nearest_codes(hn::LoadU(TagF(), x + v * kLanes), t[v]);
        farthest = max_fraction(farthest, t[v]);
      }
      store_low_bytes(code, codes);
      const VecF limit = hn::Set(TagF(), 0.5F - math::kTieWindow);
      if (HWY_UNLIKELY(!hn::AllFalse(TagF(), hn::Gt(farthest, limit)))) {
        settle_ties(x, t, codes);
      }
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
        codes[i] = math::Int8::encode_one(kMap, x[i], scale, math::Rounding::kNearest);
      }
    }
  }
};

template <bool kSigned>
struct Codec<math::Int8, kSigned> : GroupCodec<Codec<math::Int8, kSigned>, math::Int8, kSigned> {
  static constexpr bool handles(math::Rounding rounding) {
    return rounding == math::Rounding::kSafe || rounding == math::Rounding::kNearest;
  }

  struct Encoder {
    Int8Encoder<kSigned> of;
    bool safe;
    HWY_INLINE Encoder(math::BlockScale by, math::Rounding rounding)
        : of(by), safe(rounding == math::Rounding::kSafe) {}
    HWY_INLINE void group(const float* x, std::uint8_t* codes) const {
      if (HWY_LIKELY(safe)) {
        of.template encode_group<math::Rounding::kSafe>(x, codes);
      } else {
        of.template encode_group<math::Rounding::kNearest>(x, codes);
      }
    }
  };

  static HWY_INLINE void decode_group(const std::uint8_t* codes, VecF scale, float* out) {
#if HWY_TARGET == HWY_AVX3_DL
    static constexpr BytePlanes kPlanes = make_planes(math::Int8::map(kSigned).value);
    VecF values[kGroupVecs];
    lookup256(kPlanes, codes, values);
    for (std::int64_t v = 0; v < kGroupVecs; ++v) {
      hn::StoreU(hn::Mul(values[v], scale), TagF(), out + v * kLanes);
    }
#else
    gather_group(math::Int8::map(kSigned).value.data(), codes, scale, out);
#endif
  }
};
