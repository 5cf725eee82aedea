// SPDX-License-Identifier: Apache-2.0
// Held-out split, order of epochs, packs and batches.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "support/error_of.h"
#include "text/dataset.h"

namespace nibble {
namespace {

using test::error_of;
using text::Batch;
using text::Dataset;
using text::Example;

// Examples that can be told apart: example i is i + 1 tokens of the id 1000 + i, the last a target.
Dataset numbered(std::int32_t count) {
  Dataset dataset;
  for (std::int32_t i = 0; i < count; ++i) {
    Example example;
    example.ids.assign(static_cast<std::size_t>(i) + 2, 1000 + i);
    example.is_target.assign(static_cast<std::size_t>(i) + 2, 0);
    example.is_target.back() = 1;
    dataset.examples.push_back(example);
  }
  dataset.report.rows = count + 3;
  dataset.report.usable = count;
  dataset.report.no_target = 3;
  dataset.report.format = "text";
  return dataset;
}

std::vector<std::int32_t> names(const Dataset& dataset) {
  std::vector<std::int32_t> result;
  for (const Example& example : dataset.examples) {
    result.push_back(example.ids[0]);
  }
  return result;
}

RC_GTEST_PROP(EpochOrder, IsAPermutationThatSeedAndEpochChoose, ()) {
  const auto count = *rc::gen::inRange<std::int64_t>(0, 300);
  const auto seed = *rc::gen::arbitrary<std::uint64_t>();
  const auto epoch = *rc::gen::arbitrary<std::uint32_t>();
  const auto order = text::epoch_order(count, seed, epoch);
  auto sorted = order;
  std::sort(sorted.begin(), sorted.end());
  std::vector<std::int64_t> all(static_cast<std::size_t>(count));
  std::iota(all.begin(), all.end(), 0);
  RC_ASSERT(sorted == all);
  RC_ASSERT(text::epoch_order(count, seed, epoch) == order);
  if (count >= 60) {  // equal by chance once in 60!
    RC_ASSERT(text::epoch_order(count, seed, epoch + 1) != order);
    RC_ASSERT(text::epoch_order(count, seed + 1, epoch) != order);
  }
}

TEST(EpochOrder, EveryPlaceIsEquallyLikely) {
  constexpr int kCount = 6, kTrials = 60'000;
  std::vector<std::vector<int>> seen(kCount, std::vector<int>(kCount));
  for (std::uint32_t trial = 0; trial < kTrials; ++trial) {
    const auto order = text::epoch_order(kCount, 7, trial);
    for (std::size_t place = 0; place < kCount; ++place) {
      ++seen[place][static_cast<std::size_t>(order[place])];
    }
  }
  double chi2 = 0;
  for (const auto& row : seen) {
    for (const int n : row) {
      const double expected = static_cast<double>(kTrials) / kCount;
      chi2 += (n - expected) * (n - expected) / expected;
    }
  }
  // 25 degrees of freedom: 99.999 % of fair shuffles stay below 67. One that draws j from the
  // whole range at each step reaches several hundreds.
  EXPECT_LT(chi2, 67);
}

RC_GTEST_PROP(Split, IsAPartitionInFileOrder, ()) {
  const auto count = *rc::gen::inRange(2, 60);
  const auto held = *rc::gen::inRange(0, count);
  const auto seed = *rc::gen::arbitrary<std::uint64_t>();
  const Dataset all = numbered(count);
  const auto [train, eval] = text::split_dataset(all, held, seed);
  RC_ASSERT(eval.examples.size() == static_cast<std::size_t>(held));
  const auto a = names(train), b = names(eval);
  RC_ASSERT((std::is_sorted(a.begin(), a.end()) && std::is_sorted(b.begin(), b.end())));
  std::vector<std::int32_t> merged;
  std::merge(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(merged));
  RC_ASSERT(merged == names(all));
}

TEST(Split, SharesCountsAndReports) {
  const auto [train, eval] = text::split_dataset(numbered(20), 0.25, 3);
  EXPECT_EQ(eval.examples.size(), 5U);
  EXPECT_EQ(eval.report.rows, 5);
  EXPECT_EQ(eval.report.usable, 5);
  EXPECT_EQ(eval.report.targets, 5);
  EXPECT_EQ(eval.report.format, "text");
  EXPECT_EQ(train.report.rows, 18);
  EXPECT_EQ(train.report.usable, 15);
  EXPECT_EQ(train.report.no_target, 3);
  EXPECT_EQ(train.report.tokens + eval.report.tokens, 20 * 21 / 2 + 20);
  // A small share still is one row; another seed holds out other rows.
  EXPECT_EQ(text::split_dataset(numbered(20), 0.001, 3).second.examples.size(), 1U);
  EXPECT_NE(names(text::split_dataset(numbered(40), 20, 3).second),
            names(text::split_dataset(numbered(40), 20, 4).second));
}

TEST(Split, RefusesSizesThatLeaveNothing) {
  for (const double size : {-1.0, 1.5, 20.0, 21.0, 0.99, 1e300, 1.0 / 0.0, 0.0 / 0.0}) {
    const Error error = error_of([&] { text::split_dataset(numbered(20), size, 1); });
    EXPECT_EQ(error.code(), StatusCode::kInvalidArgument) << size;
  }
}

TEST(MakeBatch, TargetsAreTheNextTokensOfTheSameSequence) {
  const Example a{{5, 6, 7}, {0, 0, 1}}, b{{8}, {0}}, c{{9, 10}, {0, 1}};
  const Batch batch = text::make_batch({&a, &b, &c});
  EXPECT_EQ(batch.ids, (std::vector<std::int32_t>{5, 6, 7, 8, 9, 10}));
  EXPECT_EQ(batch.targets, (std::vector<std::int32_t>{-1, 7, -1, -1, 10, -1}));
  EXPECT_EQ(batch.starts, (std::vector<std::int64_t>{0, 3, 4, 6}));
  EXPECT_EQ(batch.tokens(), 6);
  EXPECT_EQ(batch.target_count(), 2);
  EXPECT_EQ(text::make_batch({}).starts, std::vector<std::int64_t>{0});
}

RC_GTEST_PROP(PackOrder, KeepsTheOrderAndTheCapacityAndWastesNoPack, ()) {
  const Dataset dataset = numbered(*rc::gen::inRange(1, 40));
  const auto count = static_cast<std::int64_t>(dataset.examples.size());
  const auto capacity = *rc::gen::inRange<std::int64_t>(1, 60);
  const bool packing = *rc::gen::arbitrary<bool>();
  const auto order = text::epoch_order(count, 5, 0);
  const auto packs = text::pack_order(dataset.examples, order, packing, capacity);
  const auto size = [&](std::int64_t i) {
    return static_cast<std::int64_t>(dataset.examples[static_cast<std::size_t>(i)].ids.size());
  };
  std::vector<std::int64_t> flat, sizes;
  for (const auto& pack : packs) {
    RC_ASSERT(!pack.empty());
    flat.insert(flat.end(), pack.begin(), pack.end());
    std::int64_t sum = 0;
    for (const std::int64_t i : pack) {
      sum += size(i);
    }
    RC_ASSERT((sum <= capacity || pack.size() == 1));
    // The first of this pack did not fit into the one before.
    if (packing && !sizes.empty()) {
      RC_ASSERT(sizes.back() + size(pack[0]) > capacity);
    }
    sizes.push_back(sum);
  }
  RC_ASSERT(flat == order);
  RC_ASSERT((packing || packs.size() == order.size()));
}

}  // namespace
}  // namespace nibble
