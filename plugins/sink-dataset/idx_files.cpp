#include <cerrno>
#include <cmath>
#include <iterator>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "millrace/error.h"

#include "data_files.h"

namespace millrace {

namespace fs = std::filesystem;

ReplacedFile::ReplacedFile(const fs::path& path) : path_(path), part_(path.string() + ".part") {
  constexpr mode_t kMode = 0644;
  fd_ = ::open(part_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kMode);
  if (fd_ < 0) fail(errno);
}

ReplacedFile::ReplacedFile(ReplacedFile&& other) noexcept
    : path_(std::move(other.path_)),
      part_(std::move(other.part_)),
      fd_(std::exchange(other.fd_, -1)),
      buffer_(std::move(other.buffer_)) {}

ReplacedFile::~ReplacedFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(part_.c_str());
}

void ReplacedFile::append(std::string_view bytes) {
  constexpr std::size_t kEnough = 1U << 20U;
  buffer_ += bytes;
  if (buffer_.size() >= kEnough) finish();
}

void ReplacedFile::finish() {
  std::string_view left = buffer_;
  while (!left.empty()) {
    const ssize_t done = ::write(fd_, left.data(), left.size());
    if (done >= 0) {
      left.remove_prefix(static_cast<std::size_t>(done));
    } else if (errno != EINTR) {
      fail(errno);
    }
  }
  buffer_.clear();
}

void ReplacedFile::commit() {
  if (::rename(part_.c_str(), path_.c_str()) != 0) fail(errno);
  ::close(std::exchange(fd_, -1));
}

void ReplacedFile::fail(int error) const {
  const std::string what =
      fmt::format("cannot write '{}': {}", path_.string(), std::system_category().message(error));
  if (error == ENOSPC || error == EDQUOT) throw Transient(what);
  throw std::runtime_error(what);
}

namespace {

/// The header of an IDX file of unsigned bytes.
std::string idx_header(std::initializer_list<std::size_t> shape) {
  std::string header = {0, 0, 8, static_cast<char>(shape.size())};
  for (const std::size_t size : shape) {
    for (const unsigned shift : {24U, 16U, 8U, 0U}) header += static_cast<char>(size >> shift);
  }
  return header;
}

/// Square where that is possible, as image models like it; else one row.
std::pair<std::uint32_t, std::uint32_t> image_shape(std::uint32_t bytes) {
  const auto side = static_cast<std::uint32_t>(std::lround(std::sqrt(bytes)));
  if (side * side == bytes) return {side, side};
  return {1, bytes};
}

void remove_file(const fs::path& path) {
  std::error_code error;
  fs::remove(path, error);
  if (error) {
    throw std::runtime_error(fmt::format("cannot remove '{}': {}", path.string(), error.message()));
  }
}

}  // namespace

void write_idx(const fs::path& folder, const DataSplit& split, std::uint32_t bytes) {
  std::vector<ReplacedFile> files;
  std::vector<fs::path> without;
  const auto [rows, columns] = image_shape(bytes);
  for (const auto& [name, part] : {std::pair("train", &split.train), {"dev", &split.dev}}) {
    const fs::path images = folder / fmt::format("{}-images-idx3-ubyte", name);
    const fs::path labels = folder / fmt::format("{}-labels-idx1-ubyte", name);
    if (part == &split.dev && part->empty()) {
      without = {images, labels};
      continue;
    }
    ReplacedFile& image_file = files.emplace_back(images);
    image_file.append(idx_header({part->size(), rows, columns}));
    for (const LabelledRow& row : *part) image_file.append(row.features);
    ReplacedFile& label_file = files.emplace_back(labels);
    label_file.append(idx_header({part->size()}));
    for (const LabelledRow& row : *part) {
      label_file.append(std::string(1, static_cast<char>(row.label)));
    }
  }
  ReplacedFile& names = files.emplace_back(folder / "labels.txt");
  for (const std::string& label : split.labels) names.append(label + '\n');
  for (ReplacedFile& file : files) file.finish();
  for (ReplacedFile& file : files) file.commit();
  // Those of an earlier run would be rows of another split.
  for (const fs::path& path : without) remove_file(path);
}

void write_index(const fs::path& folder, const DataSplit& split) {
  ReplacedFile file(folder / "sessions.csv");
  file.append("part,image,session,protocol,src,src_port,dst,dst_port\r\n");
  for (const auto& [name, part] : {std::pair("train", &split.train), {"dev", &split.dev}}) {
    for (std::size_t i = 0; i < part->size(); ++i) {
      const RowSession& session = *(*part)[i].session;
      SessionInfo info;
      info.key = session.key;
      info.src_is_low = session.src_is_low;
      const Endpoints ends = endpoints(info);
      file.append(fmt::format("{},{},{},{},{},{},{},{}\r\n", name, i, to_hex(session.id),
                              protocol_name(info.key.protocol),
                              to_string(ends.src, info.key.family), ends.src_port,
                              to_string(ends.dst, info.key.family), ends.dst_port));
    }
  }
  file.finish();
  file.commit();
}

}  // namespace millrace
