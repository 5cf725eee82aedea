// SPDX-License-Identifier: Apache-2.0
// Checks that something fails as it should: the code, and every fragment in the message.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/status.h"

namespace nibble::test {

template <class F>
void expect_error(StatusCode code, const std::vector<std::string>& fragments, F&& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << error.what();
    for (const std::string& fragment : fragments) {
      EXPECT_NE(std::string(error.what()).find(fragment), std::string::npos)
          << "no '" << fragment << "' in: " << error.what();
    }
    return;
  }
  ADD_FAILURE() << "no error";
}

}  // namespace nibble::test
