// SPDX-License-Identifier: Apache-2.0
// Weight formats for SIMD: the same bits as their scalar functions.
// Included inside nibble::cpu::HWY_NAMESPACE.

// Random words of elements [first, first + kGroup), `first` a multiple of 4: Philox on 64-bit
// lanes, whose upper halves the multiplications ignore.
HWY_INLINE void philox_group(const math::RandomStream& stream, std::int64_t first,
                             std::uint32_t* out) {
  const hn::ScalableTag<std::uint64_t> d64;
  using V64 = hn::Vec<decltype(d64)>;
  const hn::RepartitionToNarrow<decltype(d64)> d32;
  const auto group = static_cast<std::uint64_t>(first) / 4;
  const std::uint64_t low = group & 0xffffffffU;
  if (HWY_UNLIKELY(low > 0xffffffffU - kGroup / 4)) {  // the counter's first word wraps
    for (std::int64_t i = 0; i < kGroup; ++i) {
      out[i] = stream.bits(static_cast<std::uint64_t>(first + i));
    }
    return;
  }
  const auto high = static_cast<std::uint32_t>(group >> 32);
  const V64 a = hn::Set(d64, 0xD2511F53U);
  const V64 b = hn::Set(d64, 0xCD9E8D57U);
  const auto multiply = [&](V64 x, V64 y) {
    return hn::MulEven(hn::BitCast(d32, x), hn::BitCast(d32, y));
  };
  // Several sets of counters at once: a round is a chain of dependent instructions.
  constexpr std::int64_t kCounters = HWY_LANES(std::uint64_t);
  constexpr std::int64_t kSets = kGroup / 4 / kCounters;
  V64 c0[kSets], c1[kSets], c2[kSets], c3[kSets];
  for (std::int64_t i = 0; i < kSets; ++i) {
    c0[i] = hn::Iota(d64, low + static_cast<std::uint64_t>(i * kCounters));
    c1[i] = hn::Set(d64, stream.tensor);
    c2[i] = hn::Set(d64, stream.step);
    c3[i] = hn::Set(d64, static_cast<std::uint32_t>(stream.purpose) | (high << 8));
  }
  auto key0 = static_cast<std::uint32_t>(stream.seed);
  auto key1 = static_cast<std::uint32_t>(stream.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const V64 k0 = hn::Set(d64, key0);
    const V64 k1 = hn::Set(d64, key1);
    for (std::int64_t i = 0; i < kSets; ++i) {
      const V64 p0 = multiply(c0[i], a);
      const V64 p1 = multiply(c2[i], b);
      c0[i] = hn::Xor(hn::Xor(hn::ShiftRight<32>(p1), c1[i]), k0);
      c2[i] = hn::Xor(hn::Xor(hn::ShiftRight<32>(p0), c3[i]), k1);
      c1[i] = p1;
      c3[i] = p0;
    }
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
  const V64 mask = hn::Set(d64, 0xffffffffU);
  for (std::int64_t i = 0; i < kSets; ++i) {
    const V64 first_half = hn::Or(hn::And(c0[i], mask), hn::ShiftLeft<32>(c1[i]));
    const V64 second_half = hn::Or(hn::And(c2[i], mask), hn::ShiftLeft<32>(c3[i]));
    hn::StoreInterleaved2(first_half, second_half, d64,
                          reinterpret_cast<std::uint64_t*>(out + i * kCounters * 4));
  }
}

// A weight format that has only its scalar functions.
template <class Weights>
struct WeightCodec {
  static constexpr auto decode = Weights::kInfo.decode;
  static constexpr auto encode = Weights::kInfo.encode;
};

template <>
struct WeightCodec<math::Bf16Master> {
  static constexpr auto decode = math::Bf16Master::kInfo.decode;
  static void encode(const math::WeightBlock& block, const float* x, std::int64_t n,
                     const math::RandomStream&, std::int64_t) {
    encode_bf16(x, n, block.data);
  }
};

template <>
struct WeightCodec<math::Bf16Nearest> {
  static void decode(const math::WeightBlock& block, std::int64_t n, float* out) {
    decode_bf16(block.data, n, out);
  }
  static constexpr auto encode = &WeightCodec<math::Bf16Master>::encode;
};

template <>
struct WeightCodec<math::Bf16Stochastic> {
  static constexpr auto decode = &WeightCodec<math::Bf16Nearest>::decode;

  static HWY_INLINE VecI round(VecF x, VecI random) {
    const TagI di;
    const hn::ScalableTag<std::uint32_t> du;
    const VecI bits = hn::BitCast(di, x);
    const VecI magnitude = hn::And(bits, hn::Set(di, 0x7fffffff));
    const VecI add = hn::BitCast(di, hn::ShiftRight<16>(hn::BitCast(du, random)));
    const VecI moved = hn::Min(hn::Add(magnitude, add), hn::Set(di, 0x7f7fffff));
    const VecI rounded = hn::Or(moved, hn::Xor(bits, magnitude));
    const auto odd = hn::Gt(magnitude, hn::Set(di, 0x7f7fffff));  // not finite
    return hn::IfThenElse(odd, round_to_bf16(x), rounded);
  }

  static void encode(const math::WeightBlock& block, const float* x, std::int64_t n,
                     const math::RandomStream& random, std::int64_t first) {
    alignas(64) std::uint32_t words[kGroup];
    auto* out = reinterpret_cast<std::uint16_t*>(block.data);
    std::int64_t i = 0;
    for (; i + kGroup <= n; i += kGroup) {
      philox_group(random, first + i, words);
      for (std::int64_t v = 0; v < kGroup; v += kLanes) {
        const VecI word =
            hn::BitCast(TagI(), hn::Load(hn::ScalableTag<std::uint32_t>(), words + v));
        store_upper_halves(round(hn::LoadU(TagF(), x + i + v), word), out + i + v);
      }
    }
    if (i < n) {
      const math::WeightBlock rest{block.data + 2 * i, nullptr, nullptr};
      math::Bf16Stochastic::encode(rest, x + i, n - i, random, first + i);
    }
  }
};

template <int kBitsKept>
struct CorrectionCodec {
  using Format = math::Bf16Correction<kBitsKept>;

  static HWY_INLINE VecI load(const std::uint8_t* extra, std::int64_t i) {
    if constexpr (kBitsKept == 8) {
      const hn::Rebind<std::int8_t, TagI> d8;
      return hn::PromoteTo(TagI(), hn::LoadU(d8, reinterpret_cast<const std::int8_t*>(extra) + i));
    } else {
      const hn::Rebind<std::int16_t, TagI> d16;
      return hn::PromoteTo(TagI(),
                           hn::LoadU(d16, reinterpret_cast<const std::int16_t*>(extra) + i));
    }
  }
  static HWY_INLINE void store(VecI correction, std::uint8_t* extra, std::int64_t i) {
    if constexpr (kBitsKept == 8) {
      const hn::Rebind<std::int8_t, TagI> d8;
      hn::StoreU(hn::DemoteTo(d8, correction), d8, reinterpret_cast<std::int8_t*>(extra) + i);
    } else {
      const hn::Rebind<std::int16_t, TagI> d16;
      hn::StoreU(hn::DemoteTo(d16, correction), d16, reinterpret_cast<std::int16_t*>(extra) + i);
    }
  }

  static void decode(const math::WeightBlock& block, std::int64_t n, float* out) {
    const auto* upper = reinterpret_cast<const std::uint16_t*>(block.data);
    std::int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      const VecI weight = hn::BitCast(TagI(), bf16_to_float(upper + i));
      const VecI correction = hn::ShiftLeft<Format::kShift>(load(block.extra, i));
      hn::StoreU(hn::BitCast(TagF(), hn::Add(weight, correction)), TagF(), out + i);
    }
    for (; i < n; ++i) {
      out[i] = Format::join(math::load_bf16(block.data, i), Format::load(block.extra, i));
    }
  }

  static void encode(const math::WeightBlock& block, const float* x, std::int64_t n,
                     const math::RandomStream& random, std::int64_t first) {
    const TagI di;
    auto* upper = reinterpret_cast<std::uint16_t*>(block.data);
    std::int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      const VecF value = hn::LoadU(TagF(), x + i);
      const auto is_nan = hn::RebindMask(di, hn::IsNaN(value));
      const VecI bits = hn::BitCast(di, value);
      const VecI half = hn::Set(di, static_cast<std::int32_t>(Format::kHalf));
      const VecI kept = hn::Set(di, static_cast<std::int32_t>(Format::kKept));
      const VecI rounded =
          hn::IfThenElse(is_nan, hn::Set(di, 0x7fc00000), hn::And(hn::Add(bits, half), kept));
      const VecI cut = hn::Set(di, static_cast<std::int32_t>(0xffff0000U));
      const VecI weight = hn::And(hn::Add(rounded, hn::Set(di, 0x8000)), cut);
      store_upper_halves(weight, upper + i);
      store(hn::ShiftRight<Format::kShift>(hn::Sub(rounded, weight)), block.extra, i);
    }
    if (i < n) {
      const math::WeightBlock rest{block.data + 2 * i, block.extra + i * kBitsKept / 8, nullptr};
      Format::encode(rest, x + i, n - i, random, first + i);
    }
  }
};

