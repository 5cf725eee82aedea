// SPDX-License-Identifier: Apache-2.0
// Process-wide settings, names, and the last error.
#include <set>
#include <thread>

#include "support/misuse.h"

namespace nibble::test {
namespace {

TEST(Settings, AreCheckedAndAskedBack) {
  const std::int32_t threads = nibble_thread_count();
  EXPECT_GE(threads, 1);
  for (const std::int32_t bad : {-1, INT32_MIN}) {
    expect_failure(nibble_set_thread_count(bad), NIBBLE_INVALID_ARGUMENT, std::to_string(bad));
  }
  EXPECT_EQ(nibble_thread_count(), threads);
  for (const char* bad : {"mmx", "AVX2", "avx2 "}) {
    expect_failure(nibble_set_isa(bad), NIBBLE_INVALID_ARGUMENT, std::string("\"") + bad + "\"");
  }
  for (const std::string& isa : usable_isas()) {
    const ScopedIsa forced(isa);
    EXPECT_EQ(nibble_isa_name(), isa);
    expect_failure(nibble_set_isa("mmx"), NIBBLE_INVALID_ARGUMENT, "mmx");
    EXPECT_EQ(nibble_isa_name(), isa) << "a refused name changed the choice";
  }
  EXPECT_STREQ(nibble_version_string(), "0.1.0");
}

TEST(Settings, StatusNames) {
  const nibble_status all[] = {NIBBLE_OK,          NIBBLE_INVALID_ARGUMENT, NIBBLE_WRONG_ORDER,
                               NIBBLE_UNSUPPORTED, NIBBLE_OUT_OF_MEMORY,    NIBBLE_IO,
                               NIBBLE_CORRUPT,     NIBBLE_NON_FINITE,       NIBBLE_INTERNAL};
  std::set<std::string> names;
  for (const nibble_status status : all) {
    const std::string name = nibble_status_name(status);
    EXPECT_EQ(name.rfind("NIBBLE_", 0), 0U) << name;
    names.insert(name);
  }
  EXPECT_EQ(names.size(), std::size(all));
  EXPECT_STREQ(nibble_status_name(NIBBLE_NON_FINITE), "NIBBLE_NON_FINITE");
  for (const nibble_status other : {1, -1, -11, INT32_MAX, INT32_MIN}) {
    EXPECT_STREQ(nibble_status_name(other), "unknown status");
  }
}

TEST(Names, OutsideTheTablesThereIsNone) {
  struct Table {
    std::int32_t (*count)();
    const char* (*name)(std::int32_t);
    std::vector<std::string> known;
  };
  const Table tables[] = {{nibble_rule_count,
                           nibble_rule_name,
                           {"adamw", "adam", "amsgrad", "lion", "sgd", "adagrad", "rmsprop",
                            "ademamix", "lamb", "adafactor", "muon"}},
                          {nibble_format_count,
                           nibble_format_name,
                           {"fp32", "bf16", "fp8", "int8", "int8_log", "int8_linear", "int4",
                            "int4_rank1", "nf4", "fp4"}},
                          {nibble_weight_format_count,
                           nibble_weight_format_name,
                           {"fp32", "bf16_master", "bf16_correction16", "bf16_correction8",
                            "bf16_stochastic", "bf16_nearest", "int8_stochastic"}}};
  for (const Table& table : tables) {
    std::set<std::string> names;
    for (std::int32_t i = 0; i < table.count(); ++i) {
      ASSERT_NE(table.name(i), nullptr);
      names.insert(table.name(i));
    }
    EXPECT_EQ(names.size(), static_cast<std::size_t>(table.count())) << "a name twice";
    for (const std::string& known : table.known) {
      EXPECT_EQ(names.count(known), 1U) << known << " of nibble.h";
    }
    for (const std::int32_t i : {-1, table.count(), INT32_MAX, INT32_MIN}) {
      EXPECT_EQ(table.name(i), nullptr);
    }
  }
}

TEST(Names, HyperParameters) {
  double value = -7;
  for (const char* rule : {"no such", "", static_cast<const char*>(nullptr)}) {
    EXPECT_EQ(nibble_rule_hyper(rule, 0, &value), nullptr);
  }
  for (const std::string& rule : rule_names()) {
    std::set<std::string> names;
    for (std::int32_t i = 0; nibble_rule_hyper(rule.c_str(), i, nullptr) != nullptr; ++i) {
      names.insert(nibble_rule_hyper(rule.c_str(), i, &value));
      EXPECT_NE(value, -7);
      value = -7;
    }
    EXPECT_EQ(names.count("learning_rate"), 1U) << rule;
    EXPECT_EQ(names.count("weight_decay"), 1U) << rule;
    const auto count = static_cast<std::int32_t>(names.size());
    for (const std::int32_t i : {-1, count, INT32_MAX, INT32_MIN}) {
      EXPECT_EQ(nibble_rule_hyper(rule.c_str(), i, &value), nullptr);
    }
  }
  EXPECT_EQ(value, -7);
}

TEST(LastError, BelongsToItsThread) {
  nibble_set_thread_count(-5);
  const std::string mine = nibble_last_error();
  std::string fresh;
  std::thread([&] {
    fresh = nibble_last_error();
    nibble_set_isa("none of these");
  }).join();
  EXPECT_EQ(fresh, "no error");
  EXPECT_EQ(nibble_last_error(), mine);
  EXPECT_EQ(nibble_set_thread_count(0), NIBBLE_OK);
  EXPECT_EQ(nibble_last_error(), mine) << "a successful call changed it";
}

TEST(LastError, IsOneLineWhateverNamesHold) {
  nibble_set_isa("two\nlines");
  EXPECT_EQ(std::string(nibble_last_error()).find('\n'), std::string::npos);
  const std::string endless(100000, 'x');
  expect_failure(nibble_set_isa(endless.c_str()), NIBBLE_INVALID_ARGUMENT, "xxxx");
  EXPECT_LT(std::strlen(nibble_last_error()), 2000U);
}

}  // namespace
}  // namespace nibble::test
