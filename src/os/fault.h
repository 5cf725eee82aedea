// SPDX-License-Identifier: Apache-2.0
// Where tests make the system fail. Every operation of this folder that changes the disk asks the
// hook first; a test returns an errno (no space, I/O error), records the order, or kills the
// process.
#pragma once

#include <atomic>
#include <filesystem>

namespace nibble::os {

// `operation` is one of: open, write, fsync, rename, mkdir, fsync_directory, append.
// Returns the errno to pretend, or 0 to go on.
using FaultHook = int (*)(const char* operation, const std::filesystem::path& path);

inline std::atomic<FaultHook> fault_hook{nullptr};

}  // namespace nibble::os