template <>
struct WeightCodec<math::Bf16Correction16> : CorrectionCodec<16> {};
template <>
struct WeightCodec<math::Bf16Correction8> : CorrectionCodec<8> {};

template <>
struct WeightCodec<math::Int8Stochastic> {
  static void decode(const math::WeightBlock& block, std::int64_t n, float* out) {
    const hn::Rebind<std::int8_t, TagI> d8;
    const auto* codes = reinterpret_cast<const std::int8_t*>(block.data);
    const VecF scale = hn::Set(TagF(), *block.scale);
    std::int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      const VecI code = hn::PromoteTo(TagI(), hn::LoadU(d8, codes + i));
      hn::StoreU(hn::Mul(hn::ConvertTo(TagF(), code), scale), TagF(), out + i);
    }
    for (; i < n; ++i) {
      out[i] = static_cast<float>(codes[i]) * *block.scale;
    }
  }

  static void encode(const math::WeightBlock& block, const float* x, std::int64_t n,
                     const math::RandomStream& random, std::int64_t first) {
    const std::uint32_t bits = largest_bits(x, n);
    if (HWY_UNLIKELY(bits >= kInfinityBits)) {
      math::Int8Stochastic::encode(block, x, n, random, first);
      return;
    }
    const float top = math::Int8Stochastic::kTop;
    const auto by = math::BlockScale::of(std::bit_cast<float>(bits), top, math::Rounding::kSafe);
    *block.scale = by.stored;
    const TagF df;
    const hn::ScalableTag<std::uint32_t> du;
    const VecF reciprocal = hn::Set(df, by.reciprocal);
    alignas(64) std::uint32_t words[kGroup];
    for (std::int64_t i = 0; i < n; i += kGroup) {
      philox_group(random, first + i, words);
      VecI code[kGroupVecs];
      alignas(64) float padded[kGroup] = {};
      const float* from = x + i;
      if (i + kGroup > n) {
        std::memcpy(padded, from, static_cast<std::size_t>(n - i) * sizeof(float));
        from = padded;
      }
      for (std::int64_t v = 0; v < kGroupVecs; ++v) {
        const auto word = hn::ShiftRight<8>(hn::Load(du, words + v * kLanes));
        const VecF uniform =
            hn::Mul(hn::ConvertTo(df, hn::BitCast(TagI(), word)), hn::Set(df, 0x1p-24F));
        const VecF scaled = hn::Mul(hn::LoadU(df, from + v * kLanes), reciprocal);
        const VecF at = hn::Floor(hn::Add(scaled, uniform));
        const VecF limited = hn::Min(hn::Max(at, hn::Set(df, -top)), hn::Set(df, top));
        code[v] = hn::ConvertTo(TagI(), limited);
      }
      std::uint8_t out[kGroup];
      store_low_bytes(code, out);
      std::memcpy(block.data + i, out, static_cast<std::size_t>(std::min(kGroup, n - i)));
    }
  }
};
