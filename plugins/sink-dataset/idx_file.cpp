#include "idx_file.h"

#include <cerrno>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "millrace/error.h"

namespace millrace {

namespace {

void append_big_endian(std::string& to, std::uint32_t value) {
  for (const unsigned shift : {24U, 16U, 8U, 0U}) to += static_cast<char>(value >> shift);
}

std::string text_of(int error) { return std::system_category().message(error); }

}  // namespace

PlacedFile::~PlacedFile() {
  if (fd_ >= 0) ::close(fd_);
}

void PlacedFile::open(const std::filesystem::path& path) {
  path_ = path.string();
  constexpr mode_t kMode = 0644;
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, kMode);
  if (fd_ < 0) {
    const int error = errno;
    throw ConfigError("path", fmt::format("cannot write '{}': {}", path_, text_of(error)));
  }
}

void PlacedFile::clear() {
  while (::ftruncate(fd_, 0) != 0) {
    if (errno != EINTR) fail(errno);
  }
}

void PlacedFile::write(std::uint64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (done >= 0) {
      offset += static_cast<std::uint64_t>(done);
      bytes.remove_prefix(static_cast<std::size_t>(done));
    } else if (errno != EINTR) {
      fail(errno);
    }
  }
}

void PlacedFile::fail(int error) const {
  const std::string what = fmt::format("cannot write '{}': {}", path_, text_of(error));
  if (error == ENOSPC || error == EDQUOT) throw Transient(what);
  throw std::runtime_error(what);
}

void IdxFile::open(const std::filesystem::path& path, std::vector<std::uint32_t> item) {
  item_ = std::move(item);
  for (const std::uint32_t size : item_) item_size_ *= size;
  file_.open(path);
}

void IdxFile::clear() {
  constexpr std::uint32_t kUnsignedBytes = 0x0800;
  std::string header;
  append_big_endian(header, kUnsignedBytes | static_cast<std::uint32_t>(1 + item_.size()));
  append_big_endian(header, 0);
  for (const std::uint32_t size : item_) append_big_endian(header, size);
  file_.clear();
  file_.write(0, header);
}

void IdxFile::put(std::uint32_t first, std::string_view items) {
  file_.write(header_size() + first * item_size_, items);
}

void IdxFile::commit(std::uint32_t total) {
  constexpr std::uint64_t kCountOffset = 4;
  std::string count;
  append_big_endian(count, total);
  file_.write(kCountOffset, count);
}

}  // namespace millrace
