#include "byte_source.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

namespace millrace {

namespace {

constexpr std::size_t kBlock = std::size_t{128} * 1024;

class RawSource final : public ByteSource {
 public:
  RawSource(const std::filesystem::path& path, std::stop_token stop)
      : name_(path.string()), stop_(std::move(stop)) {
    if (name_ == "-") {
      fd_ = ::dup(STDIN_FILENO);
    } else {
      fd_ = ::open(name_.c_str(), O_RDONLY | O_CLOEXEC);
    }
    if (fd_ < 0) throw std::system_error(errno, std::generic_category(), name_);
    ::posix_fadvise(fd_, 0, 0, POSIX_FADV_SEQUENTIAL);
  }
  ~RawSource() override { ::close(fd_); }
  RawSource(const RawSource&) = delete;
  RawSource& operator=(const RawSource&) = delete;

  std::size_t read(std::span<std::byte> to) override {
    while (true) {
      // A pipe may be silent for long; files are always ready.
      pollfd wait{fd_, POLLIN, 0};
      constexpr int kPatienceMs = 50;
      if (::poll(&wait, 1, kPatienceMs) == 0) {
        if (stop_.stop_requested()) return 0;
        continue;
      }
      const ssize_t got = ::read(fd_, to.data(), to.size());
      if (got >= 0) {
        position_ += static_cast<std::uint64_t>(got);
        return static_cast<std::size_t>(got);
      }
      if (errno != EINTR && errno != EAGAIN) {
        throw std::system_error(errno, std::generic_category(), "cannot read " + name_);
      }
    }
  }
  [[nodiscard]] std::uint64_t raw_position() const override { return position_; }

 private:
  std::string name_;
  std::stop_token stop_;
  int fd_ = -1;
  std::uint64_t position_ = 0;
};

class HeadSource final : public ByteSource {
 public:
  HeadSource(std::span<const std::byte> head, std::unique_ptr<ByteSource> rest)
      : head_(head.begin(), head.end()), rest_(std::move(rest)) {}

  std::size_t read(std::span<std::byte> to) override {
    if (at_ == head_.size()) return rest_->read(to);
    const std::size_t size = std::min(to.size(), head_.size() - at_);
    std::memcpy(to.data(), head_.data() + at_, size);
    at_ += size;
    return size;
  }
  [[nodiscard]] std::uint64_t raw_position() const override { return rest_->raw_position(); }
  [[nodiscard]] bool cut_off() const override { return rest_->cut_off(); }

 private:
  std::vector<std::byte> head_;
  std::size_t at_ = 0;
  std::unique_ptr<ByteSource> rest_;
};

/// What the two decompressors share: a block of packed bytes.
class Packed : public ByteSource {
 public:
  Packed(std::string name, std::unique_ptr<ByteSource> raw)
      : name_(std::move(name)), raw_(std::move(raw)), block_(kBlock) {}
  [[nodiscard]] std::uint64_t raw_position() const override { return raw_->raw_position(); }
  [[nodiscard]] bool cut_off() const override { return cut_off_; }

 protected:
  /// False at the end of the file.
  bool refill() {
    size_ = raw_->read(block_);
    at_ = 0;
    return size_ != 0;
  }
  [[noreturn]] void damaged(std::string_view kind, std::string_view message) const {
    throw std::runtime_error(fmt::format("{}: damaged {} data near byte {}: {}", name_, kind,
                                         raw_->raw_position() - (size_ - at_), message));
  }

  std::string name_;
  std::unique_ptr<ByteSource> raw_;
  std::vector<std::byte> block_;
  std::size_t at_ = 0;
  std::size_t size_ = 0;
  bool cut_off_ = false;
};

class GzipSource final : public Packed {
 public:
  GzipSource(std::string name, std::unique_ptr<ByteSource> raw)
      : Packed(std::move(name), std::move(raw)) {
    constexpr int kGzipOnly = 15 + 16;
    if (inflateInit2(&stream_, kGzipOnly) != Z_OK) throw std::bad_alloc();
  }
  ~GzipSource() override { inflateEnd(&stream_); }
  GzipSource(const GzipSource&) = delete;
  GzipSource& operator=(const GzipSource&) = delete;

