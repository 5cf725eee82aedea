// SPDX-License-Identifier: Apache-2.0
// The `nibble` command. Errors are told in one line on standard error.
#include <fmt/format.h>
#include <nibble/nibble.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <new>
#include <system_error>

#include "cli/command.h"
#include "cli/yaml_settings.h"
#include "core/status.h"

namespace nibble::cli {
namespace {

std::string command_names(CLI::App& app) {
  std::string names;
  for (const CLI::App* command : app.get_subcommands([](CLI::App*) { return true; })) {
    names += (names.empty() ? "" : ", ") + command->get_name();
  }
  return names;
}

// The arguments, with those of a --config file put before the command line's own.
std::vector<std::string> all_arguments(CLI::App& app, int argc, char** argv,
                                       YamlSettings* settings) {
  std::vector<std::string> arguments = normalise_arguments(app, argc, argv);
  if (!arguments.empty() && !arguments[0].starts_with('-') &&
      find_command(app, arguments[0]) == nullptr) {
    fail(StatusCode::kInvalidArgument, "unknown command \"{}\" (known: {})", arguments[0],
         command_names(app));
  }
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    std::string path;
    if (arguments[i].starts_with("--config=")) {
      path = arguments[i].substr(9);
    } else if (arguments[i] == "--config" && i + 1 < arguments.size()) {
      path = arguments[i + 1];
    } else {
      continue;
    }
    CLI::App* command = find_command(app, arguments[0]);
    if (command == nullptr) {
      break;
    }
    *settings = YamlSettings(path, *command, arguments);
    const std::vector<std::string>& from_file = settings->arguments();
    arguments.insert(arguments.begin() + 1, from_file.begin(), from_file.end());
    break;
  }
  return arguments;
}

int exit_code_of(const Error& error) {
  return error.code() == StatusCode::kInvalidArgument ? kUsage : kFailed;
}

int run(int argc, char** argv) {
  CLI::App app{"fine-tune quantised models on modest hardware", "nibble"};
  app.set_version_flag("--version", nibble_version_string());
  app.require_subcommand(1);
  int exit_code = 0;
  YamlSettings settings;
  add_finetune(app, &exit_code);
  add_generate(app, &exit_code);
  add_eval(app, &exit_code);
  add_inspect(app, &exit_code);
  try {
    std::vector<std::string> arguments = all_arguments(app, argc, argv, &settings);
    std::reverse(arguments.begin(), arguments.end());  // the order CLI11 takes a vector in
    app.parse(arguments);
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
      fmt::print(stderr, "nibble: cannot write the output\n");
      return kFailed;
    }
    return exit_code;
  } catch (const CLI::Success& done) {  // --help, --version
    return app.exit(done);
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "nibble: {}\n", settings.located(error.what()));
    return kUsage;
  } catch (const Error& error) {
    fmt::print(stderr, "nibble: {}\n", settings.located(error.what()));
    return exit_code_of(error);
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "nibble: out of memory\n");
    return kFailed;
  } catch (const std::system_error& error) {  // what fmt::print says of a closed pipe
    fmt::print(stderr, "nibble: cannot write the output: {}\n", error.what());
    return kFailed;
  } catch (const std::exception& error) {
    fmt::print(stderr, "nibble: internal error: {}\n", error.what());
    return kFailed;
  }
}

}  // namespace
}  // namespace nibble::cli

int main(int argc, char** argv) {
  // A full disk or a closed pipe is an error to be told, not a signal to die of.
  std::signal(SIGXFSZ, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
  return nibble::cli::run(argc, argv);
}
