// SPDX-License-Identifier: Apache-2.0
// Codes of real peers: 8-bit blocks, NF4 and FP4, and double quantisation. Which files apply is
// told by their metadata.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "support/capi.h"
#include "support/golden.h"
#include "support/golden_rng.h"

namespace nibble::test {
namespace {

void check_codes(const GoldenFile& codes, const GoldenFile& inputs, const std::string& key) {
  // <input>.b<block>.<s|u>.q
  const std::size_t b = key.find(".b");
  const std::size_t s = key.find('.', b + 1);
  auto desc = api::make<nibble_quantize_desc>();
  desc.mode = "bnb";
  desc.block_size = std::stoll(key.substr(b + 2, s - b - 2));
  desc.is_signed = key[s + 1] == 's' ? 1 : 0;
  if (!inputs.has(key.substr(0, b) + ".x")) {
    std::cout << "not covered: " << key << " (no fp32 input)\n";
    return;
  }
  const auto x = inputs.values<float>(key.substr(0, b) + ".x");
  const auto expected = codes.values<std::uint8_t>(key);
  const auto n = static_cast<std::int64_t>(x.size());
  std::vector<std::uint8_t> q(x.size());
  std::vector<float> absmax((x.size() + 31) / 32);
  ASSERT_EQ(nibble_quantize(&desc, x.data(), n, q.data(), absmax.data()), NIBBLE_OK);
  ASSERT_EQ(q.size(), expected.size());
  EXPECT_EQ(std::memcmp(q.data(), expected.data(), q.size()), 0) << key;
  const std::string stem = key.substr(0, key.size() - 1);
  if (inputs.has(stem + "absmax")) {
    const auto scales = inputs.values<float>(stem + "absmax");
    EXPECT_EQ(std::memcmp(absmax.data(), scales.data(), scales.size() * sizeof(float)), 0) << key;
  }
  if (inputs.has(stem + "q") && inputs.has(stem + "dq")) {  // a peer's own codes decode alike
    const auto peer_codes = inputs.values<std::uint8_t>(stem + "q");
    const auto dq = inputs.values<float>(stem + "dq");
    std::vector<float> out(x.size());
    ASSERT_EQ(nibble_dequantize(&desc, peer_codes.data(), absmax.data(), n, out.data()), NIBBLE_OK);
    for (std::size_t i = 0; i < out.size(); ++i) {
      ASSERT_EQ(out[i], dq[i]) << stem << "dq " << i;
    }
  }
}

TEST(GoldenQuantize8, NearestCodesAreEqual) {
  int keys = 0;
  for (const std::string& isa : usable_isas()) {
    const ScopedIsa forced(isa);
    for (const GoldenFile& file : golden_files("quantize8")) {
      if (file.text("mode") != "bnb") {
        std::cout << "codes not covered: " << file.name << " (mode " << file.text("mode") << ")\n";
        continue;
      }
      const GoldenFile inputs = open_golden(golden_dir() / file.text("inputs"));
      for (const auto& tensor : file.file->tensors()) {
        if (tensor.name.ends_with(".q")) {
          check_codes(file, inputs, tensor.name);
          ++keys;
        }
      }
    }
  }
  if (keys == 0) {
    GTEST_SKIP() << "no golden codes in " << golden_dir();
  }
  std::cout << keys << " code tensors compared\n";
}

// <input>.<nf4|fp4>.b<block>.q
void check_codes4(const GoldenFile& file, const std::string& key) {
  const std::string stem = key.substr(0, key.size() - 1);
  const std::size_t b = key.rfind(".b");
  const std::size_t t = key.rfind('.', b - 1);
  const std::string type = key.substr(t + 1, b - t - 1);
  auto desc = api::make<nibble_quantize_desc>();
  desc.format = type.c_str();
  desc.mode = "bnb";
  desc.is_signed = 1;
  desc.block_size = std::stoll(key.substr(b + 2));
  const auto x = file.values<float>(key.substr(0, t) + ".x");
  const auto expected = file.values<std::uint8_t>(key);
  const auto n = static_cast<std::int64_t>(x.size());
  std::vector<std::uint8_t> q((x.size() + 1) / 2);
  std::vector<float> absmax((x.size() + 31) / 32), back(x.size());
  ASSERT_EQ(nibble_quantize(&desc, x.data(), n, q.data(), absmax.data()), NIBBLE_OK);
  EXPECT_TRUE(q == expected) << key;
  const auto scales = file.values<float>(stem + "absmax");
  EXPECT_EQ(std::memcmp(absmax.data(), scales.data(), scales.size() * sizeof(float)), 0) << key;
  if (file.has(stem + "dq")) {
    const auto dq = file.values<float>(stem + "dq");
    ASSERT_EQ(nibble_dequantize(&desc, expected.data(), scales.data(), n, back.data()), NIBBLE_OK);
    for (std::size_t i = 0; i < back.size(); ++i) {
      ASSERT_EQ(back[i], dq[i]) << stem << "dq " << i;
    }
  }
}

TEST(GoldenQuantize4, CodesAreEqual) {
  int keys = 0;
  for (const GoldenFile& file : golden_files("quantize4")) {
    for (const auto& tensor : file.file->tensors()) {
      if (tensor.name.ends_with(".q")) {
        check_codes4(file, tensor.name);
        ++keys;
      }
    }
  }
  if (keys == 0) {
    GTEST_SKIP() << "no golden 4-bit codes in " << golden_dir();
  }
  std::cout << keys << " code tensors compared\n";
}

// normal_ih(seed, n, stream) of the golden data's README.
float golden_normal(std::uint64_t seed, std::uint64_t stream, std::uint64_t i) {
  double sum = 0;
  for (std::uint64_t k = 0; k < 4; ++k) {
    sum += golden_uniform(seed, stream * 4 + k, i);
  }
  return static_cast<float>(sum * std::sqrt(3.0) / 2.0);
}

void check_nested(const GoldenFile& file, const std::string& type) {
  const std::uint64_t seed = file.recipe.at("seed");
  const std::uint64_t size = file.recipe.at("D");
  std::vector<float> w(size * size);
  for (std::size_t i = 0; i < w.size(); ++i) {
    w[i] = golden_normal(seed, 30, i) * 0.02F;
  }
  auto four = api::make<nibble_quantize_desc>();
  four.format = type.c_str(), four.mode = "bnb", four.is_signed = 1, four.block_size = 64;
  const auto n = static_cast<std::int64_t>(w.size());
  std::vector<std::uint8_t> q(w.size() / 2);
  std::vector<float> absmax(w.size() / 64);
  ASSERT_EQ(nibble_quantize(&four, w.data(), n, q.data(), absmax.data()), NIBBLE_OK);
  EXPECT_TRUE(q == file.values<std::uint8_t>(type + ".q"));
  EXPECT_TRUE(absmax == file.values<float>(type + ".absmax_fp32"));

  // The scales again, without their mean, through the signed 8-bit map.
  double mean = 0;
  for (const float a : absmax) {
    mean += a / static_cast<double>(absmax.size());
  }
  const float offset = file.values<float>(type + ".offset")[0];
  EXPECT_NEAR(mean, offset, 1e-6 * offset);
  auto eight = api::make<nibble_quantize_desc>();
  eight.mode = "bnb", eight.is_signed = 1;
  eight.block_size = file.recipe.at("state2_blocksize");
  std::vector<float> centred = absmax;
  const auto blocks = static_cast<std::int64_t>(centred.size());
  std::vector<std::uint8_t> codes(centred.size());
  std::vector<float> scales((centred.size() + 31) / 32);
  float own_offset = 0;
  ASSERT_EQ(nibble_compress_scales(&eight, centred.data(), blocks, codes.data(), scales.data(),
                                   &own_offset),
            NIBBLE_OK);
  EXPECT_NEAR(own_offset, mean, 1e-7 * mean);
  const auto expected = file.values<std::uint8_t>(type + ".absmax_q");
  std::size_t off = 0;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const int d = std::abs(int{codes[i]} - int{expected[i]});
    EXPECT_LE(d, expected[i] > 120 && expected[i] < 134 ? 4 : 1);  // its look-up is coarse at 0
    off += d != 0 ? 1 : 0;
  }
  EXPECT_LE(static_cast<double>(off), 0.002 * static_cast<double>(codes.size()));
  const auto scales2 = file.values<float>(type + ".state2_absmax");
  for (std::size_t i = 0; i < scales2.size(); ++i) {
    EXPECT_NEAR(scales[i], scales2[i], 2e-6 * offset);  // the means differ by their rounding
  }

  // And the whole way back from the peer's codes.
  ASSERT_EQ(nibble_expand_scales(&eight, expected.data(), scales2.data(), &offset, blocks,
                                 centred.data()),
            NIBBLE_OK);
  std::vector<float> back(w.size());
  ASSERT_EQ(nibble_dequantize(&four, q.data(), centred.data(), n, back.data()), NIBBLE_OK);
  const auto rows = file.values<float>(type + ".dq_first16rows");
  for (std::size_t i = 0; i < rows.size(); ++i) {
    ASSERT_NEAR(back[i], rows[i], 1e-2 * std::abs(rows[i])) << i;
  }
}

TEST(GoldenQuantize4, DoubleQuantisation) {
  const auto files = golden_files("quantize4_double");
  if (files.empty()) {
    GTEST_SKIP() << "no golden double quantisation in " << golden_dir();
  }
  for (const GoldenFile& file : files) {
    for (const char* type : {"nf4", "fp4"}) {
      SCOPED_TRACE(file.name + " " + type);
      check_nested(file, type);
    }
  }
}

}  // namespace
}  // namespace nibble::test
