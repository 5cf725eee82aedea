// SPDX-License-Identifier: Apache-2.0
#include "train/checkpoints.h"

#include <algorithm>
#include <charconv>

#include "core/status.h"
#include "formats/checkpoint_manifest.h"
#include "train/setup.h"

namespace nibble::train {
namespace {

using formats::Json;

constexpr std::string_view kPrefix = "checkpoint-";

std::optional<std::int64_t> step_of(const std::string& name) {
  if (!name.starts_with(kPrefix)) {
    return std::nullopt;
  }
  std::int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [at, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
  return error == std::errc() && at == end ? std::optional(step) : std::nullopt;
}

}  // namespace

Checkpoints::Checkpoints(os::Path output_dir, Json identity, std::string base_model)
    : output_dir_(std::move(output_dir)),
      identity_(std::move(identity)),
      base_model_(std::move(base_model)) {}

std::vector<std::pair<std::int64_t, os::Path>> Checkpoints::list(const os::Path& output_dir) {
  std::vector<std::pair<std::int64_t, os::Path>> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(output_dir, error)) {
    if (const auto step = step_of(entry.path().filename().string()); step) {
      found.emplace_back(*step, entry.path());
    }
  }
  std::sort(found.rbegin(), found.rend());
  return found;
}

// False if the checkpoint of this run and step is there already: the same run comes to the same
// bytes, so there is nothing to write. What a disk has damaged is of no use to anybody; all else is
// kept under another name.
bool Checkpoints::make_way(const os::Path& path, std::int64_t step) const {
  std::error_code error;
  if (!std::filesystem::exists(std::filesystem::symlink_status(path, error))) {
    return true;
  }
  try {
    if (std::filesystem::is_directory(path, error)) {
      const formats::Checkpoint whole(path);
      const Json& extra = whole.extra();
      if (extra.is_object() && extra.value("identity", Json()) == identity_ &&
          extra.value("step", Json()) == Json(step)) {
        return false;
      }
    }
  } catch (const Error& failure) {
    if (failure.code() != StatusCode::kCorrupt) {
      throw;
    }
    if (std::filesystem::exists(path / formats::kManifestName, error)) {
      std::filesystem::remove_all(path, error);
      return true;
    }
  }
  for (int k = 1;; ++k) {
    const os::Path aside = fmt::format("{}.old-{}", path.string(), k);
    if (!std::filesystem::exists(std::filesystem::symlink_status(aside, error))) {
      std::filesystem::rename(path, aside, error);
      return true;  // where it could not be moved, the writer says that the name is taken
    }
  }
}

void Checkpoints::save(const RunState& state, const model::LoraAdapter& adapter,
                       const model::LlamaConfig& model, const Optimizer& optimizer,
                       std::int64_t keep) {
  const os::Path path = output_dir_ / fmt::format("{}{}", kPrefix, state.step);
  if (!make_way(path, state.step)) {
    prune(state.step, keep);
    return;
  }
  formats::CheckpointWriter writer(path);
  const model::PeftTensors tensors(adapter, model);
  writer.add_component("adapter_model", tensors.list(), {{"format", "pt"}});
  writer.add_file("adapter_config.json",
                  model::peft_config(adapter.config(), base_model_).dump(2) + "\n");
  writer.add_component("optimizer", optimizer.states());
  writer.commit({{"identity", identity_},
                 {"step", state.step},
                 {"optimizer_steps", optimizer.step_count()},
                 {"total_tokens", state.total_tokens},
                 {"training_seconds", state.training_seconds},
                 {"skipped_in_a_row", state.skipped_in_a_row},
                 {"loss_sum", state.loss_sum},
                 {"loss_steps", state.loss_steps}});
  prune(state.step, keep);
}

// Checkpoints of later steps belong to an abandoned future (damaged, or after the one that was
// asked for): they neither count nor go.
void Checkpoints::prune(std::int64_t step, std::int64_t keep) const {
  std::int64_t kept = 0;
  for (const auto& [number, path] : list(output_dir_)) {
    if (number <= step && ++kept > keep) {
      std::error_code ignored;  // an old checkpoint that stays does no harm
      std::filesystem::remove_all(path, ignored);
    }
  }
}

void Checkpoints::compare_identity(const Json& theirs, const std::string& name,
                                   const Warn& warn) const {
  for (const auto& [key, mine] : identity_.items()) {
    const auto found = theirs.find(key);
    if (found != theirs.end() && *found == mine) {
      continue;
    }
    const std::string was = found == theirs.end() ? "absent" : found->dump();
    if (key == kInstructionSet) {
      warn(
          fmt::format("{}: \"{}\" was {} there and is {} now: the run goes on, but not to the very "
                      "bits of an uninterrupted one",
                      name, key, was, mine.dump()));
      continue;
    }
    fail(StatusCode::kInvalidArgument, "{}: cannot be resumed: \"{}\" was {} there and is {} now",
         name, key, was, mine.dump());
  }
}

RunState Checkpoints::load(const formats::Checkpoint& checkpoint, const model::LlamaConfig& model,
                           model::LoraAdapter& adapter, Optimizer& optimizer,
                           const Warn& warn) const {
  const std::string name = checkpoint.path().string();
  const Json& extra = checkpoint.extra();
  RunState state;
  std::int64_t optimizer_steps = 0;
  try {
    compare_identity(extra.at("identity"), name, warn);
    state.step = extra.at("step").get<std::int64_t>();
    optimizer_steps = extra.at("optimizer_steps").get<std::int64_t>();
    state.total_tokens = extra.at("total_tokens").get<std::int64_t>();
    state.training_seconds = extra.at("training_seconds").get<double>();
    state.skipped_in_a_row = extra.at("skipped_in_a_row").get<std::int64_t>();
    state.loss_sum = extra.at("loss_sum").get<double>();
    state.loss_steps = extra.at("loss_steps").get<std::int64_t>();
  } catch (const Json::exception& error) {
    fail(StatusCode::kCorrupt, "{}: manifest.json: {}", name, error.what());
  }
  const formats::SafetensorsFile& states = checkpoint.component("optimizer");
  model::load_peft_tensors(checkpoint.component("adapter_model"), model, adapter);
  optimizer.load(states, optimizer_steps);
  return state;
}

std::optional<RunState> Checkpoints::restore(
    const std::string& path, const model::LlamaConfig& model, model::LoraAdapter& adapter,
    Optimizer& optimizer, const std::function<void(const std::string&)>& warn) const {
  if (!path.empty() && path != "auto") {
    return load(formats::Checkpoint(path), model, adapter, optimizer, warn);
  }
  for (const auto& [step, directory] : list(output_dir_)) {
    try {
      return load(formats::Checkpoint(directory), model, adapter, optimizer, warn);
    } catch (const Error& error) {
      if (error.code() != StatusCode::kCorrupt && error.code() != StatusCode::kIo) {
        throw;
      }
      warn(fmt::format("passing over {}: {}", directory.string(), error.what()));
    }
  }
  return std::nullopt;
}

}  // namespace nibble::train
