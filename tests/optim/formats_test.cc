// SPDX-License-Identifier: Apache-2.0
// Properties of every format that quantises blocks, on every instruction set.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "support/capi.h"
#include "support/inputs.h"

namespace nibble::test {
namespace {

struct FormatCase {
  std::string name;
  bool is_signed;
  bool nibbles;
  std::int64_t block;
};

nibble_quantize_desc desc_of(const FormatCase& c, std::int64_t block = 0,
                             const char* mode = "default") {
  auto desc = api::make<nibble_quantize_desc>();
  desc.format = c.name.c_str();
  desc.is_signed = c.is_signed ? 1 : 0;
  desc.mode = mode;
  desc.block_size = block;
  return desc;
}

std::vector<FormatCase> cases() {
  std::vector<FormatCase> out;
  for (std::int32_t i = 0; i < nibble_format_count(); ++i) {
    for (const bool is_signed : {true, false}) {
      FormatCase c{nibble_format_name(i), is_signed, false, 0};
      const nibble_quantize_desc desc = desc_of(c);
      std::uint64_t bytes = 0;
      std::int64_t scales = 0;
      if (nibble_quantized_size(&desc, 4096, &bytes, &scales) == NIBBLE_OK) {
        c.nibbles = bytes == 2048;
        c.block = 4096 / scales;
        out.push_back(c);
      }
    }
  }
  return out;
}

std::vector<float> map_of(const FormatCase& c) {
  std::vector<float> map(256);
  std::int64_t count = 0;
  const nibble_quantize_desc desc = desc_of(c);
  EXPECT_EQ(nibble_format_map(&desc, map.data(), &count), NIBBLE_OK);
  map.resize(static_cast<std::size_t>(count));
  return map;
}

struct Quantised {
  std::vector<std::uint8_t> codes;
  std::vector<float> scales, back;
};

Quantised round_trip(const nibble_quantize_desc& desc, const std::vector<float>& x) {
  const auto n = static_cast<std::int64_t>(x.size());
  std::uint64_t bytes = 0;
  std::int64_t scales = 0;
  EXPECT_EQ(nibble_quantized_size(&desc, n, &bytes, &scales), NIBBLE_OK);
  Quantised out;
  out.codes.assign(bytes + 1, 0xA5);
  out.scales.assign(static_cast<std::size_t>(scales) + 1, -7.0F);
  out.back.assign(x.size() + 1, -7.0F);
  EXPECT_EQ(nibble_quantize(&desc, x.data(), n, out.codes.data(), out.scales.data()), NIBBLE_OK);
  EXPECT_EQ(nibble_dequantize(&desc, out.codes.data(), out.scales.data(), n, out.back.data()),
            NIBBLE_OK);
  EXPECT_EQ(out.codes.back(), 0xA5) << "wrote beyond the codes";
  EXPECT_EQ(out.scales.back(), -7.0F) << "wrote beyond the scales";
  EXPECT_EQ(out.back.back(), -7.0F) << "wrote beyond the values";
  out.codes.pop_back();
  out.scales.pop_back();
  out.back.pop_back();
  return out;
}

TEST(Formats, ThereAreAsManyAsPromised) {
  std::set<std::string> names;
  for (const FormatCase& c : cases()) {
    names.insert(c.name);
  }
  EXPECT_EQ(names, (std::set<std::string>{"fp4", "fp8", "int4", "int4_rank1", "int8", "int8_linear",
                                          "int8_log", "nf4"}));
}

// fp8 has a second zero and NaN, fp4 a second zero, int8_linear one code to spare.
TEST(Formats, CodesAreUniqueAndTheirOwnNearest) {
  for (const FormatCase& c : cases()) {
    const auto map = map_of(c);
    const std::set<float> distinct(map.begin(), map.end());
    if (c.name != "fp8" && c.name != "fp4" && c.name != "int8_linear") {
      EXPECT_EQ(distinct.size(), map.size()) << c.name;
    }
    for (const float value : distinct) {
      if (std::isnan(value) || (!c.is_signed && (value < 0 || std::signbit(value)))) {
        continue;
      }
      const float top = *std::max_element(map.begin(), map.end(), [](float a, float b) {
        return std::isnan(a) || (!std::isnan(b) && a < b);
      });
      const Quantised q = round_trip(desc_of(c), {top, value});
      EXPECT_EQ(q.back[0], top) << c.name;
      EXPECT_EQ(q.back[1], value) << c.name;
    }
  }
}

TEST(Formats, OrderIsKept) {
  for (const FormatCase& c : cases()) {
    std::vector<float> x;
    for (int i = -500; i <= 500; ++i) {
      const auto sign = static_cast<float>(i > 0) - static_cast<float>(i < 0);
      const float size = std::pow(10.0F, (static_cast<float>(std::abs(i)) - 500.0F) / 60.0F);
      if (c.is_signed || i >= 0) {
        x.push_back(i == 0 ? 0.0F : sign * size);
      }
    }
    x.resize(x.size() - 1);
    x.push_back(1.0F);
    const Quantised q = round_trip(desc_of(c, 4096), x);
    for (std::size_t i = 1; i < x.size(); ++i) {
      ASSERT_LE(q.back[i - 1], q.back[i]) << c.name << " " << x[i];
    }
  }
}

// Nothing is off by more than half the gap between the map's values around it (in the default mode
// also where a positive value must not become 0: then by less than the smallest value).
TEST(Formats, ErrorIsBoundedForEveryElement) {
  for (const std::string& isa : usable_isas()) {
    const ScopedIsa forced(isa);
    for (const FormatCase& c : cases()) {
      auto map = map_of(c);
      map.erase(std::remove_if(map.begin(), map.end(), [](float v) { return std::isnan(v); }),
                map.end());
      std::sort(map.begin(), map.end());
      for (const char* input : kInputNames) {
        for (std::size_t n = 1; n <= 257; ++n) {
          auto x = make_input(input, n, n);
          for (float& v : x) {
            v = c.is_signed ? v : std::abs(v);
          }
          const Quantised q = round_trip(desc_of(c, 64), x);
          for (std::size_t i = 0; i < n; ++i) {
            const double scale = q.scales[i / 64];
            ASSERT_FALSE(!std::isfinite(q.back[i])) << c.name << " " << input;
            ASSERT_GE(double{q.back[i]} * x[i], 0.0) << c.name << " " << input;
            if (scale < 1e-37) {
              continue;  // denormal blocks lose all but the scale
            }
            const double s = x[i] / scale;
            auto above = std::lower_bound(map.begin(), map.end(), static_cast<float>(s));
            above = above == map.end() ? map.end() - 1 : above;
            const auto below = above == map.begin() ? above : above - 1;
            const double gap = std::max(double{*above} - *below, std::abs(s - *above) * 2);
            const bool guarded =
                !c.is_signed && s > 0 && s < *std::upper_bound(map.begin(), map.end(), 0.0F);
            const double bound =
                guarded ? *std::upper_bound(map.begin(), map.end(), 0.0F) : gap / 2;
            ASSERT_LE(std::abs(double{q.back[i]} / scale - s), bound * 1.001 + 1e-6 * std::abs(s))
                << isa << " " << c.name << " " << input << " " << i << " x " << x[i];
          }
        }
      }
    }
  }
}

TEST(Formats, ZerosStayZeroAndPositiveSecondMomentsPositive) {
  for (const FormatCase& c : cases()) {
    for (const std::vector<float>& x :
         {std::vector<float>(300, 0.0F), std::vector<float>(300, -0.0F)}) {
      for (const float v : round_trip(desc_of(c), x).back) {
        EXPECT_EQ(v, 0.0F) << c.name;
      }
    }
    if (c.is_signed || c.name == "nf4" || c.name == "fp4") {
      continue;  // those two are no state formats, and signed either way
    }
    const Quantised q = round_trip(desc_of(c), {1.0F, 1e-30F, 1e-7F, 1e-45F, 0.0F});
    EXPECT_GT(q.back[1], 0.0F) << c.name;
    EXPECT_GT(q.back[2], 0.0F) << c.name;
    EXPECT_GT(q.back[3], 0.0F) << c.name;
    const bool keeps_zero = c.name != "int4" && c.name != "int4_rank1";
    EXPECT_EQ(q.back[4] == 0.0F, keeps_zero) << c.name;
  }
}

TEST(Formats, BadElementsDoNotPoisonTheirBlock) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const FormatCase& c : cases()) {
    const Quantised q = round_trip(desc_of(c), {inf, std::nanf(""), 3e38F, 0.0F});
    for (const float v : q.back) {
      EXPECT_TRUE(std::isfinite(v)) << c.name;
    }
    EXPECT_GT(q.back[0], 1e38F) << c.name;
    // The infinity is the block's largest float, not an element to be left out of the scale.
    const float bad = c.is_signed ? -inf : inf;
    EXPECT_GT(std::abs(round_trip(desc_of(c), {bad, 1.0F, std::nanf("")}).back[0]), 1e38F)
        << c.name;
  }
}

