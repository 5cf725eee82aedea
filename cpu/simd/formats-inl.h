// SPDX-License-Identifier: Apache-2.0
// The other state formats for SIMD: the same bits as their scalar functions.
// Included inside nibble::cpu::HWY_NAMESPACE.

// ---- int8_log, second moment: eight codes an octave --------------------------------------------

// For each sixteenth of an octave: what takes the float's eighths (exponent and three bits of the
// mantissa) to the code at its beginning, and the bound inside it (2: none).
struct OctaveTables {
  alignas(64) std::int32_t from_eighths[16];
  alignas(64) float bound[16];
  alignas(64) float value[16];  // of the map's eighths, twice
};

constexpr OctaveTables make_octave() {
  OctaveTables out{};
  for (int cell = 0; cell < 16; ++cell) {
    const float low = 1.0F + static_cast<float>(cell) / 16.0F;
    const float high = low + 1.0F / 16.0F;
    int below = 0;
    float inside = 2.0F;
    for (std::size_t j = 0; j < 8; ++j) {
      const float next = j < 7 ? math::detail::kEighthOctaves[j + 1] : 2.0F;
      const float bound = (math::detail::kEighthOctaves[j] + next) / 2.0F;
      below += bound < low ? 1 : 0;
      inside = bound >= low && bound < high ? bound : inside;
    }
    out.from_eighths[cell] = below - cell / 2 + 255 - 8 * 127;
    out.bound[cell] = inside;
    out.value[cell] = math::detail::kEighthOctaves[static_cast<std::size_t>(cell % 8)];
  }
  return out;
}

inline constexpr OctaveTables kOctave = make_octave();

template <>
struct Codec<math::Int8Log, true> : Codec<math::Int8, true> {};

template <>
struct Codec<math::Int8Log, false> : GroupCodec<Codec<math::Int8Log, false>, math::Int8Log, false> {
  static constexpr bool handles(math::Rounding rounding) {
    return rounding == math::Rounding::kSafe;
  }

  struct Encoder {
    VecF reciprocal;
    Table16 bound{kOctave.bound};
    IntTable16 from_eighths{kOctave.from_eighths};
    HWY_INLINE Encoder(math::BlockScale by, math::Rounding)
        : reciprocal(hn::Set(TagF(), by.reciprocal)) {}

    HWY_INLINE VecI codes(VecF x) const {
      const TagF df;
      const TagI di;
      const VecF smallest = hn::Set(df, math::kGeometric8.value[1]);
      const VecI a = hn::BitCast(di, hn::Max(hn::Mul(x, reciprocal), smallest));
      const VecI cell = hn::ShiftRight<19>(a);
      const VecI one = hn::Set(di, 0x3f800000);
      const VecI mantissa = hn::Or(hn::And(a, hn::Set(di, 0x7fffff)), one);
      const auto above = hn::Gt(hn::BitCast(df, mantissa), bound[cell]);
      VecI code = hn::Add(hn::ShiftRight<20>(a), from_eighths[cell]);
      code = hn::Sub(code, hn::BitCast(di, hn::VecFromMask(df, above)));
      return hn::IfThenElseZero(hn::RebindMask(di, hn::Gt(x, hn::Zero(df))), code);
    }
    HWY_INLINE void group(const float* x, std::uint8_t* out) const {
      VecI code[kGroupVecs];
      codes_of_group(*this, x, code);
      store_low_bytes(code, out);
    }
  };

  // Code k is 2^((k + 1) / 8 - 32).
  static HWY_INLINE void decode_group(const std::uint8_t* codes, VecF scale, float* out) {
    const TagF df;
    const TagI di;
    const Table16 table(kOctave.value);
    for (std::int64_t v = 0; v < kGroupVecs; ++v) {
      const VecI code = hn::PromoteTo(di, hn::LoadU(TagU8(), codes + v * kLanes));
      const VecI next = hn::Add(code, hn::Set(di, 1));
      const VecI octaves = hn::Sub(hn::ShiftRight<3>(next), hn::Set(di, 32));
      const VecI bits = hn::Add(hn::BitCast(di, table[next]), hn::ShiftLeft<23>(octaves));
      const VecI value = hn::IfThenElseZero(hn::Gt(code, hn::Zero(di)), bits);
      hn::StoreU(hn::Mul(hn::BitCast(df, value), scale), df, out + v * kLanes);
    }
  }
};

// ---- int4 ---------------------------------------------------------------------------------------

