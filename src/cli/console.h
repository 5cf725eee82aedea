// SPDX-License-Identifier: Apache-2.0
// How a run looks in a terminal: a live line that is rewritten in place; plain lines elsewhere.
#pragma once

#include <string>

#include "train/finetune.h"

namespace nibble::cli {

class Console final : public train::Reporter {
 public:
  Console();
  ~Console() override;
  void info(const std::string& line) override;
  void warn(const std::string& line) override;
  void progress(const train::Progress& progress) override;

 private:
  void print(const std::string& line);
  bool terminal_;
  std::size_t live_length_ = 0;  // of the live line on the screen
};

}  // namespace nibble::cli
