// SPDX-License-Identifier: Apache-2.0
// Files: whole or absent. Every function throws Error(kIo) naming the path and the system's reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace nibble::os {

using Path = std::filesystem::path;

// A regular file mapped read-only. Movable; unmapped on destruction.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const Path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& name() const { return name_; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::string name_;
};

// The whole of a regular file. Refuses more than `max_bytes`.
std::string read_file(const Path& path, std::uint64_t max_bytes);

// Writes the file whole or not at all: temporary name beside it, write, fsync, rename, fsync of the
// directory. On error the old content stands and the temporary file is gone.
void write_file(const Path& path, std::string_view content);

// A directory that appears whole or not at all. Files are written (with write_file or a
// FileWriter) into staging(); commit() fsyncs the staging directory, renames it to the target name,
// which must not exist, and fsyncs the parent. Without commit() the destructor removes the staging
// directory.
class StagedDirectory {
 public:
  explicit StagedDirectory(const Path& target);
  ~StagedDirectory();
  StagedDirectory(const StagedDirectory&) = delete;
  StagedDirectory& operator=(const StagedDirectory&) = delete;

  const Path& staging() const { return staging_; }
  void commit();

 private:
  Path target_, staging_;
  int lock_fd_ = -1;  // held while staging: tells remove_stale_staging that it is in use
  bool committed_ = false;
};

// Sequential writer of one file under the same promise as write_file.
class FileWriter {
 public:
  explicit FileWriter(Path path);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  std::uint64_t position() const { return position_; }
  void commit();

 private:
  Path path_, temporary_;
  int fd_ = -1;
  std::uint64_t position_ = 0;
};

// Appends whole lines to a log: each append is one write(2), a missing final newline is added, and
// a line that does not fit is taken back. Creates the file. A full disk is an Error that the caller
// may choose to survive.
void append_line(const Path& path, std::string_view line);

// `.NAME.tmp-<digits>-<digits>`: what the writers above call a thing that is not whole yet.
bool is_temporary_name(std::string_view name);

// Removes directories and files with such names that a killed process left in `parent`; those of
// living processes stay.
void remove_stale_staging(const Path& parent);

// An advisory lock on a directory that must exist, held until destruction; the kernel drops it with
// the process. For one writer at a time: Error(kIo) "PATH: another run is writing here" if somebody
// holds it. A file system without locks excludes nobody.
class DirectoryLock {
 public:
  explicit DirectoryLock(const Path& directory);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  int fd_ = -1;
};

std::uint64_t free_disk_bytes(const Path& existing);

}  // namespace nibble::os
