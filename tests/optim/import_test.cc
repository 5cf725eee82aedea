// SPDX-License-Identifier: Apache-2.0
// States of other libraries: decoded as they lie there by a loop of this file's own, which knows
// the layouts from the peers' documentation, and compared with what the parameter then has.
#include <cmath>

#include "support/format_bounds.h"
#include "support/misuse.h"
#include "support/tensor_case.h"

namespace nibble::test {
namespace {

// A state as it lies in another library. The map is always given as values by code.
struct Foreign {
  const char* who;
  const char* format;
  std::int64_t block;  // 0: no scales
  bool low_nibble_first = false;
  bool own_map = false;  // pass the map, which is then not the format's
  bool zero_scales = false;
};

const Foreign kForeign[] = {
    {"bitsandbytes", "int8", 256},
    {"bitsandbytes, large blocks", "int8", 2048},
    {"bitsandbytes, its map given", "int8", 256, false, true},
    {"bitsandbytes, before the first step", "int8", 256, false, false, true},
    {"torchao 8 bit", "int8", 256, false, true},
    {"torchao 4 bit", "int4", 128},
    {"torchao 4 bit, before the first step", "int4", 128, false, false, true},
    {"lpmm", "int4", 128, true},
    {"lpmm, its map given", "int4", 128, true, true},
    {"torchao fp8, one scale", "fp8", 1 << 20},
    {"torchao fp8", "fp8", 256},
    {"int8_log", "int8_log", 64},
    {"int8_linear", "int8_linear", 256},
    {"float32", "fp32", 0},
    {"bfloat16", "bf16", 0}};

struct Import {
  std::vector<std::uint8_t> codes;
  std::vector<float> scales, map, values;  // values: decoded by the loop below

  Import(const Foreign& from, std::int64_t n, bool is_signed) {
    const bool nibbles = std::string(from.format) == "int4";
    const auto size = static_cast<std::size_t>(n);
    if (from.block == 0) {
      const auto x = make_input("normal", size, 3);
      for (std::size_t i = 0; i < size; ++i) {
        const float value = is_signed ? x[i] : std::abs(x[i]);
        std::uint32_t bits = 0;
        std::memcpy(&bits, &value, 4);
        const bool half = std::string(from.format) == "bf16";
        for (int byte = half ? 2 : 0; byte < 4; ++byte) {
          codes.push_back(static_cast<std::uint8_t>(bits >> (8 * byte)));
        }
        bits = half ? bits & 0xffff0000U : bits;
        values.push_back(0);
        std::memcpy(&values.back(), &bits, 4);
      }
      return;
    }
    make_map(from, is_signed);
    codes.resize(nibbles ? (size + 1) / 2 : size);
    for (std::int64_t first = 0; first < n; first += from.block) {
      scales.push_back(from.zero_scales ? 0.0F : 0.03F * static_cast<float>(1 + first % 7));
    }
    for (std::int64_t i = 0; i < n; ++i) {
      // Every code; not fp8's NaN, nor codes below zero of an unsigned state.
      std::uint32_t code = static_cast<std::uint32_t>(i * 37 + i / 256) % (nibbles ? 16U : 256U);
      if (std::string(from.format) == "fp8" && ((code & 0x7f) == 0x7f || !is_signed)) {
        code = code % 0x7f;
      }
      code = from.zero_scales ? 0 : code;
      const bool high = (i % 2 == 0) == !from.low_nibble_first;
      auto& byte = codes[static_cast<std::size_t>(nibbles ? i / 2 : i)];
      byte = static_cast<std::uint8_t>(nibbles && high ? byte | code << 4 : byte | code);
      const double scale = scales[static_cast<std::size_t>(i / from.block)];
      values.push_back(static_cast<float>(double{map[code]} * scale));
    }
  }

  void make_map(const Foreign& from, bool is_signed) {
    map.resize(256);
    auto desc = api::make<nibble_quantize_desc>();
    desc.format = from.format, desc.is_signed = is_signed ? 1 : 0;
    api::check(nibble_format_map(&desc, map.data(), nullptr));
    for (std::size_t k = 0; from.own_map && k < map.size(); ++k) {
      map[k] *= 0.75F;  // another library's values
    }
  }

