// SPDX-License-Identifier: Apache-2.0
#include "os/file_internal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <system_error>

#include "core/status.h"
#include "os/fault.h"

namespace nibble::os {

void fail_io(const Path& path, std::string_view action, int error) {
  fail(StatusCode::kIo, "{}: cannot {}: {}", path.string(), action,
       std::generic_category().message(error));
}

void check_fault(const char* operation, const Path& path) {
  if (const FaultHook hook = fault_hook.load(std::memory_order_relaxed); hook != nullptr) {
    if (const int error = hook(operation, path); error != 0) {
      fail_io(path, operation, error);
    }
  }
}

Path parent_of(const Path& path) {
  const Path parent = path.parent_path();
  return parent.empty() ? Path(".") : parent;
}

Path temporary_beside(const Path& target) {
  static std::atomic<unsigned> counter{0};
  const std::string name =
      fmt::format(".{}.tmp-{}-{}", target.filename().string(), ::getpid(), counter++);
  return parent_of(target) / name;
}

bool try_lock(int fd) { return ::flock(fd, LOCK_EX | LOCK_NB) == 0; }

void sync_directory(const Path& directory) {
  check_fault("fsync_directory", directory);
  const ScopedFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) {
    fail_io(directory, "open directory", errno);
  }
  // Some file systems have no fsync for directories (they answer EINVAL): nothing more can be done.
  if (::fsync(fd.get()) != 0 && errno != EINVAL && errno != ENOTSUP) {
    fail_io(directory, "fsync directory", errno);
  }
}

void sync_file(const Path& path) {
  check_fault("fsync", path);
  const ScopedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (fd.get() < 0) {
    fail_io(path, "open", errno);
  }
  if (::fsync(fd.get()) != 0) {
    fail_io(path, "fsync", errno);
  }
}

ScopedFd::~ScopedFd() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

}  // namespace nibble::os
