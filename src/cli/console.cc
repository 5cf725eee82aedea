// SPDX-License-Identifier: Apache-2.0
#include "cli/console.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "train/log.h"

namespace nibble::cli {

namespace {

std::size_t terminal_width() {
  winsize size{};
  const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

}  // namespace

Console::Console() : terminal_(::isatty(STDERR_FILENO) == 1) {}

Console::~Console() {
  if (live_length_ > 0) {
    std::fputc('\n', stderr);
  }
}

void Console::print(const std::string& line) {
  if (live_length_ > 0) {  // wipe the live line; the next progress draws it again
    std::fprintf(stderr, "\r%*s\r", static_cast<int>(live_length_), "");
    live_length_ = 0;
  }
  std::fprintf(stderr, "%s\n", line.c_str());
}

void Console::info(const std::string& line) { print(line); }
void Console::warn(const std::string& line) { print("warning: " + line); }

void Console::progress(const train::Progress& p) {
  const std::string eta = train::format_duration(p.remaining_seconds);
  if (!terminal_) {
    if (p.logged) {
      print(
          fmt::format("step {}/{} | loss {:.4f} | lr {:.2e} | grad norm {:.3f} | {:.0f} tokens/s "
                      "| peak {} MiB | ETA {}",
                      p.step, p.total_steps, p.loss, p.learning_rate, p.grad_norm,
                      p.tokens_per_second, p.peak_bytes >> 20, eta));
    }
    return;
  }
  // Fits 80 columns; a line that wraps could not be rewritten in place.
  std::string line = fmt::format(
      "step {}/{} | loss {:.4f} | lr {:.2e} | {:.0f} tokens/s | {} MiB | ETA {}", p.step,
      p.total_steps, p.loss, p.learning_rate, p.tokens_per_second, p.peak_bytes >> 20, eta);
  line.resize(std::min(line.size(), terminal_width()));
  const std::size_t blanks = live_length_ > line.size() ? live_length_ - line.size() : 0;
  std::fprintf(stderr, "\r%s%*s", line.c_str(), static_cast<int>(blanks), "");
  std::fflush(stderr);
  live_length_ = line.size();
}

}  // namespace nibble::cli