  nibble_import_desc desc(const Foreign& from, const char* state) const {
    auto out = api::make<nibble_import_desc>();
    out.state = state, out.format = from.format, out.codes = codes.data();
    out.low_nibble_first = from.low_nibble_first ? 1 : 0;
    out.scales = scales.empty() ? nullptr : scales.data();
    out.n_scales = static_cast<std::int64_t>(scales.size());
    out.map = from.own_map ? map.data() : nullptr;
    return out;
  }
};

std::vector<float> exported(const api::Optimizer& opt, const char* state, std::int64_t n) {
  std::vector<float> out(static_cast<std::size_t>(n));
  api::check(nibble_optimizer_export_state(opt.get(), 0, state, out.data()));
  return out;
}

TEST(Import, EveryLayoutIntoEveryFormat) {
  for (const Foreign& from : kForeign) {
    for (const std::string& to : state_format_names()) {
      for (const std::int64_t n : {1, 7, 255, 257, 4999}) {
        for (const bool is_signed : {true, false}) {
          const char* state = is_signed ? "exp_avg" : "exp_avg_sq";
          api::Optimizer opt(adamw_desc(to.c_str()));
          std::vector<float> weights(static_cast<std::size_t>(n));
          opt.add("w", {n}, weights.data());  // int4_rank1 of a matrix: below
          const Import import(from, n, is_signed);
          const auto desc = import.desc(from, state);
          ASSERT_EQ(nibble_optimizer_import_state(opt.get(), 0, &desc), NIBBLE_OK)
              << from.who << " into " << to << ": " << nibble_last_error();
          const auto got = exported(opt, state, n);
          const auto block = static_cast<std::size_t>(opt.info(0).block_size);
          for (std::size_t i = 0; i < got.size(); ++i) {
            const double x = import.values[i];
            const double allowed =
                format_bound(to, is_signed, x, block_top(import.values, i, block));
            ASSERT_LE(std::abs(got[i] - x), allowed) << from.who << " into " << to << " " << state
                                                     << " " << i << " of " << n << ": " << x;
            ASSERT_FALSE(!is_signed && x > 0 && got[i] <= 0) << from.who << " into " << to;
          }
        }
      }
    }
  }
}

TEST(Import, TheSameLayoutIsTakenBitForBit) {
  for (const Foreign& from : kForeign) {
    if (from.own_map || from.low_nibble_first || from.block > 4096) {
      continue;
    }
    for (const char* state : {"exp_avg", "exp_avg_sq"}) {
      const std::int64_t n = 5001;
      nibble_optimizer_desc desc = adamw_desc(from.format);
      desc.block_size = from.block;
      api::Optimizer opt(desc);
      std::vector<float> weights(5001);
      opt.add("w", {n}, weights.data());
      const Import import(from, n, state == std::string("exp_avg"));
      for (const bool with_map : {false, true}) {
        auto given = import.desc(from, state);
        given.map = with_map && from.block > 0 ? import.map.data() : nullptr;
        given.low_nibble_first = with_map && std::string(from.format) != "int4" ? 1 : 0;
        given.block_size = with_map ? from.block : 0;
        ASSERT_EQ(nibble_optimizer_import_state(opt.get(), 0, &given), NIBBLE_OK)
            << from.who << ": " << nibble_last_error();
        bool found = false;
        for (std::int64_t s = 0; s < opt.info(0).n_states; ++s) {
          const nibble_state_info info = opt.state(0, s);
          const std::string name = info.name;
          if (name == state) {
            found = true;
            ASSERT_EQ(info.bytes, import.codes.size());
            EXPECT_EQ(std::memcmp(info.data, import.codes.data(), info.bytes), 0) << from.who;
          } else if (name == std::string(state) + ".scale") {
            ASSERT_EQ(info.bytes, import.scales.size() * 4);
            EXPECT_EQ(std::memcmp(info.data, import.scales.data(), info.bytes), 0) << from.who;
          }
        }
        EXPECT_TRUE(found);
      }
    }
  }
}

TEST(Import, IntoRank1Scales) {
  const std::int64_t rows = 13;
  const std::int64_t columns = 21;
  for (const Foreign& from : kForeign) {
    api::Optimizer opt(adamw_desc("int4_rank1"));
    std::vector<float> weights(13 * 21);
    opt.add("w", {rows, columns}, weights.data());
    const Import import(from, rows * columns, false);
    const auto desc = import.desc(from, "exp_avg_sq");
    ASSERT_EQ(nibble_optimizer_import_state(opt.get(), 0, &desc), NIBBLE_OK) << from.who;
    const auto got = exported(opt, "exp_avg_sq", rows * columns);
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double x = import.values[i];
      ASSERT_LE(std::abs(got[i] - x),
                format_bound("int4", false, x, rank1_top(import.values, i, 21)))
          << from.who;
    }
  }
}

// bitsandbytes and torchao begin with codes 0, which are -1 on the signed map, and scales 0: the
// state is zero, not minus zero times something, in whatever format.
TEST(Import, WhatWasNeverStepped) {
  for (const std::string& to : state_format_names()) {
    api::Optimizer opt(adamw_desc(to.c_str()));
    std::vector<float> weights(300);
    opt.add("w", {300}, weights.data());
    const Import import(kForeign[3], 300, true);
    const auto desc = import.desc(kForeign[3], "exp_avg");
    api::check(nibble_optimizer_import_state(opt.get(), 0, &desc));
    for (const float x : exported(opt, "exp_avg", 300)) {
      ASSERT_EQ(x, 0.0F) << to;
    }
  }
}

}  // namespace
}  // namespace nibble::test