// 64 codes to 32 bytes, the even one in the high half, and back.
HWY_INLINE void pack_nibbles(const VecI* code, std::uint8_t* out) {
  alignas(64) std::uint8_t bytes[kGroup];
  store_low_bytes(code, bytes);
  const hn::ScalableTag<std::uint16_t> d16;
  const hn::Rebind<std::uint8_t, decltype(d16)> d8;
  for (std::size_t i = 0; i < kGroup / 2; i += hn::Lanes(d16)) {
    const auto pair = hn::Load(d16, reinterpret_cast<const std::uint16_t*>(bytes) + i);
    const auto packed =
        hn::Or(hn::And(hn::ShiftLeft<4>(pair), hn::Set(d16, 0xf0)), hn::ShiftRight<8>(pair));
    const hn::ScalableTag<std::int16_t> ds16;
    hn::StoreU(hn::DemoteTo(d8, hn::BitCast(ds16, packed)), d8, out + i);
  }
}

HWY_INLINE void unpack_nibbles(const std::uint8_t* packed, std::uint8_t* bytes) {
  const hn::ScalableTag<std::uint16_t> d16;
  const hn::Rebind<std::uint8_t, decltype(d16)> d8;
  for (std::size_t i = 0; i < kGroup / 2; i += hn::Lanes(d16)) {
    const auto pair = hn::PromoteTo(d16, hn::LoadU(d8, packed + i));
    const auto odd = hn::ShiftLeft<8>(hn::And(pair, hn::Set(d16, 15)));
    hn::Store(hn::Or(hn::ShiftRight<4>(pair), odd), d16,
              reinterpret_cast<std::uint16_t*>(bytes) + i);
  }
}

// The linear 4-bit map: bounds stand at (k + 1.5) / 16, and 16 s - 1.5 is exact above the lowest.
HWY_INLINE VecI linear4_codes(VecF scaled) {
  const TagF df;
  const VecF t = hn::Ceil(hn::MulAdd(scaled, hn::Set(df, 16.0F), hn::Set(df, -1.5F)));
  return hn::ConvertTo(TagI(), hn::Min(hn::Max(t, hn::Zero(df)), hn::Set(df, 15.0F)));
}

template <bool kSigned>
struct Codec<math::Int4, kSigned> : GroupCodec<Codec<math::Int4, kSigned>, math::Int4, kSigned> {
  static constexpr const math::CodeMap& kMap = math::Int4::map(kSigned);

  static constexpr bool handles(math::Rounding rounding) {
    return rounding == math::Rounding::kSafe || rounding == math::Rounding::kNearest;
  }

  struct Encoder {
    VecF reciprocal;
    Table16 bound{kMap.bound.data()};
    HWY_INLINE Encoder(math::BlockScale by, math::Rounding)
        : reciprocal(hn::Set(TagF(), by.reciprocal)) {}

    HWY_INLINE VecI codes(VecF x) const {
      const TagF df;
      const TagI di;
      const VecF scaled = hn::Mul(x, reciprocal);
      if constexpr (!kSigned) {
        return linear4_codes(scaled);
      } else {
        const auto first = hn::RebindMask(di, hn::Gt(scaled, hn::Set(df, kMap.bound[7])));
        VecI code = hn::IfThenElseZero(first, hn::Set(di, 8));
        for (const int step : {4, 2, 1}) {
          const VecF at = bound[hn::Add(code, hn::Set(di, step - 1))];
          const auto above = hn::RebindMask(di, hn::Lt(at, scaled));
          code = hn::IfThenElse(above, hn::Add(code, hn::Set(di, step)), code);
        }
        return code;
      }
    }
    HWY_INLINE void group(const float* x, std::uint8_t* out) const {
      VecI code[kGroupVecs];
      codes_of_group(*this, x, code);
      pack_nibbles(code, out);
    }
  };

  static HWY_INLINE void decode_group(const std::uint8_t* codes, VecF scale, float* out) {
    alignas(64) std::uint8_t bytes[kGroup];
    unpack_nibbles(codes, bytes);
    const Table16 table(kMap.value.data());
    for (std::int64_t v = 0; v < kGroupVecs; ++v) {
      const VecI code = hn::PromoteTo(TagI(), hn::Load(TagU8(), bytes + v * kLanes));
      hn::StoreU(hn::Mul(table[code], scale), TagF(), out + v * kLanes);
    }
  }
};

template <bool kSigned>
struct Codec<math::Int4Rank1, kSigned> : Codec<math::Int4, kSigned> {};

// ---- fp8 E4M3 -----------------------------------------------------------------------------------

template <bool kSigned>
struct Codec<math::Fp8, kSigned> : GroupCodec<Codec<math::Fp8, kSigned>, math::Fp8, kSigned> {
  static constexpr bool handles(math::Rounding rounding) {
    return rounding == math::Rounding::kSafe || rounding == math::Rounding::kNearest;
  }

