// SPDX-License-Identifier: Apache-2.0
#include "train/output_directory.h"

#include <unistd.h>

#include <cerrno>

#include "core/status.h"
#include "train/checkpoints.h"
#include "train/log.h"

namespace nibble::train {
namespace {

[[noreturn]] void fail_to_create(const os::Path& path, const std::string& reason) {
  fail(StatusCode::kIo, "{}: cannot create the directory: {}", path.string(), reason);
}

void refuse_file(const os::Path& path) {
  std::error_code error;
  if (std::filesystem::exists(path, error) && !std::filesystem::is_directory(path, error)) {
    fail_to_create(path, "it is a file");
  }
}

// Debris of a killed run does not count, and is only removed once the directory is this run's.
bool is_free(const os::Path& path) {
  std::error_code error;
  for (std::filesystem::directory_iterator it(path, error), end; !error && it != end;
       it.increment(error)) {
    if (!os::is_temporary_name(it->path().filename().string())) {
      return false;
    }
  }
  if (error) {
    fail(StatusCode::kIo, "{}: cannot read the directory: {}", path.string(), error.message());
  }
  return true;
}

// Whether the checkpoint that the run goes on from lies in the output directory.
bool holds_checkpoint(const os::Path& path, const std::string& checkpoint) {
  std::error_code error;
  const os::Path found = std::filesystem::canonical(checkpoint, error);
  return !error && std::filesystem::equivalent(found.parent_path(), path, error) && !error;
}

void refuse_unless_mine(const os::Path& path, const FinetuneOptions& options) {
  if (options.resume && options.newest_checkpoint()) {
    return;  // decided when it is known whether there is one
  }
  if (is_free(path)) {
    return;
  }
  if (!options.resume) {
    fail(StatusCode::kInvalidArgument,
         "{}: the output directory is not empty; choose another, or continue the run that is "
         "there with --resume",
         path.string());
  }
  if (!holds_checkpoint(path, options.resume_from)) {
    fail(StatusCode::kInvalidArgument,
         "{}: the output directory is not empty, and {} does not lie in it; choose another",
         path.string(), options.resume_from);
  }
}

// What would be made stands in a directory that can be written to.
void check_can_create(const os::Path& path) {
  std::error_code error;
  os::Path parent = std::filesystem::absolute(path, error);
  while (!std::filesystem::exists(parent, error) && parent != parent.parent_path()) {
    parent = parent.parent_path();
  }
  if (!std::filesystem::is_directory(parent, error)) {
    fail_to_create(path, std::generic_category().message(ENOTDIR));
  }
  if (::access(parent.c_str(), W_OK | X_OK) != 0) {
    fail_to_create(path, std::generic_category().message(errno));
  }
}

}  // namespace

OutputDirectory::OutputDirectory(const FinetuneOptions& options) : path_(options.output_dir) {
  std::error_code error;
  refuse_file(path_);
  std::filesystem::create_directories(path_, error);
  if (error) {
    fail_to_create(path_, error.message());
  }
  lock_.emplace(path_);
  refuse_unless_mine(path_, options);
  os::remove_stale_staging(path_);
  // A directory that cannot be written to is told now, not at the first checkpoint.
  os::write_file(path_ / ".write-test", "");
  std::filesystem::remove(path_ / ".write-test", error);
}

void OutputDirectory::check(const FinetuneOptions& options) {
  const os::Path path = options.output_dir;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    check_can_create(path);
    return;
  }
  refuse_file(path);
  const os::DirectoryLock lock(path);
  refuse_unless_mine(path, options);
  if (::access(path.c_str(), W_OK | X_OK) != 0) {
    fail(StatusCode::kIo, "{}: cannot write to the directory: {}", path.string(),
         std::generic_category().message(errno));
  }
  if (options.resume && options.newest_checkpoint() && !Checkpoints::any(path)) {
    refuse_foreign_files(path, options);
  }
}

void OutputDirectory::refuse_foreign_files(const os::Path& path, const FinetuneOptions& options) {
  for (const char* name : {"adapter_model.safetensors", "adapter_config.json", "adapter.gguf"}) {
    if (std::filesystem::exists(path / name)) {
      fail(StatusCode::kInvalidArgument,
           "{}: holds {} but no checkpoint to resume from; choose another directory", path.string(),
           name);
    }
  }
  if (!TrainLog(path / kLogName).is_of_a_beginning(options.save_steps)) {
    fail(StatusCode::kInvalidArgument,
         "{}: is not the log of a run that was ended before its first checkpoint; choose another "
         "directory",
         (path / kLogName).string());
  }
}

}  // namespace nibble::train
