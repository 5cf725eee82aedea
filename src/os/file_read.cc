// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <utility>

#include "core/status.h"
#include "os/file.h"
#include "os/file_internal.h"

namespace nibble::os {
namespace {

struct stat stat_of(int fd, const Path& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) {
    fail_io(path, "stat", errno);
  }
  return info;
}

// O_NONBLOCK, so that opening a named pipe returns and it can be refused.
int open_regular(const Path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    fail_io(path, "open", errno);
  }
  return fd;
}

std::uint64_t regular_size(int fd, const Path& path) {
  const struct stat info = stat_of(fd, path);
  if (!S_ISREG(info.st_mode)) {
    fail(StatusCode::kIo, "{}: cannot read: not a regular file", path.string());
  }
  return static_cast<std::uint64_t>(info.st_size);
}

}  // namespace

MappedFile::MappedFile(const Path& path) : name_(path.string()) {
  const ScopedFd fd(open_regular(path));
  const std::uint64_t size = regular_size(fd.get(), path);
  if (size > static_cast<std::uint64_t>(std::numeric_limits<std::ptrdiff_t>::max())) {
    fail(StatusCode::kIo, "{}: cannot map: {} bytes", name_, size);
  }
  if (size == 0) {
    return;  // mmap refuses an empty range
  }
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (address == MAP_FAILED) {
    fail_io(path, "map", errno);
  }
  data_ = static_cast<const std::byte*>(address);
  size_ = size;
  // A file that shrinks under the map ends the process with SIGBUS at the first touch; what can be
  // seen is one that changed while it was being opened.
  struct stat after {};
  if (::fstat(fd.get(), &after) != 0 || static_cast<std::uint64_t>(after.st_size) != size) {
    ::munmap(address, size);
    fail(StatusCode::kIo, "{}: cannot map: its size changes while it is read", name_);
  }
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      name_(std::move(other.name_)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(name_, other.name_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    ::munmap(const_cast<std::byte*>(data_), size_);
  }
}

std::string read_file(const Path& path, std::uint64_t max_bytes) {
  const ScopedFd fd(open_regular(path));
  const std::uint64_t size = regular_size(fd.get(), path);
  if (size > max_bytes) {
    fail(StatusCode::kIo, "{}: cannot read: {} bytes, the limit is {}", path.string(), size,
         max_bytes);
  }
  std::string content(size, '\0');
  std::uint64_t done = 0;
  while (done < size) {
    const ssize_t got = ::read(fd.get(), content.data() + done, size - done);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      fail_io(path, "read", errno);
    }
    if (got == 0) {
      fail(StatusCode::kIo, "{}: cannot read: it ends at {} of {} bytes", path.string(), done,
           size);
    }
    done += static_cast<std::uint64_t>(got);
  }
  return content;
}

std::uint64_t free_disk_bytes(const Path& existing) {
  struct statvfs info {};
  if (::statvfs(existing.c_str(), &info) != 0) {
    fail_io(existing, "ask for free space", errno);
  }
  return static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize;
}

}  // namespace nibble::os
