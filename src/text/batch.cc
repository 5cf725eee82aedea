// SPDX-License-Identifier: Apache-2.0
// What happens to examples once they are read: held-out split, order of an epoch, packs, batches.
#include <cmath>
#include <numeric>
#include <utility>

#include "core/status.h"
#include "math/philox.h"
#include "text/dataset.h"

namespace nibble::text {
namespace {

using math::RandomPurpose;
using math::RandomStream;

// Fisher-Yates. A choice among n has 64 random bits, so that none is likelier than another by more
// than n / 2^64.
std::vector<std::int64_t> permutation(std::int64_t count, const RandomStream& stream) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  for (std::uint64_t i = order.size(); i > 1; --i) {
    const std::uint64_t bits = std::uint64_t{stream.bits(2 * i)} << 32 | stream.bits(2 * i + 1);
    __extension__ using Wide = unsigned __int128;
    const auto chosen = static_cast<std::uint64_t>((static_cast<Wide>(bits) * i) >> 64);
    std::swap(order[i - 1], order[chosen]);
  }
  return order;
}

void recount(Dataset* dataset) {
  DatasetReport& report = dataset->report;
  report.usable = static_cast<std::int64_t>(dataset->examples.size());
  report.tokens = report.targets = 0;
  for (const Example& example : dataset->examples) {
    report.tokens += static_cast<std::int64_t>(example.ids.size());
    report.targets += example.targets();
  }
}

}  // namespace

std::pair<Dataset, Dataset> split_dataset(Dataset dataset, double size, std::uint64_t seed) {
  const auto count = static_cast<std::int64_t>(dataset.examples.size());
  if (!std::isfinite(size) || size < 0 || (size >= 1 && size != std::floor(size))) {
    fail(StatusCode::kInvalidArgument, "validation size {} is neither a share below 1 nor a count",
         size);
  }
  // A share that is asked for is at least one row.
  const double held =
      size >= 1 || size == 0 ? size : std::max(1.0, std::round(size * static_cast<double>(count)));
  if (held >= static_cast<double>(count)) {
    fail(StatusCode::kInvalidArgument,
         "validation size {} holds out {} of {} rows: none would be left to train on", size, held,
         count);
  }
  const RandomStream stream{seed, 0, 0, RandomPurpose::kSplit};
  const std::vector<std::int64_t> order = permutation(count, stream);
  std::vector<bool> is_held(dataset.examples.size());
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(held); ++i) {
    is_held[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = true;
  }
  std::pair<Dataset, Dataset> parts;
  for (std::size_t i = 0; i < dataset.examples.size(); ++i) {
    (is_held[i] ? parts.second : parts.first).examples.push_back(std::move(dataset.examples[i]));
  }
  // What was found in the file stays with the first part, less the rows that moved.
  parts.first.report = dataset.report;
  parts.first.report.rows -= static_cast<std::int64_t>(held);
  parts.second.report.rows = static_cast<std::int64_t>(held);
  parts.second.report.format = dataset.report.format;
  recount(&parts.first);
  recount(&parts.second);
  return parts;
}

std::int64_t Batch::target_count() const {
  std::int64_t count = 0;
  for (const std::int32_t target : targets) {
    count += target >= 0 ? 1 : 0;
  }
  return count;
}

Batch make_batch(const std::vector<const Example*>& examples) {
  Batch batch;
  batch.starts.push_back(0);
  for (const Example* example : examples) {
    const std::size_t size = example->ids.size();
    batch.ids.insert(batch.ids.end(), example->ids.begin(), example->ids.end());
    for (std::size_t i = 0; i < size; ++i) {
      const bool target = i + 1 < size && example->is_target[i + 1] != 0;
      batch.targets.push_back(target ? example->ids[i + 1] : -1);
    }
    batch.starts.push_back(batch.tokens());
  }
  return batch;
}

std::vector<std::int64_t> epoch_order(std::int64_t count, std::uint64_t seed, std::uint32_t epoch) {
  if (count < 0) {
    fail(StatusCode::kInvalidArgument, "an epoch of {} rows", count);
  }
  return permutation(count, RandomStream{seed, 0, epoch, RandomPurpose::kShuffle});
}

std::vector<std::vector<std::int64_t>> pack_order(const std::vector<Example>& examples,
                                                  const std::vector<std::int64_t>& order,
                                                  bool packing, std::int64_t capacity) {
  std::vector<std::vector<std::int64_t>> packs;
  std::int64_t used = 0;
  for (const std::int64_t index : order) {
    const auto size =
        static_cast<std::int64_t>(examples.at(static_cast<std::size_t>(index)).ids.size());
    if (!packing || packs.empty() || used + size > capacity) {
      packs.emplace_back();
      used = 0;
    }
    packs.back().push_back(index);
    used += size;
  }
  return packs;
}

}  // namespace nibble::text