  std::size_t read(std::span<std::byte> to) override {
    while (true) {
      if (at_ == size_ && !refill()) {
        cut_off_ = inside_;
        return 0;
      }
      if (!inside_) {
        // Another member may follow, or bytes that pad the file.
        if (block_[at_] != std::byte{0x1F}) return 0;
        inflateReset(&stream_);
        inside_ = true;
      }
      stream_.next_in = reinterpret_cast<Bytef*>(block_.data() + at_);
      stream_.avail_in = static_cast<uInt>(size_ - at_);
      stream_.next_out = reinterpret_cast<Bytef*>(to.data());
      stream_.avail_out = static_cast<uInt>(to.size());
      const int result = inflate(&stream_, Z_NO_FLUSH);
      at_ = size_ - stream_.avail_in;
      if (result == Z_STREAM_END) {
        inside_ = false;
      } else if (result != Z_OK && result != Z_BUF_ERROR) {
        damaged("gzip", stream_.msg != nullptr ? stream_.msg : "inflate failed");
      }
      if (const std::size_t made = to.size() - stream_.avail_out; made != 0) return made;
    }
  }

 private:
  z_stream stream_{};
  bool inside_ = false;
};

class ZstdSource final : public Packed {
 public:
  ZstdSource(std::string name, std::unique_ptr<ByteSource> raw, int window)
      : Packed(std::move(name), std::move(raw)), stream_(ZSTD_createDStream()) {
    if (!stream_) throw std::bad_alloc();
    if (window != 0) ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax, window);
  }

  std::size_t read(std::span<std::byte> to) override {
    while (true) {
      if (at_ == size_ && !refill()) {
        cut_off_ = inside_;
        return 0;
      }
      ZSTD_inBuffer in{block_.data(), size_, at_};
      ZSTD_outBuffer out{to.data(), to.size(), 0};
      const std::size_t result = ZSTD_decompressStream(stream_.get(), &out, &in);
      at_ = in.pos;
      if (ZSTD_isError(result) != 0) damaged("zstd", ZSTD_getErrorName(result));
      inside_ = result != 0;
      if (out.pos != 0) return out.pos;
    }
  }

 private:
  struct Free {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };
  std::unique_ptr<ZSTD_DStream, Free> stream_;
  bool inside_ = false;
};

}  // namespace

std::size_t read_fully(ByteSource& source, std::span<std::byte> to) {
  std::size_t filled = 0;
  while (filled < to.size()) {
    const std::size_t got = source.read(to.subspan(filled));
    if (got == 0) break;
    filled += got;
  }
  return filled;
}

std::unique_ptr<ByteSource> with_head(std::span<const std::byte> head,
                                      std::unique_ptr<ByteSource> rest) {
  return std::make_unique<HeadSource>(head, std::move(rest));
}

Unpacked unpack(const std::string& name, std::unique_ptr<ByteSource> raw, int zstd_window) {
  std::byte magic[4] = {};
  const std::size_t size = read_fully(*raw, magic);
  raw = with_head(std::span(magic).first(size), std::move(raw));
  constexpr std::byte kGzip[] = {std::byte{0x1F}, std::byte{0x8B}};
  constexpr std::byte kZstd[] = {std::byte{0x28}, std::byte{0xB5}, std::byte{0x2F},
                                 std::byte{0xFD}};
  if (size >= sizeof kGzip && std::equal(std::begin(kGzip), std::end(kGzip), magic)) {
    return {Packing::gzip, std::make_unique<GzipSource>(name, std::move(raw))};
  }
  if (size >= sizeof kZstd && std::equal(std::begin(kZstd), std::end(kZstd), magic)) {
    return {Packing::zstd, std::make_unique<ZstdSource>(name, std::move(raw), zstd_window)};
  }
  return {Packing::none, std::move(raw)};
}

std::unique_ptr<ByteSource> open_bytes(const std::filesystem::path& path,
                                       const std::stop_token& stop) {
  const std::string name = path == "-" ? "standard input" : path.string();
  return unpack(name, std::make_unique<RawSource>(path, stop)).bytes;
}

}  // namespace millrace
