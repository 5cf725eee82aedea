// SPDX-License-Identifier: Apache-2.0
// No memory while states are imported, exported, saved and loaded; and in the tensor functions.
#include "support/failing_allocations.h"
#include "support/paths.h"

namespace nibble::test {
namespace {

TEST_F(OutOfMemory, ImportAndExport) {
  const auto values = make_input("normal", kCount, 9);
  for (const std::string& format : state_format_names()) {
    TensorCase setup;
    setup.format = format, setup.rows = 13;
    CaseRun run = make_run(setup);
    nibble_optimizer* opt = run.optimizer().get();
    auto desc = api::make<nibble_import_desc>();
    desc.state = "exp_avg", desc.format = "fp32", desc.codes = values.data();
    const auto before = run.bytes();
    const int failures =
        fail_each_allocation([&] { return nibble_optimizer_import_state(opt, 0, &desc); },
                             [&] { ASSERT_TRUE(run.bytes() == before) << format; });
    EXPECT_EQ(failures > 0, format != "fp32") << format << ": only conversions need memory";
    EXPECT_FALSE(run.bytes() == before);
    std::vector<float> out(kCount);
    EXPECT_EQ(allocations_of(
                  [&] { return nibble_optimizer_export_state(opt, 0, "exp_avg", out.data()); }),
              0);
  }
}

TEST_F(OutOfMemory, SaveAndLoad) {
  for (const char* rule : {"adamw", "adafactor"}) {
    const TemporaryDirectory directory;
    const std::string path = (directory.path() / "states").string();
    TensorCase setup;
    setup.rule = rule, setup.rows = 13, setup.weights = "bf16_master";
    CaseRun saved = make_run(setup);
    const auto kept = saved.bytes();
    if (rule != std::string("adamw")) {  // each attempt waits for the disk
      saved.optimizer().save(path);
    } else {
      EXPECT_GT(fail_each_allocation(
                    [&] { return nibble_optimizer_save(saved.optimizer().get(), path.c_str()); },
                    [&] {
                      ASSERT_TRUE(saved.bytes() == kept);
                      ASSERT_TRUE(std::filesystem::is_empty(directory.path())) << "debris";
                    }),
                100);
    }
    for (const char* format : {"int8", "int4_rank1", "fp32"}) {
      setup.format = format;
      CaseRun run(setup, make_input("normal", kCount, 51));
      const auto before = run.bytes();
      EXPECT_GT(fail_each_allocation(
                    [&] { return nibble_optimizer_load(run.optimizer().get(), path.c_str()); },
                    [&] { ASSERT_TRUE(run.bytes() == before) << format; }),
                100);
      EXPECT_EQ(run.optimizer().step_count(), 2);
      EXPECT_FALSE(run.bytes() == before);
    }
  }
}

TEST_F(OutOfMemory, TensorFunctions) {
  const auto x = make_input("normal", 70000, 1);
  const void* tensors[] = {x.data(), x.data()};
  const std::int64_t counts[] = {70000, 5};
  double norm = -7;
  EXPECT_GT(fail_each_allocation(
                [&] { return nibble_global_norm(tensors, counts, nullptr, 2, &norm, nullptr); },
                [&] { ASSERT_EQ(norm, -7); }),
            0);
  std::vector<float> sum(70000);
  EXPECT_EQ(
      allocations_of([&] { return nibble_accumulate(sum.data(), x.data(), "F32", 70000, 1.0); }),
      0);
}

}  // namespace
}  // namespace nibble::test
