// SPDX-License-Identifier: Apache-2.0
// Generation keeps keys and values: whatever way a text is cut into appends, the logits are those
// of the whole text at once, and those of the decoder in double.
#include <gtest/gtest.h>

#include "core/status.h"
#include "model/tiny_run.h"

namespace nibble::test {
namespace {

TinyShape shape() {
  TinyShape s;
  s.heads = 6;
  s.kv_heads = 2;
  s.head_dim = 16;
  s.vocabulary = 193;
  s.type = GgmlType::kQ8_0;
  return s;
}

double apart(const std::vector<float>& got, const std::vector<double>& want) {
  double worst = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    worst = std::max(worst, std::fabs(static_cast<double>(got[i]) - want[i]));
  }
  return got.size() == want.size() ? worst : INFINITY;
}

TEST(Session, AnyCutGivesTheLogitsOfTheWhole) {
  TinyRun run(shape());
  const Batch batch = random_batch({150}, 193, 0);
  const ReferenceAdapter adapter = reference_of(*run.adapter);
  const Rows want = Reference(run.tiny, &adapter).logits(batch.ids);
  const std::vector<float> whole = run.llama->logits(batch.ids, run.adapter.get());
  for (std::size_t t = 0; t < want.size(); ++t) {
    const std::vector<float> row(whole.begin() + static_cast<std::int64_t>(t) * 193,
                                 whole.begin() + static_cast<std::int64_t>(t + 1) * 193);
    ASSERT_LT(apart(row, want[t]), 1e-4) << t;
  }
  for (const std::vector<std::size_t>& cuts : std::vector<std::vector<std::size_t>>{
           {150}, {149, 1}, {1, 1, 1, 147}, {64, 1, 64, 21}, {63, 2, 32, 33, 20}, {100, 50}}) {
    const auto session = run.llama->start_session(run.adapter.get(), 150);
    std::size_t at = 0;
    for (const std::size_t n : cuts) {
      const auto& logits = session->append(std::span(batch.ids).subspan(at, n));
      at += n;
      EXPECT_LT(apart(logits, want[at - 1]), 1e-4) << at;
      EXPECT_EQ(session->position(), static_cast<std::int64_t>(at));
    }
  }
}

TEST(Session, TwoSessionsAndPassesBetweenDoNotDisturb) {
  TinyRun run(shape());
  const Batch batch = random_batch({20, 33}, 193, 0);
  const Batch first = batch.sequence(0), second = batch.sequence(1);
  const Rows want_first = Reference(run.tiny, nullptr).logits(first.ids);
  const Rows want_second = Reference(run.tiny, nullptr).logits(second.ids);
  const auto a = run.llama->start_session(nullptr, 20), b = run.llama->start_session(nullptr, 40);
  a->append(std::span(first.ids).subspan(0, 7));
  b->append(std::span(second.ids).subspan(0, 30));
  run.llama->loss_and_grad(batch.view(), *run.adapter, {1, 0, 0});
  for (std::size_t i = 7; i < 20; ++i) {
    EXPECT_LT(apart(a->append(std::span(first.ids).subspan(i, 1)), want_first[i]), 1e-4);
  }
  EXPECT_LT(apart(b->append(std::span(second.ids).subspan(30, 3)), want_second[32]), 1e-4);
}

TEST(Session, PastTheCapacityIsRefusedAndHarmless) {
  TinyRun run(shape());
  const Batch batch = random_batch({12}, 193, 0);
  const auto session = run.llama->start_session(nullptr, 10);
  session->append(std::span(batch.ids).subspan(0, 8));
  try {
    session->append(std::span(batch.ids).subspan(8, 3));
    FAIL() << "11 tokens in a session of 10";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kInvalidArgument);
  }
  const Rows want = Reference(run.tiny, nullptr).logits(std::span(batch.ids).subspan(0, 10));
  EXPECT_LT(apart(session->append(std::span(batch.ids).subspan(8, 2)), want[9]), 1e-4);
  EXPECT_THROW(session->append({}), Error);
  EXPECT_THROW(run.llama->start_session(nullptr, 513), Error);  // the model's context is 512
}

}  // namespace
}  // namespace nibble::test
