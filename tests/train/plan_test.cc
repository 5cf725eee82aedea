// SPDX-License-Identifier: Apache-2.0
// Learning rates, the order of the data, and the log.
#include <gtest/gtest.h>

#include <map>
#include <numbers>

#include "formats/json.h"
#include "support/paths.h"
#include "train/log.h"
#include "train/schedule.h"
#include "train/step_plan.h"

namespace nibble::train {
namespace {

// Values of transformers' get_cosine_schedule_with_warmup and get_linear_schedule_with_warmup, by
// their definition.
TEST(Schedule, FollowsHuggingFace) {
  EXPECT_EQ(learning_rate_factor("cosine", 0, 4, 20), 0.0);
  EXPECT_EQ(learning_rate_factor("cosine", 1, 4, 20), 0.25);
  EXPECT_EQ(learning_rate_factor("cosine", 4, 4, 20), 1.0);
  EXPECT_NEAR(learning_rate_factor("cosine", 8, 4, 20), 0.5 * (1 + std::numbers::sqrt2 / 2), 1e-15);
  EXPECT_NEAR(learning_rate_factor("cosine", 12, 4, 20), 0.5, 1e-15);
  EXPECT_NEAR(learning_rate_factor("linear", 16, 4, 20), 0.25, 1e-15);
  EXPECT_EQ(learning_rate_factor("constant", 19, 4, 20), 1.0);
  EXPECT_EQ(warmup_steps(0.03, -1, 101), 4);  // 3.03, rounded up
  EXPECT_EQ(warmup_steps(0.03, 0, 101), 0);
}

std::vector<text::Example> examples(std::int64_t count) {
  std::vector<text::Example> list(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < list.size(); ++i) {
    list[i].ids.assign(2 + i % 9, 1);
    list[i].is_target.assign(list[i].ids.size(), 1);
  }
  return list;
}

TEST(StepPlan, EveryExampleOnceAnEpoch) {
  const auto data = examples(101);
  for (const bool packing : {false, true}) {
    FinetuneOptions options;
    options.packing = packing;
    options.cutoff_len = 16;
    options.micro_batch_size = 2;
    options.accumulation = 3;
    options.epochs = 2;
    StepPlan plan(data, options);
    std::map<std::int64_t, int> seen;
    std::uint32_t micro_step = 0;
    for (std::int64_t number = 0; number < plan.total_steps(); ++number) {
      const Step step = plan.step(number);
      EXPECT_EQ(step.first_micro_step, micro_step);
      micro_step += static_cast<std::uint32_t>(step.micro_batches.size());
      for (const auto& batch : step.micro_batches) {
        std::size_t tokens = 0;
        for (const std::int64_t example : batch) {
          ++seen[example];
          tokens += data[static_cast<std::size_t>(example)].ids.size();
        }
        EXPECT_LE(tokens, 2U * 16U);
      }
    }
    ASSERT_EQ(seen.size(), data.size());
    for (const auto& [example, times] : seen) {
      EXPECT_EQ(times, 2) << example;
    }
    EXPECT_EQ(plan.step(plan.total_steps() - 1).epoch, 2.0);
  }
}

// A resumed run asks for the steps from the middle on.
TEST(StepPlan, StepsDoNotDependOnWhatWasAskedBefore) {
  const auto data = examples(40);
  FinetuneOptions options;
  options.cutoff_len = 12;
  options.max_steps = 17;
  options.accumulation = 2;
  StepPlan in_order(data, options);
  std::vector<Step> steps;
  for (std::int64_t number = 0; number < 17; ++number) {
    steps.push_back(in_order.step(number));
  }
  for (const std::int64_t number : {16, 3, 0, 9}) {
    StepPlan fresh(data, options);
    const Step step = fresh.step(number);
    EXPECT_EQ(step.micro_batches, steps[static_cast<std::size_t>(number)].micro_batches);
    EXPECT_EQ(step.first_micro_step, steps[static_cast<std::size_t>(number)].first_micro_step);
  }
}

TEST(TrainLog, KnowsABeginningOfItsOwn) {
  const test::TemporaryDirectory directory;
  const auto path = directory.path() / "log.jsonl";
  TrainLog log(path);
  EXPECT_TRUE(log.is_of_a_beginning(10));  // there is none
  const auto add = [&](std::int64_t step) {
    LogEntry entry;
    entry.current_steps = step;
    entry.total_steps = 30;
    EXPECT_TRUE(log.append(entry));
  };
  add(0);
  add(5);
  add(10);
  EXPECT_TRUE(log.is_of_a_beginning(10));
  EXPECT_TRUE(log.is_of_a_beginning(0));  // the first checkpoint is that of the end
  EXPECT_FALSE(log.is_of_a_beginning(9));
  add(10);
  EXPECT_FALSE(log.is_of_a_beginning(10));  // a step twice
  std::filesystem::remove(path);
  add(5);
  EXPECT_FALSE(log.is_of_a_beginning(10));  // does not begin at 0
  std::filesystem::remove(path);
  add(0);
  os::append_line(path, R"({"current_steps": 5, "epoch": 1.0})");
  EXPECT_FALSE(log.is_of_a_beginning(10));
  os::write_file(path, "my notes\n");
  EXPECT_FALSE(log.is_of_a_beginning(10));
}

TEST(TrainLog, RewindDropsLaterAndBrokenLines) {
  const test::TemporaryDirectory directory;
  const auto path = directory.path() / "log.jsonl";
  TrainLog log(path);
  for (std::int64_t step : {0, 10, 20}) {
    LogEntry entry;
    entry.current_steps = step;
    entry.total_steps = 20;
    entry.eval_loss = 1.5;
    EXPECT_TRUE(log.append(entry));
  }
  os::append_line(path, "{\"current_steps\": 2");  // cut short by a kill
  log.rewind(10);
  const std::string content = os::read_file(path, 1 << 20);
  EXPECT_EQ(std::count(content.begin(), content.end(), '\n'), 2);
  const auto last = formats::Json::parse(content.substr(content.find('\n') + 1));
  EXPECT_EQ(last["current_steps"], 10);
  EXPECT_EQ(last["percentage"], 50.0);
  EXPECT_EQ(last["eval_loss"], 1.5);
  EXPECT_FALSE(last.contains("loss"));
}

}  // namespace
}  // namespace nibble::train
