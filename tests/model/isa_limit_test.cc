// SPDX-License-Identifier: Apache-2.0
// A limit that oneDNN does not take must not pass as taken.
#include <gtest/gtest.h>

#include "backend/model_ops.h"
#include "support/error_of.h"

namespace nibble::backend {
namespace {

TEST(IsaLimit, IsRefusedAfterTheFirstUse) {
  static_cast<void>(cpu_has_bf16());  // asks oneDNN, which fixes its instruction set
  const Error error = test::error_of([] { limit_cpu_model_isa("scalar"); });
  EXPECT_EQ(error.code(), StatusCode::kWrongOrder) << error.what();
}

}  // namespace
}  // namespace nibble::backend
