// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "core/status.h"
#include "os/file.h"
#include "os/file_internal.h"

namespace nibble::os {
namespace {

// Linux writes at most 2 GiB - 4 KiB in one call.
constexpr std::size_t kMaxWrite = std::size_t{1} << 30;

void write_fully(int fd, std::span<const std::byte> bytes, const Path& path) {
  while (!bytes.empty()) {
    check_fault("write", path);
    const ssize_t wrote = ::write(fd, bytes.data(), std::min(bytes.size(), kMaxWrite));
    if (wrote < 0 && errno == EINTR) {
      continue;
    }
    if (wrote < 0) {
      fail_io(path, "write", errno);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(wrote));
  }
}

}  // namespace

void write_file(const Path& path, std::string_view content) {
  FileWriter writer(path);
  writer.write(content);
  writer.commit();
}

FileWriter::FileWriter(Path path) : path_(std::move(path)), temporary_(temporary_beside(path_)) {
  if (!path_.has_filename()) {
    fail(StatusCode::kIo, "'{}': cannot write: no file name", path_.string());
  }
  check_fault("open", path_);
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) {
    fail_io(path_, "create", errno);
  }
  static_cast<void>(try_lock(fd_));
}

FileWriter::~FileWriter() {
  if (fd_ >= 0) {
    ::close(fd_);
    ::unlink(temporary_.c_str());
  }
}

void FileWriter::write(std::span<const std::byte> bytes) {
  if (fd_ < 0) {
    fail(StatusCode::kWrongOrder, "{}: write after commit", path_.string());
  }
  write_fully(fd_, bytes, path_);
  position_ += bytes.size();
}

void FileWriter::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

// On an error before the rename the destructor removes the temporary file. A failed fsync is never
// tried again: the kernel has marked the pages clean, so a second one would lie.
void FileWriter::commit() {
  if (fd_ < 0) {
    fail(StatusCode::kWrongOrder, "{}: second commit", path_.string());
  }
  const Path parent = parent_of(path_);  // nothing allocates behind the rename
  check_fault("fsync", path_);
  if (::fsync(fd_) != 0) {
    fail_io(path_, "fsync", errno);
  }
  check_fault("rename", path_);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    fail_io(path_, "rename to its name", errno);
  }
  ::close(std::exchange(fd_, -1));  // all is on disk: close has nothing left to report
  sync_directory(parent);
}

void append_line(const Path& path, std::string_view line) {
  check_fault("append", path);
  const ScopedFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (fd.get() < 0) {
    fail_io(path, "open", errno);
  }
  std::string text(line);
  if (!text.ends_with('\n')) {
    text += '\n';
  }
  struct stat before {};
  const bool known = ::fstat(fd.get(), &before) == 0;
  const ssize_t wrote = ::write(fd.get(), text.data(), text.size());
  if (wrote == static_cast<ssize_t>(text.size())) {
    return;
  }
  const int error = wrote < 0 ? errno : ENOSPC;
  // A torn line would swallow the next one.
  if (wrote > 0 && known && ::ftruncate(fd.get(), before.st_size) != 0) {
    fail_io(path, "remove a torn line", errno);
  }
  fail_io(path, "append", error);
}

}  // namespace nibble::os
