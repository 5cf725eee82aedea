// SPDX-License-Identifier: Apache-2.0
// What the subcommands of `nibble` share. The command alone prints and exits; everything below it
// throws.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace nibble::cli {

// Exit codes: 0; 1 a run failed; 2 the command line or a setting is wrong; 130 interrupted.
inline constexpr int kFailed = 1, kUsage = 2, kInterrupted = 130;

// --threads and --isa, common to all commands that compute.
struct MachineOptions {
  int threads = 0;
  std::string isa;  // "" or "auto": NIBBLE_ISA, else the best

  void add_to(CLI::App& app);
  void apply() const;  // before anything is computed
};

// The subcommand of that name; nullptr if there is none.
CLI::App* find_command(CLI::App& app, const std::string& name);

// Arguments as CLI11 takes them: underscores in flag names become dashes, and "--flag true" of a
// yes/no flag becomes "--flag=true".
std::vector<std::string> normalise_arguments(CLI::App& app, int argc, char** argv);

// "--lora_rank=8" -> "--lora-rank=8"
std::string with_dashes(std::string argument);
bool is_flag_name(const std::string& argument);  // "--x..."
// The option of "--flag" or "--flag=value"; nullptr if there is none.
const CLI::Option* find_option(const CLI::App& command, const std::string& argument);
bool is_switch(const CLI::Option* option);  // a yes/no flag

// Each adds its subcommand; the callback does the work and returns the exit code through
// *exit_code.
void add_finetune(CLI::App& app, int* exit_code);
void add_generate(CLI::App& app, int* exit_code);
void add_eval(CLI::App& app, int* exit_code);
void add_inspect(CLI::App& app, int* exit_code);

}  // namespace nibble::cli
