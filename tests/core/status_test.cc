// SPDX-License-Identifier: Apache-2.0
#include "core/status.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(Status, FailThrowsCodeAndMessage) {
  try {
    fail(StatusCode::kCorrupt, "{}: key '{}' at offset {}", "f", "k", 7);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), StatusCode::kCorrupt);
    EXPECT_STREQ(error.what(), "f: key 'k' at offset 7");
  }
}

// Programs compiled against an older nibble.h hold these numbers.
TEST(Status, CodesArePinned) {
  EXPECT_EQ(static_cast<int>(StatusCode::kOk), 0);
  EXPECT_EQ(static_cast<int>(StatusCode::kInvalidArgument), -10);
  EXPECT_EQ(static_cast<int>(StatusCode::kWrongOrder), -20);
  EXPECT_EQ(static_cast<int>(StatusCode::kUnsupported), -30);
  EXPECT_EQ(static_cast<int>(StatusCode::kOutOfMemory), -40);
  EXPECT_EQ(static_cast<int>(StatusCode::kIo), -50);
  EXPECT_EQ(static_cast<int>(StatusCode::kCorrupt), -60);
  EXPECT_EQ(static_cast<int>(StatusCode::kNonFinite), -70);
  EXPECT_EQ(static_cast<int>(StatusCode::kInternal), -100);
}

}  // namespace
}  // namespace nibble
