// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "core/status.h"
#include "os/file.h"
#include "os/file_internal.h"

namespace nibble::os {
namespace {

// "dir/" and "dir" are the same target.
Path without_trailing_slash(const Path& path) {
  return path.has_filename() || path == path.root_path() ? path : path.parent_path();
}

void require_absent(const Path& target) {
  struct stat info {};
  if (::lstat(target.c_str(), &info) == 0) {
    fail_io(target, "create directory", EEXIST);
  }
}

// rename(2) would replace an empty directory that appeared meanwhile. File systems without
// RENAME_NOREPLACE get a check just before.
void rename_to_new(const Path& from, const Path& to) {
  check_fault("rename", to);
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) {
    return;
  }
  if (errno == EINVAL || errno == ENOSYS) {
    require_absent(to);
    if (::rename(from.c_str(), to.c_str()) == 0) {
      return;
    }
  }
  fail_io(to, "rename to its name", errno);
}

// Not by std::filesystem's iterator: without memory libstdc++ 12's ends the process.
void sync_tree(const Path& root) {
  std::vector<Path> directories{root};
  for (std::size_t i = 0; i < directories.size(); ++i) {
    const std::unique_ptr<DIR, int (*)(DIR*)> listing(::opendir(directories[i].c_str()),
                                                      ::closedir);
    if (listing == nullptr) {
      fail_io(directories[i], "list", errno);
    }
    errno = 0;
    while (const dirent* entry = ::readdir(listing.get())) {
      const std::string_view name = entry->d_name;
      const Path path = directories[i] / name;
      struct stat info {};
      if (name != "." && name != ".." && ::lstat(path.c_str(), &info) == 0) {
        if (S_ISDIR(info.st_mode)) {
          directories.push_back(path);
        } else if (S_ISREG(info.st_mode)) {
          sync_file(path);
        }
      }
      errno = 0;
    }
    if (errno != 0) {
      fail_io(directories[i], "list", errno);
    }
  }
  for (auto directory = directories.rbegin(); directory != directories.rend(); ++directory) {
    sync_directory(*directory);
  }
}

bool is_digits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

// True if nobody holds the lock that StagedDirectory and FileWriter take.
bool is_abandoned(const Path& path) {
  const ScopedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  return fd.get() >= 0 && try_lock(fd.get());
}

}  // namespace

StagedDirectory::StagedDirectory(const Path& target)
    : target_(without_trailing_slash(target)), staging_(temporary_beside(target_)) {
  if (!target_.has_filename()) {
    fail(StatusCode::kIo, "'{}': cannot create directory: no name", target_.string());
  }
  require_absent(target_);
  check_fault("mkdir", target_);
  if (::mkdir(staging_.c_str(), 0777) != 0) {
    fail_io(target_, "create directory", errno);
  }
  lock_fd_ = ::open(staging_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  static_cast<void>(lock_fd_ >= 0 && try_lock(lock_fd_));
}

StagedDirectory::~StagedDirectory() {
  if (!committed_) {
    std::error_code ignored;
    std::filesystem::remove_all(staging_, ignored);
  }
  if (lock_fd_ >= 0) {
    ::close(lock_fd_);
  }
}

void StagedDirectory::commit() {
  if (committed_) {
    fail(StatusCode::kWrongOrder, "{}: second commit", target_.string());
  }
  const Path parent = parent_of(target_);  // nothing allocates behind the rename
  sync_tree(staging_);
  rename_to_new(staging_, target_);
  committed_ = true;
  sync_directory(parent);
}

// Exactly what temporary_beside() makes: somebody else's ".notes.tmp-old" is not ours to remove.
bool is_temporary_name(std::string_view name) {
  constexpr std::string_view kMark = ".tmp-";
  const std::size_t mark = name.rfind(kMark);
  if (!name.starts_with('.') || mark == std::string_view::npos || mark < 2) {
    return false;
  }
  const std::string_view rest = name.substr(mark + kMark.size());
  const std::size_t dash = rest.find('-');
  return dash != std::string_view::npos && is_digits(rest.substr(0, dash)) &&
         is_digits(rest.substr(dash + 1));
}

void remove_stale_staging(const Path& parent) {
  std::error_code error;
  std::vector<Path> stale;
  for (std::filesystem::directory_iterator it(parent, error), end; !error && it != end;
       it.increment(error)) {
    if (!it->is_symlink() && is_temporary_name(it->path().filename().string()) &&
        is_abandoned(it->path())) {
      stale.push_back(it->path());
    }
  }
  if (error) {
    fail_io(parent, "list", error.value());
  }
  for (const Path& path : stale) {
    std::filesystem::remove_all(path, error);
    if (error) {
      fail_io(path, "remove", error.value());
    }
  }
}

DirectoryLock::DirectoryLock(const Path& directory)
    : fd_(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (fd_ < 0) {
    fail_io(directory, "open directory", errno);
  }
  if (!try_lock(fd_) && errno == EWOULDBLOCK) {
    ::close(fd_);
    fail(StatusCode::kIo, "{}: another run is writing here", directory.string());
  }
}

DirectoryLock::~DirectoryLock() { ::close(fd_); }

}  // namespace nibble::os
