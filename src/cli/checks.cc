// SPDX-License-Identifier: Apache-2.0
#include "cli/checks.h"

#include <cmath>
#include <limits>

namespace nibble::cli {

CLI::Validator number_between(double low, double high, const std::string& what) {
  const auto check = [low, high, what](std::string& text) -> std::string {
    double value = 0;
    // What is no number at all is told by the conversion, which knows the type.
    if (!CLI::detail::lexical_cast(text, value) ||
        (std::isfinite(value) && value >= low && value <= high)) {
      return "";
    }
    return "must be " + what + ", not " + text;
  };
  return CLI::Validator(check, "");
}

CLI::Validator not_negative() {
  return number_between(0, std::numeric_limits<double>::max(), "a number that is not negative");
}

CLI::Validator positive() {
  return number_between(std::numeric_limits<double>::denorm_min(),
                        std::numeric_limits<double>::max(), "a positive number");
}

CLI::Validator choice(const std::map<std::string, std::string>& names) {
  const auto pick = [names](std::string& text) -> std::string {
    const auto found = names.find(CLI::detail::to_lower(text));
    if (found != names.end()) {
      text = found->second;
      return "";
    }
    std::string list;
    for (const auto& [name, meaning] : names) {
      list += (list.empty() ? "" : ", ") + name;
    }
    return "must be one of " + list + ", not " + text;
  };
  return CLI::Validator(pick, "");
}

}  // namespace nibble::cli