// Below a scale of 1e-38 the block is divided by 1e-38 (src/math/README.md, 5): no infinities, and
// codes by that rule.
TEST(Formats, DenormalBlocksAreMeasuredByTheSmallestScale) {
  for (const std::string& isa : usable_isas()) {
    const ScopedIsa forced(isa);
    const FormatCase c{"int8", true, false, 256};
    const auto map = map_of(c);
    for (int k = 1; k < 100; ++k) {
      const float x = static_cast<float>(k) * 1e-40F;
      const double s = double{x} / 1e-38;
      std::size_t best = 0;
      double first = 9, second = 9;  // the two smallest distances
      for (std::size_t j = 0; j < map.size(); ++j) {
        const double d = std::abs(map[j] - s);
        second = std::min(second, std::max(d, first));
        best = d < first ? j : best;
        first = std::min(first, d);
      }
      if (second - first > 1e-5) {  // else a tie to the roundings
        EXPECT_EQ(round_trip(desc_of(c, 0, "bnb"), {x}).codes[0], best) << isa << " " << k;
      }
    }
  }
}

// The peers' modes, from their own descriptions (optimizers.md 1.1 to 1.2), by exhaustive search.
TEST(Formats, PeersTies) {
  for (const bool is_signed : {true, false}) {
    const FormatCase c{"int8", is_signed, false, 256};
    const auto map = map_of(c);
    for (std::size_t k = 0; k + 1 < 256; ++k) {
      const float middle = (map[k] + map[k + 1]) * 0.5F;
      const std::vector<float> x = {1.0F, middle};
      EXPECT_EQ(round_trip(desc_of(c, 0, "bnb"), x).codes[1], k);
      EXPECT_EQ(round_trip(desc_of(c, 0, "torchao"), x).codes[1], k + 1);
      std::size_t even = k + (k & 1U);
      const bool other_sign = std::signbit(map[even]) != std::signbit(middle);
      if (is_signed && other_sign) {
        even += middle > 0 ? 1 : -1;
      }
      EXPECT_EQ(round_trip(desc_of(c, 0, "bnb-cuda"), x).codes[1], even) << k;
    }
  }
  const FormatCase c{"int8", true, false, 256};
  EXPECT_EQ(round_trip(desc_of(c, 0, "bnb-cuda"), {1.0F, -1e-9F, 1e-9F, -0.0F}).codes,
            (std::vector<std::uint8_t>{255, 126, 127, 126}));
  // Where codes are no ranks, the sign's correction is still one of values.
  for (const char* format : {"fp8", "fp4", "nf4", "int4"}) {
    const FormatCase other{format, true, false, 64};
    const Quantised q = round_trip(desc_of(other, 0, "bnb-cuda"), {1.0F, -1e-9F, 0.5F, -0.5F});
    EXPECT_EQ(q.back[0], 1.0F) << format;
    EXPECT_TRUE(q.back[1] <= 0.0F && q.back[1] >= -0.2F) << format << " " << q.back[1];
    EXPECT_NEAR(q.back[2], 0.5F, 0.13F) << format;
    EXPECT_NEAR(q.back[3], -0.5F, 0.13F) << format;
  }
  EXPECT_EQ(round_trip(desc_of(c, 0, "torchao"), {1e-14F, 0.0F}).scales[0], 1e-12F);
}

}  // namespace
}  // namespace nibble::test