  struct Encoder {
    VecF reciprocal;
    bool safe;
    HWY_INLINE Encoder(math::BlockScale by, math::Rounding rounding)
        : reciprocal(hn::Set(TagF(), by.reciprocal)), safe(rounding == math::Rounding::kSafe) {}

    HWY_INLINE VecI codes(VecF x) const {
      const TagF df;
      const TagI di;
      const VecF scaled = hn::Mul(x, reciprocal);
      const VecF a = hn::Min(hn::Abs(scaled), hn::Set(df, 448.0F));
      const VecI bits = hn::BitCast(di, a);
      const VecI even = hn::And(hn::ShiftRight<20>(bits), hn::Set(di, 1));
      const VecI rounded = hn::Add(bits, hn::Add(even, hn::Set(di, 0x7ffff)));
      const VecI normal = hn::Sub(hn::ShiftRight<20>(rounded), hn::Set(di, 120 << 3));
      // Below 2^-6 codes are multiples of 2^-9, the unit in the last place of 2^14.
      const VecI small =
          hn::And(hn::BitCast(di, hn::Add(a, hn::Set(df, 16384.0F))), hn::Set(di, 15));
      const auto is_small = hn::RebindMask(di, hn::Lt(a, hn::Set(df, 0x1p-6F)));
      VecI code = hn::IfThenElse(is_small, small, normal);
      if constexpr (kSigned) {
        const VecI sign = hn::And(hn::ShiftRight<24>(hn::BitCast(di, scaled)), hn::Set(di, 0x80));
        code = hn::IfThenElseZero(hn::Gt(code, hn::Zero(di)), hn::Or(code, sign));
      } else if (safe) {
        const auto positive = hn::RebindMask(di, hn::Gt(x, hn::Zero(df)));
        code = hn::Max(code, hn::IfThenElseZero(positive, hn::Set(di, 1)));
      }
      return code;
    }
    HWY_INLINE void group(const float* x, std::uint8_t* out) const {
      VecI code[kGroupVecs];
      codes_of_group(*this, x, code);
      store_low_bytes(code, out);
    }
  };

  static HWY_INLINE void decode_group(const std::uint8_t* codes, VecF scale, float* out) {
    const TagF df;
    const TagI di;
    for (std::int64_t v = 0; v < kGroupVecs; ++v) {
      const VecI code = hn::PromoteTo(di, hn::LoadU(TagU8(), codes + v * kLanes));
      const VecI magnitude = hn::And(code, hn::Set(di, 0x7f));
      const VecF shifted = hn::BitCast(df, hn::ShiftLeft<20>(magnitude));
      const VecF value = hn::Mul(shifted, hn::Set(df, 0x1p120F));
      const VecI sign = hn::ShiftLeft<24>(hn::And(code, hn::Set(di, 0x80)));
      const auto is_nan = hn::Eq(magnitude, hn::Set(di, 0x7f));
      const VecI bits = hn::IfThenElse(is_nan, hn::Set(di, 0x7fc00000), hn::BitCast(di, value));
      hn::StoreU(hn::Mul(hn::BitCast(df, hn::Or(bits, sign)), scale), df, out + v * kLanes);
    }
  }
};

// ---- bf16 ---------------------------------------------------------------------------------------

HWY_INLINE void decode_bf16(const void* from, std::int64_t n, float* out) {
  const auto* bits = static_cast<const std::uint16_t*>(from);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(bf16_to_float(bits + i), TagF(), out + i);
  }
  for (; i < n; ++i) {
    out[i] = math::bf16_to_float(math::load_bf16(static_cast<const std::uint8_t*>(from), i));
  }
}

HWY_INLINE void encode_bf16(const float* x, std::int64_t n, void* to) {
  auto* bits = static_cast<std::uint16_t*>(to);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    store_upper_halves(round_to_bf16(hn::LoadU(TagF(), x + i)), bits + i);
  }
  for (; i < n; ++i) {
    math::store_bf16(static_cast<std::uint8_t*>(to), i, math::float_to_bf16(x[i]));
  }
}

template <bool kSigned>
struct Codec<math::Bf16, kSigned> {
  static void decode(const std::uint8_t* codes, const float*, std::int64_t n, std::int64_t,
                     float* out) {
    decode_bf16(codes, n, out);
  }
  static void encode(const float* x, std::int64_t n, std::int64_t, const std::uint32_t*,
                     math::Rounding, std::uint8_t* codes, float*) {
    encode_bf16(x, n, codes);
  }
};
