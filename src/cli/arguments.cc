// SPDX-License-Identifier: Apache-2.0
#include <nibble/nibble.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>

#include "backend/model_ops.h"
#include "cli/command.h"
#include "core/parallel.h"
#include "core/status.h"
#include "os/file.h"

namespace nibble::cli {
namespace {

constexpr std::uint64_t kMaxYamlBytes = 1U << 20;

bool is_flag_name(const std::string& argument) {
  return argument.size() > 2 && argument.starts_with("--");
}

// "--lora_rank=8" -> "--lora-rank=8"
std::string with_dashes(std::string argument) {
  const std::size_t end = std::min(argument.find('='), argument.size());
  std::replace(argument.begin(), argument.begin() + static_cast<std::ptrdiff_t>(end), '_', '-');
  return argument;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

std::string flag_of(const std::string& argument) { return argument.substr(0, argument.find('=')); }

const CLI::Option* find_option(const CLI::App& command, const std::string& argument) {
  return command.get_option_no_throw(flag_of(argument));
}

bool is_switch(const CLI::Option* option) {
  return option != nullptr && option->get_expected_min() == 0;
}

void check(nibble_status status) {
  if (status != NIBBLE_OK) {
    throw Error(static_cast<StatusCode>(status), nibble_last_error());
  }
}

}  // namespace

void MachineOptions::add_to(CLI::App& app) {
  app.add_option("--threads", threads, "threads to use (0: all that the process may use)")
      ->check(CLI::Range(0, 4096));
  app.add_option("--isa", isa, "force an instruction set: auto, scalar, avx2 or avx512");
}

void MachineOptions::apply() const {
  check(nibble_set_thread_count(threads));
  set_thread_count(threads);
  if (!isa.empty()) {
    check(nibble_set_isa(isa.c_str()));
  }
  const char* chosen = nibble_isa_name();
  if (chosen == nullptr) {
    throw Error(StatusCode::kUnsupported, nibble_last_error());
  }
  const std::string name = chosen;
  backend::limit_cpu_model_isa(name.starts_with("avx512") ? "avx512" : name);
}

CLI::App* find_command(CLI::App& app, const std::string& name) {
  for (CLI::App* command : app.get_subcommands([](CLI::App*) { return true; })) {
    if (command->check_name(name)) {
      return command;
    }
  }
  return nullptr;
}

std::vector<std::string> normalise_arguments(CLI::App& app, int argc, char** argv) {
  const CLI::App* command = &app;
  std::vector<std::string> result;
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    if (is_flag_name(argument)) {
      argument = with_dashes(argument);
    } else if (const CLI::App* sub = find_command(app, argument);
               sub != nullptr && command == &app) {
      command = sub;
    }
    const std::string value = lower(argument);
    if ((value == "true" || value == "false") && !result.empty() &&
        is_switch(find_option(*command, result.back())) &&
        result.back().find('=') == std::string::npos) {
      result.back() += "=" + value;
      continue;
    }
    result.push_back(argument);
  }
  return result;
}

namespace {

std::vector<std::string> settings_of(const std::string& path, CLI::App& command,
                                     const std::vector<std::string>& arguments) {
  std::vector<std::string> result;
  const YAML::Node root = YAML::Load(os::read_file(path, kMaxYamlBytes));
  if (!root.IsMap()) {
    fail(StatusCode::kCorrupt, "{}: expected lines of the form \"name: value\"", path);
  }
  for (const auto& entry : root) {
    const auto name = entry.first.as<std::string>();
    const int line = entry.first.Mark().line + 1;
    const std::string flag = with_dashes("--" + name);
    const CLI::Option* option = find_option(command, flag);
    if (option == nullptr || flag == "--config") {
      fail(StatusCode::kInvalidArgument, "{}: line {}: unknown setting \"{}\"", path, line, name);
    }
    const bool given = std::any_of(arguments.begin(), arguments.end(), [&](const auto& argument) {
      const bool short_flag = argument.size() >= 2 && argument[0] == '-' && argument[1] != '-';
      return find_option(command, short_flag ? argument.substr(0, 2) : argument) == option &&
             (short_flag || is_flag_name(argument));
    });
    if (given || entry.second.IsNull()) {
      continue;
    }
    std::string value;
    if (entry.second.IsSequence()) {
      for (const auto& item : entry.second) {
        value += (value.empty() ? "" : ",") + item.as<std::string>();
      }
    } else if (entry.second.IsScalar()) {
      value = entry.second.as<std::string>();
    } else {
      fail(StatusCode::kInvalidArgument, "{}: line {}: \"{}\" needs a plain value", path, line,
           name);
    }
    result.push_back(flag + "=" + (is_switch(option) ? lower(value) : value));
  }
  return result;
}

}  // namespace

std::vector<std::string> yaml_arguments(const std::string& path, CLI::App& command,
                                        const std::vector<std::string>& arguments) {
  try {
    return settings_of(path, command, arguments);
  } catch (const YAML::Exception& error) {
    fail(StatusCode::kCorrupt, "{}: {}", path, error.what());
  }
}

}  // namespace nibble::cli
