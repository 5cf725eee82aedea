// SPDX-License-Identifier: Apache-2.0
// The directory that a run writes into: nobody else's, and one run's at a time.
#pragma once

#include <optional>

#include "os/file.h"
#include "train/options.h"

namespace nibble::train {

class OutputDirectory {
 public:
  // Makes the directory and locks it until destruction. Error, and nothing in it is changed, if it
  // cannot be written to, if another run holds it, or if it holds what this run does not go on
  // from: without options.resume it must be empty; with a checkpoint's path it must be empty or the
  // directory that this checkpoint lies in.
  explicit OutputDirectory(const FinetuneOptions& options);

  // The same errors, with nothing written or made.
  static void check(const FinetuneOptions& options);

  const os::Path& path() const { return path_; }

  // For a run with options.resume that finds no checkpoint and begins at step 0: Error unless what
  // is there can only be what such a run left before its first checkpoint.
  static void refuse_foreign_files(const os::Path& path, const FinetuneOptions& options);

 private:
  os::Path path_;
  std::optional<os::DirectoryLock> lock_;
};

}  // namespace nibble::train
