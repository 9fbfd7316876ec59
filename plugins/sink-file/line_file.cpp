#include "line_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <stdexcept>
#include <system_error>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "millrace/error.h"

namespace millrace {

namespace {

std::string text_of(int error) { return std::system_category().message(error); }

}  // namespace

LineFile::~LineFile() {
  if (fd_ >= 0) ::close(fd_);
}

void LineFile::open(const std::string& path, bool append) {
  path_ = path;
  const bool standard_output = path == "-";
  name_ = standard_output ? "standard output" : fmt::format("'{}'", path);
  if (standard_output) {
    // A descriptor of its own: whoever closes standard output does not close this one.
    fd_ = ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
  } else {
    constexpr mode_t kMode = 0644;
    const int how = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | (append ? O_APPEND : 0);
    fd_ = ::open(path.c_str(), how, kMode);
  }
  struct stat status {};
  if (fd_ < 0 || ::fstat(fd_, &status) != 0) {
    throw ConfigError("path", fmt::format("cannot write {}: {}", name_, text_of(errno)));
  }
  regular_ = S_ISREG(status.st_mode);
  replace_ = regular_ && !append && !standard_output;
}

LineFile::Found LineFile::found() const {
  Found found;
  if (!regular_ || path_ == "-") return found;
  // The file is open for writing only, which is all that a user may be allowed.
  const int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    throw ConfigError("path",
                      fmt::format("cannot read what {} holds already: {}", name_, text_of(errno)));
  }
  std::array<char, 1024> start{};
  const ssize_t size = ::pread(fd, start.data(), start.size(), 0);
  const off_t end = ::lseek(fd, 0, SEEK_END);
  char last = '\n';
  const bool read = size >= 0 && end >= 0 && (end == 0 || ::pread(fd, &last, 1, end - 1) == 1);
  const int error = errno;
  ::close(fd);
  if (!read) {
    throw ConfigError("path",
                      fmt::format("cannot read what {} holds already: {}", name_, text_of(error)));
  }
  found.first_line.assign(start.data(), static_cast<std::size_t>(size));
  found.first_line.erase(std::min(found.first_line.find_first_of("\r\n"), found.first_line.size()));
  found.ends_inside_line = last != '\n';
  return found;
}

void LineFile::write_out() {
  if (replace_) {
    while (::ftruncate(fd_, 0) != 0) {
      if (errno != EINTR) fail(errno);
    }
    replace_ = false;
  }
  while (written_ < buffer_.size()) {
    const ssize_t done = ::write(fd_, buffer_.data() + written_, buffer_.size() - written_);
    if (done >= 0) {
      written_ += static_cast<std::size_t>(done);
    } else if (errno == EAGAIN) {
      make_room();
    } else if (errno != EINTR) {
      const int error = errno;
      take_back_torn_line();
      fail(error);
    }
  }
  buffer_.clear();
  ends_.clear();
  written_ = 0;
}

/// Somebody has made the pipe or terminal non-blocking: gives its reader a moment.
void LineFile::make_room() {
  constexpr int kPatienceMs = 100;
  pollfd wait{fd_, POLLOUT, 0};
  if (::poll(&wait, 1, kPatienceMs) == 0) fail(EAGAIN);
}

/// A write that was cut short has left part of a line: the file gets back to the end of the last
/// whole one, unless somebody else has added to it since.
void LineFile::take_back_torn_line() {
  const auto next = std::upper_bound(ends_.begin(), ends_.end(), written_);
  const std::size_t whole = next == ends_.begin() ? 0 : *std::prev(next);
  struct stat status {};
  if (!regular_ || whole == written_ || ::fstat(fd_, &status) != 0) return;
  const off_t end = ::lseek(fd_, 0, SEEK_CUR);
  if (end < 0 || end != status.st_size) return;
  const off_t back = end - static_cast<off_t>(written_ - whole);
  if (::ftruncate(fd_, back) == 0 && ::lseek(fd_, back, SEEK_SET) == back) written_ = whole;
}

void LineFile::fail(int error) {
  if (error == ENOSPC || error == EDQUOT || error == EAGAIN) {
    throw Transient(fmt::format("cannot write {}: {}", name_, text_of(error)));
  }
  if (error == EPIPE) {
    throw std::runtime_error(
        fmt::format("cannot write {}: whoever read it has gone ({})", name_, text_of(error)));
  }
  throw std::runtime_error(fmt::format("cannot write {}: {}", name_, text_of(error)));
}

}  // namespace millrace
