// SPDX-License-Identifier: Apache-2.0
// The dynamic map: against the peers' tables, and as a quantiser should be.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "math/formats/int8.h"
#include "math/maps/dynamic8_lines.h"
#include "support/golden.h"

namespace nibble::math {
namespace {

const CodeMap& map_of(bool is_signed) { return Int8::map(is_signed); }

TEST(GoldenMaps, EqualThePeers) {
  const auto files = test::golden_files("maps");
  if (files.empty()) {
    GTEST_SKIP() << "no golden maps in " << test::golden_dir();
  }
  for (const auto& file : files) {
    for (const auto& tensor : file.file->tensors()) {
      const std::string& key = tensor.name;
      const bool is_signed = key == "dynamic_signed" || key == "ao_dyn8_signed";
      if (!is_signed && key != "dynamic_unsigned" && key != "ao_dyn8_unsigned") {
        std::cout << "not covered: " << file.name << " " << key << "\n";
        continue;
      }
      const auto expected = file.values<float>(key);
      ASSERT_EQ(expected.size(), 256U);
      for (std::size_t k = 0; k < 256; ++k) {
        EXPECT_EQ(map_of(is_signed).value[k], expected[k]) << file.name << " " << key << " " << k;
      }
    }
  }
}

TEST(Dynamic8, CodesAreUniqueOrderedAndTheirOwnNearest) {
  for (const bool is_signed : {true, false}) {
    const CodeMap& map = map_of(is_signed);
    const std::set<float> distinct(map.value.begin(), map.value.end());
    EXPECT_EQ(distinct.size(), 256U);
    EXPECT_EQ(map.value[static_cast<std::size_t>(map.zero)], 0.0F);
    for (std::size_t k = 0; k < 256; ++k) {
      EXPECT_EQ(nearest_code(map, map.value[k]), k);
      if (k > 0) {
        EXPECT_LT(map.value[k - 1], map.value[k]);
      }
    }
  }
}

// The nearest code by exhaustive comparison in double; ties to the lower.
TEST(Dynamic8, TiesGoDownAndTheNextFloatUp) {
  for (const bool is_signed : {true, false}) {
    const CodeMap& map = map_of(is_signed);
    for (std::size_t k = 0; k < 255; ++k) {
      const float middle = (map.value[k] + map.value[k + 1]) / 2.0F;
      EXPECT_EQ(nearest_code(map, middle), k);
      EXPECT_EQ(nearest_code(map, std::nextafter(middle, 2.0F)), k + 1);
    }
    for (int i = -4000; i <= 4000; ++i) {
      const auto x = static_cast<float>(i) / 4000.0F;
      std::size_t best = 0;
      for (std::size_t k = 1; k < 256; ++k) {
        if (std::abs(double{x} - map.value[k]) < std::abs(double{x} - map.value[best])) {
          best = k;
        }
      }
      const double error = std::abs(double{x} - map.value[nearest_code(map, x)]);
      EXPECT_LE(error, std::abs(double{x} - map.value[best]) + 6e-8) << x;
    }
  }
}

TEST(Dynamic8, NanTakesTheFirstCode) {
  EXPECT_EQ(nearest_code(kDynamic8Signed, std::nanf("")), 0);
  EXPECT_EQ(nearest_code(kDynamic8Unsigned, std::nanf("")), 0);
}

// What dynamic8_lines.h promises, at every bound inside a decade.
TEST(Dynamic8Lines, ArithmeticErrsOnlyInsideTheTieWindow) {
  for (const bool is_signed : {true, false}) {
    const CodeMap& map = map_of(is_signed);
    const Dynamic8Lines& lines = is_signed ? kLinesSigned : kLinesUnsigned;
    int inside = 0;
    for (int m = is_signed ? 0 : 1; map.zero + m < 255; ++m) {
      const float bound = map.bound[static_cast<std::size_t>(map.zero + m)];
      std::size_t decade = 0;
      while (decade < 7 && lines.threshold[decade] < bound) {
        ++decade;
      }
      if (bound == lines.threshold[decade]) {
        continue;  // between decades: an exact comparison
      }
      ++inside;
      for (const float a : {bound, std::nextafter(bound, 2.0F)}) {
        const float t = std::fma(a, lines.slope[decade], lines.offset[decade]);
        EXPECT_LT(std::abs(double{t} - (m + 0.5)), double{kTieWindow} / 2) << m;
      }
    }
    EXPECT_GT(inside, is_signed ? 115 : 240);
  }
}

}  // namespace
}  // namespace nibble::math
