// SPDX-License-Identifier: Apache-2.0
// Table look-ups that Highway cannot say (or not without its run-time checks): raw intrinsics.
// Included inside nibble::cpu::HWY_NAMESPACE.

#if HWY_TARGET == HWY_AVX2

HWY_INLINE VecF lookup8(const float* table, VecI index) {
  return VecF{_mm256_permutevar8x32_ps(_mm256_load_ps(table), index.raw)};
}

// A table of 16 floats; the low four bits of the index count.
struct Table16 {
  HWY_INLINE explicit Table16(const float* table)
      : low(_mm256_loadu_ps(table)), high(_mm256_loadu_ps(table + 8)) {}
  HWY_INLINE VecF operator[](VecI index) const {
    const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(index.raw, 28));
    return VecF{_mm256_blendv_ps(_mm256_permutevar8x32_ps(low, index.raw),
                                 _mm256_permutevar8x32_ps(high, index.raw), upper)};
  }
  __m256 low, high;
};

struct IntTable16 {
  HWY_INLINE explicit IntTable16(const std::int32_t* from)
      : table(reinterpret_cast<const float*>(from)) {}
  HWY_INLINE VecI operator[](VecI index) const { return hn::BitCast(TagI(), table[index]); }
  Table16 table;
};

#else

// Tables of 16 floats; the low four bits of the index count.
HWY_INLINE VecF lookup16(VecF table, VecI index) {
  return VecF{_mm512_permutexvar_ps(index.raw, table.raw)};
}

struct Table16 {
  HWY_INLINE explicit Table16(const float* from) : table(hn::LoadU(TagF(), from)) {}
  HWY_INLINE VecF operator[](VecI index) const { return lookup16(table, index); }
  VecF table;
};

HWY_INLINE VecI lookup16(VecI table, VecI index) {
  return VecI{_mm512_permutexvar_epi32(index.raw, table.raw)};
}

struct IntTable16 {
  HWY_INLINE explicit IntTable16(const std::int32_t* from) : table(hn::LoadU(TagI(), from)) {}
  HWY_INLINE VecI operator[](VecI index) const { return lookup16(table, index); }
  VecI table;
};

#endif

// The larger of `so_far` and t's distance from the nearest integer.
HWY_INLINE VecF max_fraction(VecF so_far, VecF t) {
#if HWY_TARGET == HWY_AVX2
  return hn::Max(so_far, hn::Abs(hn::Sub(t, hn::Round(t))));
#else
  constexpr int kToNearest = 0;
  constexpr int kLargerMagnitude = 0xB;
  return VecF{_mm512_range_ps(so_far.raw, _mm512_reduce_ps(t.raw, kToNearest), kLargerMagnitude)};
#endif
}

// The larger of |x| and `floor`, without a sign.
HWY_INLINE VecF magnitude_from(VecF x, VecF floor) {
#if HWY_TARGET == HWY_AVX2
  return hn::Max(hn::Abs(x), floor);
#else
  constexpr int kLargerMagnitude = 0xB;
  return VecF{_mm512_range_ps(x.raw, floor.raw, kLargerMagnitude)};
#endif
}

// The nearest integer, ties to even; for values in the range of integers.
HWY_INLINE VecI to_integer(VecF t) {
#if HWY_TARGET == HWY_AVX2
  return VecI{_mm256_cvtps_epi32(t.raw)};
#else
  return VecI{_mm512_cvtps_epi32(t.raw)};
#endif
}

// v, or -v where x is negative.
HWY_INLINE VecI with_sign_of(VecI v, VecF x) {
#if HWY_TARGET == HWY_AVX2
  return VecI{
      _mm256_sign_epi32(v.raw, _mm256_or_si256(_mm256_castps_si256(x.raw), _mm256_set1_epi32(1)))};
#else
  const __mmask16 negative = _mm512_movepi32_mask(_mm512_castps_si512(x.raw));
  return VecI{_mm512_mask_sub_epi32(v.raw, negative, _mm512_setzero_si512(), v.raw)};
#endif
}

// 64 lanes in [-129, 127] as bytes [0, 255]: 128 is added, and what would be -1 is 0.
HWY_INLINE void store_biased_bytes(const VecI* v, std::uint8_t* out) {
#if HWY_TARGET == HWY_AVX2
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  for (int i = 0; i < 8; i += 4) {
    const __m256i low = _mm256_packs_epi32(v[i].raw, v[i + 1].raw);
    const __m256i high = _mm256_packs_epi32(v[i + 2].raw, v[i + 3].raw);
    const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 8 * i),
                        _mm256_xor_si256(bytes, _mm256_set1_epi8(-128)));
  }
#else
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i low = _mm512_packs_epi32(v[0].raw, v[1].raw);
  const __m512i high = _mm512_packs_epi32(v[2].raw, v[3].raw);
  const __m512i bytes = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high));
  _mm512_storeu_si512(out, _mm512_xor_si512(bytes, _mm512_set1_epi8(-128)));
#endif
}

