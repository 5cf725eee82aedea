// SPDX-License-Identifier: Apache-2.0
// What the values of flags must be. CLI11's own validators take NaN for any number, and print a
// range of all doubles with its three hundred digits.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>

namespace nibble::cli {

// A finite number in the closed range; `what` completes "must be ...".
CLI::Validator number_between(double low, double high, const std::string& what);
CLI::Validator not_negative();
CLI::Validator positive();

// One of the names of the map, whatever its case; the flag's value is what the name stands for.
CLI::Validator choice(const std::map<std::string, std::string>& names);

}  // namespace nibble::cli
