// SPDX-License-Identifier: Apache-2.0
// What the sources of this folder share: named errors and the steps of the durability protocol.
#pragma once

#include <string_view>

#include "os/file.h"

namespace nibble::os {

// Throws Error(kIo): "PATH: cannot ACTION: the system's reason".
[[noreturn]] void fail_io(const Path& path, std::string_view action, int error);

// Asks the fault hook, then fails with what it pretends.
void check_fault(const char* operation, const Path& path);

// The directory that holds `path`; "." for a bare name.
Path parent_of(const Path& path);

// `.NAME.tmp-PID-N` beside `target`: unique within the process and between living ones.
Path temporary_beside(const Path& target);

// Takes an advisory lock that the kernel drops with the process: what tells a staging directory in
// use from one that a killed process left, even where process ids repeat (containers). Where the
// file system has no locks, false.
bool try_lock(int fd);

// fsync of a directory, so that the names in it survive a power cut.
void sync_directory(const Path& directory);
// fsync of a file by name.
void sync_file(const Path& path);

// Closes a descriptor at the end of the scope.
class ScopedFd {
 public:
  explicit ScopedFd(int fd) : fd_(fd) {}
  ~ScopedFd();
  ScopedFd(const ScopedFd&) = delete;
  ScopedFd& operator=(const ScopedFd&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace nibble::os
