// SPDX-License-Identifier: Apache-2.0
#include "cli/yaml_settings.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>

#include "core/status.h"
#include "os/file.h"

namespace nibble::cli {
namespace {

constexpr std::uint64_t kMaxYamlBytes = 1U << 20;

bool is_given(const CLI::App& command, const CLI::Option* option,
              const std::vector<std::string>& arguments) {
  return std::any_of(arguments.begin(), arguments.end(), [&](const std::string& argument) {
    const bool short_flag = argument.size() >= 2 && argument[0] == '-' && argument[1] != '-';
    return find_option(command, short_flag ? argument.substr(0, 2) : argument) == option &&
           (short_flag || is_flag_name(argument));
  });
}

// "" for null.
std::string value_of(const YAML::Node& node, const std::string& where) {
  if (node.IsScalar()) {
    return node.as<std::string>();
  }
  if (!node.IsSequence()) {
    fail(StatusCode::kInvalidArgument, "{} needs a plain value", where);
  }
  std::string value;
  for (const auto& item : node) {
    if (!item.IsScalar()) {
      fail(StatusCode::kInvalidArgument, "{} needs a list of plain values", where);
    }
    value += (value.empty() ? "" : ",") + item.as<std::string>();
  }
  return value;
}

// The first "--name" of a message that says something of a flag's value; "" if it is of other
// things and mentions a flag as a remedy only.
std::string flag_of_message(const std::string& message) {
  static const std::string kConversion = "Could not convert: ";  // CLI11's
  const std::size_t begin = message.starts_with(kConversion) ? kConversion.size() : 0;
  if (message.compare(begin, 2, "--") != 0) {
    return "";
  }
  const std::size_t end = message.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-", begin);
  return message.substr(begin, end == std::string::npos ? end : end - begin);
}

}  // namespace

YamlSettings::YamlSettings(std::string path, const CLI::App& command,
                           const std::vector<std::string>& arguments)
    : path_(std::move(path)), command_(&command) {
  try {
    read(command, arguments);
  } catch (const YAML::Exception& error) {
    fail(StatusCode::kCorrupt, "{}: {}", path_, error.what());
  }
}

void YamlSettings::read(const CLI::App& command, const std::vector<std::string>& given) {
  const YAML::Node root = YAML::Load(os::read_file(path_, kMaxYamlBytes));
  if (root.IsNull()) {
    return;  // nothing, or only comments
  }
  if (!root.IsMap()) {
    fail(StatusCode::kCorrupt, "{}: expected lines of the form \"name: value\"", path_);
  }
  std::map<const CLI::Option*, int> seen;
  for (const auto& entry : root) {
    const auto name = entry.first.as<std::string>();
    const int line = entry.first.Mark().line + 1;
    const std::string where = fmt::format("{}: line {}: \"{}\"", path_, line, name);
    const std::string flag = with_dashes("--" + name);
    const CLI::Option* option = find_option(command, flag);
    if (option == nullptr || flag == "--config" || name.find('=') != std::string::npos) {
      fail(StatusCode::kInvalidArgument, "{}: line {}: unknown setting \"{}\"", path_, line, name);
    }
    if (const auto [first, fresh] = seen.emplace(option, line); !fresh) {
      fail(StatusCode::kInvalidArgument, "{} is given already, in line {}", where, first->second);
    }
    if (entry.second.IsNull() || is_given(command, option, given)) {
      continue;
    }
    const std::string value = value_of(entry.second, where);
    arguments_.push_back(flag + "=" + (is_switch(option) ? CLI::detail::to_lower(value) : value));
    lines_[option] = line;
  }
}

std::string YamlSettings::located(const std::string& message) const {
  const std::string flag = flag_of_message(message);
  const CLI::Option* option =
      command_ == nullptr || flag.empty() ? nullptr : find_option(*command_, flag);
  const auto line = lines_.find(option);
  return line == lines_.end() ? message
                              : fmt::format("{}: line {}: {}", path_, line->second, message);
}

}  // namespace nibble::cli
