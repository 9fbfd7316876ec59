#include "capture_writer.h"

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "millrace/error.h"

namespace millrace {

namespace {

void put(std::uint32_t value, std::string& to) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  to.append(bytes, sizeof bytes);
}

[[noreturn]] void fail(const std::filesystem::path& path, int error) {
  const std::string what =
      fmt::format("cannot write '{}': {}", path.string(), std::system_category().message(error));
  if (error == ENOSPC || error == EDQUOT || error == EAGAIN) throw Transient(what);
  throw std::runtime_error(what);
}

}  // namespace

CaptureWriter::~CaptureWriter() {
  while (!open_.empty()) close_oldest();
  for (const int fd : adopted_) ::close(fd);
}

void CaptureWriter::adopt(File& file, int fd) {
  file.fd_ = fd;
  file.made_ = true;
  adopted_.push_back(fd);
}

std::string& CaptureWriter::pending_of(File& file) {
  if (file.pending_.empty()) waiting_.push_back(&file);
  return file.pending_;
}

void CaptureWriter::add_header(File& file, LinkType link) {
  file.link = link;
  file.begun_ = true;
  std::string& bytes = pending_of(file);
  put(0xA1B23C4D, bytes);
  put(2U | 4U << 16U, bytes);  // version 2.4
  put(0, bytes);
  put(0, bytes);
  put(262144, bytes);
  // In files raw IP has a number of its own.
  put(static_cast<std::uint32_t>(link == LinkType::raw_dlt ? LinkType::raw : link), bytes);
}

void CaptureWriter::add(File& file, const Packet& packet) {
  if (!file.begun_) add_header(file, packet.link);
  std::string& bytes = pending_of(file);
  const std::int64_t time = packet.time.time_since_epoch().count();
  constexpr std::int64_t kSecond = 1000000000;
  put(static_cast<std::uint32_t>(time / kSecond), bytes);
  put(static_cast<std::uint32_t>(time % kSecond), bytes);
  put(packet.captured, bytes);
  put(packet.length, bytes);
  bytes.append(reinterpret_cast<const char*>(packet.data), packet.captured);
}

void CaptureWriter::close_oldest() {
  File& oldest = *open_.back();
  ::close(std::exchange(oldest.fd_, -1));
  open_.pop_back();
}

void CaptureWriter::make_ready(File& file) {
  if (file.fd_ >= 0) {
    if (adopted_.empty()) open_.splice(open_.begin(), open_, file.place_);
    return;
  }
  while (open_.size() >= most_open_) close_oldest();
  constexpr mode_t kMode = 0644;
  const int how = file.made_ ? O_APPEND : O_CREAT | O_TRUNC;
  if (!file.made_) {
    std::error_code error;
    std::filesystem::create_directories(file.path.parent_path(), error);
    if (error) fail(file.path, error.value());
  }
  file.fd_ = ::open(file.path.c_str(), O_WRONLY | O_CLOEXEC | how, kMode);
  if (file.fd_ < 0) fail(file.path, errno);
  file.made_ = true;
  open_.push_front(&file);
  file.place_ = open_.begin();
}

void CaptureWriter::write_out() {
  while (!waiting_.empty()) {
    File& file = *waiting_.back();
    make_ready(file);
    while (file.written_ < file.pending_.size()) {
      const ssize_t done = ::write(file.fd_, file.pending_.data() + file.written_,
                                   file.pending_.size() - file.written_);
      if (done >= 0) {
        file.written_ += static_cast<std::size_t>(done);
      } else if (errno != EINTR) {
        fail(file.path, errno);
      }
    }
    std::string().swap(file.pending_);  // of many files only those at hand hold memory
    file.written_ = 0;
    waiting_.pop_back();
  }
}

}  // namespace millrace
