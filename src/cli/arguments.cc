// SPDX-License-Identifier: Apache-2.0
#include <nibble/nibble.h>

#include <algorithm>
#include <cctype>

#include "backend/model_ops.h"
#include "cli/checks.h"
#include "cli/command.h"
#include "core/parallel.h"
#include "core/status.h"

namespace nibble::cli {
namespace {

void check(nibble_status status) {
  if (status != NIBBLE_OK) {
    throw Error(static_cast<StatusCode>(status), nibble_last_error());
  }
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

}  // namespace

bool is_flag_name(const std::string& argument) {
  return argument.size() > 2 && argument.starts_with("--");
}

std::string with_dashes(std::string argument) {
  const std::size_t end = std::min(argument.find('='), argument.size());
  std::replace(argument.begin(), argument.begin() + static_cast<std::ptrdiff_t>(end), '_', '-');
  return argument;
}

const CLI::Option* find_option(const CLI::App& command, const std::string& argument) {
  return command.get_option_no_throw(argument.substr(0, argument.find('=')));
}

bool is_switch(const CLI::Option* option) {
  return option != nullptr && option->get_expected_min() == 0;
}

void MachineOptions::add_to(CLI::App& app) {
  app.add_option("--threads", threads, "threads to use (0: all that the process may use)")
      ->check(number_between(0, 4096, "in 0..4096"));
  app.add_option("--isa", isa, "force an instruction set: auto, scalar, avx2 or avx512");
}

void MachineOptions::apply() const {
  check(nibble_set_thread_count(threads));
  set_thread_count(threads);
  if (!isa.empty() && nibble_set_isa(isa.c_str()) != NIBBLE_OK) {
    fail(StatusCode::kInvalidArgument, "--isa: {}", nibble_last_error());
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

}  // namespace nibble::cli