// The low bytes of 64 lanes, in order.
HWY_INLINE void store_low_bytes(const VecI* v, std::uint8_t* out) {
#if HWY_TARGET == HWY_AVX2
  for (int i = 0; i < 8; ++i) {
    const VecI low = hn::And(v[i], hn::Set(TagI(), 0xff));
    const hn::Rebind<std::uint8_t, TagI> du8;
    hn::StoreU(hn::DemoteTo(du8, low), du8, out + 8 * i);
  }
#elif HWY_TARGET == HWY_AVX3
  for (int i = 0; i < 4; ++i) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * i), _mm512_cvtepi32_epi8(v[i].raw));
  }
#else
  struct Fourths {
    alignas(64) std::uint8_t index[64];
  };
  static constexpr Fourths kFourths = [] {
    Fourths out{};
    for (int i = 0; i < 64; ++i) {
      out.index[i] = static_cast<std::uint8_t>((i % 32) * 4);
    }
    return out;
  }();
  const __m512i pick = _mm512_load_si512(kFourths.index);
  const __m512i low = _mm512_permutex2var_epi8(v[0].raw, pick, v[1].raw);
  const __m512i high = _mm512_permutex2var_epi8(v[2].raw, pick, v[3].raw);
  _mm512_storeu_si512(out, _mm512_mask_blend_epi64(0xF0, low, high));
#endif
}

// A group of codes through a table of 256 floats, times a scale.
HWY_INLINE void gather_group(const float* table, const std::uint8_t* codes, VecF scale,
                             float* out) {
  for (std::int64_t v = 0; v < kGroupVecs; ++v) {
    const auto bytes = hn::LoadU(TagU8(), codes + v * kLanes);
    const VecF value = hn::GatherIndex(TagF(), table, hn::PromoteTo(TagI(), bytes));
    hn::StoreU(hn::Mul(value, scale), TagF(), out + v * kLanes);
  }
}

#if HWY_TARGET == HWY_AVX3_DL

// The four byte planes of a table of 256 floats, so that 64 codes are looked up at once.
struct BytePlanes {
  alignas(64) std::uint8_t byte[4][256];
};

constexpr BytePlanes make_planes(const std::array<float, 256>& table) {
  BytePlanes out{};
  for (std::size_t k = 0; k < 256; ++k) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(table[k]);
    for (std::size_t p = 0; p < 4; ++p) {
      out.byte[p][k] = static_cast<std::uint8_t>(bits >> (8 * p));
    }
  }
  return out;
}

// The codes are permuted first so that the unpacking of planes, which works within 128-bit lanes,
// leaves the floats in order.
struct LaneOrder {
  alignas(64) std::uint8_t index[64];
};

constexpr LaneOrder make_lane_order() {
  LaneOrder out{};
  for (int lane = 0; lane < 4; ++lane) {
    for (int s = 0; s < 16; ++s) {
      out.index[lane * 16 + s] = static_cast<std::uint8_t>((s / 4) * 16 + lane * 4 + s % 4);
    }
  }
  return out;
}

HWY_INLINE __m512i lookup_plane(const std::uint8_t* plane, __m512i codes, __mmask64 upper) {
  const __m512i low =
      _mm512_permutex2var_epi8(_mm512_load_si512(plane), codes, _mm512_load_si512(plane + 64));
  const __m512i high = _mm512_permutex2var_epi8(_mm512_load_si512(plane + 128), codes,
                                                _mm512_load_si512(plane + 192));
  return _mm512_mask_blend_epi8(upper, low, high);
}

HWY_INLINE void lookup256(const BytePlanes& planes, const std::uint8_t* codes, VecF out[4]) {
  static constexpr LaneOrder kOrder = make_lane_order();
  const __m512i q =
      _mm512_permutexvar_epi8(_mm512_load_si512(kOrder.index), _mm512_loadu_si512(codes));
  const __mmask64 upper = _mm512_movepi8_mask(q);
  const __m512i b0 = lookup_plane(planes.byte[0], q, upper);
  const __m512i b1 = lookup_plane(planes.byte[1], q, upper);
  const __m512i b2 = lookup_plane(planes.byte[2], q, upper);
  const __m512i b3 = lookup_plane(planes.byte[3], q, upper);
  const __m512i low01 = _mm512_unpacklo_epi8(b0, b1);
  const __m512i high01 = _mm512_unpackhi_epi8(b0, b1);
  const __m512i low23 = _mm512_unpacklo_epi8(b2, b3);
  const __m512i high23 = _mm512_unpackhi_epi8(b2, b3);
  out[0] = VecF{_mm512_castsi512_ps(_mm512_unpacklo_epi16(low01, low23))};
  out[1] = VecF{_mm512_castsi512_ps(_mm512_unpackhi_epi16(low01, low23))};
  out[2] = VecF{_mm512_castsi512_ps(_mm512_unpacklo_epi16(high01, high23))};
  out[3] = VecF{_mm512_castsi512_ps(_mm512_unpackhi_epi16(high01, high23))};
}

#endif
