// SPDX-License-Identifier: Apache-2.0
// A YAML file of settings (flat: name: value), as --config takes it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cli/command.h"

namespace nibble::cli {

class YamlSettings {
 public:
  YamlSettings() = default;
  // Reads the file as settings of `command`, without those that `arguments` already give: the
  // command line overrides the file. Unknown names, and two names of one setting, are errors that
  // name the file and line.
  YamlSettings(std::string path, const CLI::App& command,
               const std::vector<std::string>& arguments);

  // As arguments of the command.
  const std::vector<std::string>& arguments() const { return arguments_; }

  // A message about a flag, with file and line put before it if that flag's value came from here.
  std::string located(const std::string& message) const;

 private:
  void read(const CLI::App& command, const std::vector<std::string>& given);

  std::string path_;
  const CLI::App* command_ = nullptr;
  std::vector<std::string> arguments_;
  std::map<const CLI::Option*, int> lines_;  // of every setting that is used
};

}  // namespace nibble::cli
