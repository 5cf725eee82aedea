// SPDX-License-Identifier: Apache-2.0
#include "train/log.h"

#include <algorithm>
#include <set>
#include <sstream>

#include "core/status.h"
#include "formats/json.h"

namespace nibble::train {
namespace {

constexpr std::uint64_t kMaxLogBytes = 1ULL << 30;

bool has_our_keys(const formats::Json& entry) {
  static const std::set<std::string, std::less<>> kAlways{
      "current_steps", "total_steps",    "epoch",      "percentage",
      "elapsed_time",  "remaining_time", "throughput", "total_tokens"};
  static const std::set<std::string, std::less<>> kSometimes{"loss", "eval_loss", "lr",
                                                             "grad_norm"};
  std::size_t found = 0;
  for (const auto& [key, value] : entry.items()) {
    found += kAlways.count(key);
    if (kAlways.count(key) + kSometimes.count(key) == 0) {
      return false;
    }
  }
  return found == kAlways.size() && entry["current_steps"].is_number_integer() &&
         entry["total_steps"].is_number_integer();
}

}  // namespace

std::string format_duration(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::max(0.0, seconds));
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

bool TrainLog::is_of_a_beginning(std::int64_t save_steps) const {
  if (!std::filesystem::exists(path_)) {
    return true;
  }
  std::istringstream lines(os::read_file(path_, kMaxLogBytes));
  std::int64_t last = -1;
  for (std::string line; std::getline(lines, line);) {
    const auto entry = formats::Json::parse(line, nullptr, false);
    if (entry.is_discarded() && lines.eof() && line.starts_with("{\"current_steps\"")) {
      continue;  // cut short by a kill
    }
    if (!entry.is_object() || !has_our_keys(entry)) {
      return false;
    }
    const auto step = entry["current_steps"].get<std::int64_t>();
    const auto total = entry["total_steps"].get<std::int64_t>();
    const std::int64_t first_save = save_steps > 0 ? std::min(save_steps, total) : total;
    // The line of a step stands there before its checkpoint does.
    if (last < 0 ? step != 0 : step <= last || step > first_save) {
      return false;
    }
    last = step;
  }
  return true;
}

void TrainLog::rewind(std::int64_t step) {
  if (!std::filesystem::exists(path_)) {
    return;
  }
  std::istringstream lines(os::read_file(path_, kMaxLogBytes));
  std::string kept;
  for (std::string line; std::getline(lines, line);) {
    // A line cut short by a kill is dropped with the rest.
    const auto entry = formats::Json::parse(line, nullptr, false);
    const auto at = entry.is_object() ? entry.find("current_steps") : entry.end();
    if (at != entry.end() && at->is_number_integer() && at->get<std::int64_t>() <= step) {
      kept += line + "\n";
    }
  }
  os::write_file(path_, kept);
}

bool TrainLog::append(const LogEntry& entry) {
  formats::Json line{{"current_steps", entry.current_steps}, {"total_steps", entry.total_steps}};
  const auto optional = [&](const char* key, const std::optional<double>& value) {
    if (value) {
      line[key] = *value;
    }
  };
  optional("loss", entry.loss);
  optional("eval_loss", entry.eval_loss);
  optional("lr", entry.lr);
  optional("grad_norm", entry.grad_norm);
  line["epoch"] = entry.epoch;
  line["percentage"] = entry.total_steps > 0 ? 100.0 * static_cast<double>(entry.current_steps) /
                                                   static_cast<double>(entry.total_steps)
                                             : 100.0;
  line["elapsed_time"] = format_duration(entry.elapsed_seconds);
  line["remaining_time"] = format_duration(entry.remaining_seconds);
  line["throughput"] = entry.throughput;
  line["total_tokens"] = entry.total_tokens;
  try {
    os::append_line(path_, line.dump());
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace nibble::train
