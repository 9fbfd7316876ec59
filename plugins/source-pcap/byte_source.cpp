#include "byte_source.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>
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

/// What the two decompressors share: a block of packed bytes, and the order of things at damage:
/// first what was unpacked before it, then the error.
class Packed : public ByteSource {
 public:
  Packed(std::string name, std::string_view kind, std::unique_ptr<ByteSource> raw)
      : name_(std::move(name)), kind_(kind), raw_(std::move(raw)), block_(kBlock) {}

  std::size_t read(std::span<std::byte> to) final {
    std::size_t filled = 0;
    while (filled < to.size()) {
      if (!problem_.empty()) {
        if (filled != 0) break;
        throw std::runtime_error(problem_);
      }
      // What filled the last buffer may have left something in the library: it comes first.
      const bool flush = inside_ && std::exchange(full_, false);
      if (!flush && at_ == size_) {
        // The file may be a pipe that stays silent: what is there is given.
        if (filled != 0) break;
        if (!refill()) {
          cut_off_ = inside_;
          break;
        }
      }
      if (!inside_ && !begins()) continue;
      const auto rest = to.subspan(filled);
      std::size_t made = 0;
      inside_ = unpack(flush ? std::span<const std::byte>() : packed(), rest, made);
      full_ = made == rest.size();
      filled += made;
    }
    return filled;
  }
  [[nodiscard]] std::uint64_t raw_position() const override { return raw_->raw_position(); }
  [[nodiscard]] bool cut_off() const override { return cut_off_; }

 protected:
  /// Unpacks some of `from`, and skips it. False: a member or frame has come to its end.
  virtual bool unpack(std::span<const std::byte> from, std::span<std::byte> to,
                      std::size_t& made) = 0;
  /// Whether a member or frame can begin with this byte.
  [[nodiscard]] virtual bool can_begin(std::byte first) const = 0;
  virtual void restart() {}

  void damaged(std::string_view message) {
    problem_ =
        fmt::format("{}: damaged {} data near byte {}: {}", name_, kind_, position(), message);
  }
  void skip(std::size_t count) { at_ += count; }

 private:
  [[nodiscard]] std::span<const std::byte> packed() const {
    return std::span(block_).subspan(at_, size_ - at_);
  }
  [[nodiscard]] std::uint64_t position() const { return raw_->raw_position() - (size_ - at_); }
  /// False at the end of the file.
  bool refill() {
    size_ = raw_->read(block_);
    at_ = 0;
    return size_ != 0;
  }
  /// Between members and frames: another one, or zeros that pad the file. False: there is nothing
  /// to unpack in this block.
  bool begins() {
    while (at_ < size_ && block_[at_] == std::byte{0}) {
      padded_ = true;
      ++at_;
    }
    if (at_ == size_) return false;
    if (padded_ || !can_begin(block_[at_])) {
      damaged(fmt::format("what follows is no {} data", kind_));
      return false;
    }
    restart();
    inside_ = true;
    return true;
  }

  std::string name_;
  std::string_view kind_;
  std::unique_ptr<ByteSource> raw_;
  std::vector<std::byte> block_;
  std::size_t at_ = 0;
  std::size_t size_ = 0;
  bool inside_ = false;  ///< a member or frame
  bool full_ = false;    ///< the last buffer was
  bool padded_ = false;
  bool cut_off_ = false;
  std::string problem_;
};

class GzipSource final : public Packed {
 public:
  GzipSource(std::string name, std::unique_ptr<ByteSource> raw)
      : Packed(std::move(name), "gzip", std::move(raw)) {
    constexpr int kGzipOnly = 15 + 16;
    if (inflateInit2(&stream_, kGzipOnly) != Z_OK) throw std::bad_alloc();
  }
  ~GzipSource() override { inflateEnd(&stream_); }
  GzipSource(const GzipSource&) = delete;
  GzipSource& operator=(const GzipSource&) = delete;

 private:
  [[nodiscard]] bool can_begin(std::byte first) const override { return first == std::byte{0x1F}; }
  void restart() override { inflateReset(&stream_); }

  bool unpack(std::span<const std::byte> from, std::span<std::byte> to,
              std::size_t& made) override {
    stream_.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(from.data()));
    stream_.avail_in = static_cast<uInt>(from.size());
    stream_.next_out = reinterpret_cast<Bytef*>(to.data());
    stream_.avail_out = static_cast<uInt>(to.size());
    const int result = inflate(&stream_, Z_NO_FLUSH);
    skip(from.size() - stream_.avail_in);
    made = to.size() - stream_.avail_out;
    if (result != Z_OK && result != Z_BUF_ERROR && result != Z_STREAM_END) {
      damaged(stream_.msg != nullptr ? stream_.msg : "inflate failed");
    }
    return result != Z_STREAM_END;
  }

  z_stream stream_{};
};

class ZstdSource final : public Packed {
 public:
  ZstdSource(std::string name, std::unique_ptr<ByteSource> raw, int window)
      : Packed(std::move(name), "zstd", std::move(raw)), stream_(ZSTD_createDStream()) {
    if (!stream_) throw std::bad_alloc();
    if (window != 0) ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax, window);
    wanted_ = ZSTD_initDStream(stream_.get());
  }

 private:
  // The magic numbers of frames and of skippable ones (RFC 8878 section 3.1).
  [[nodiscard]] bool can_begin(std::byte first) const override {
    return first == std::byte{0x28} || (first & std::byte{0xF0}) == std::byte{0x50};
  }

  /// A call that fails does not say what it had unpacked. So each one gets what the library asks
  /// for: a block, or the check behind the last one, and only that is lost.
  bool unpack(std::span<const std::byte> from, std::span<std::byte> to,
              std::size_t& made) override {
    ZSTD_inBuffer in{from.data(), std::min(from.size(), wanted_), 0};
    ZSTD_outBuffer out{to.data(), to.size(), 0};
    const std::size_t result = ZSTD_decompressStream(stream_.get(), &out, &in);
    if (ZSTD_isError(result) != 0) {
      damaged(ZSTD_getErrorName(result));
      return true;
    }
    skip(in.pos);
    made = out.pos;
    wanted_ = result != 0 ? result : ZSTD_initDStream(stream_.get());
    return result != 0;
  }

  struct Free {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };
  std::unique_ptr<ZSTD_DStream, Free> stream_;
  std::size_t wanted_ = 0;
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

namespace {

struct Magic {
  std::string_view bytes;
  std::string_view what;
  std::string_view remedy;
};

using namespace std::string_view_literals;

/// What users take for captures, and what helps.
constexpr Magic kOthers[] = {
    {"\xFD\x37\x7A\x58\x5A\0"sv, "is compressed with xz", "unpack it first"},
    {"\x5D\0\0"sv, "is compressed with lzma", "unpack it first"},
    {"LZIP"sv, "is compressed with lzip", "unpack it first"},
    {"\x04\x22\x4D\x18"sv, "is compressed with lz4", "unpack it first"},
    {"\x02\x21\x4C\x18"sv, "is compressed with lz4", "unpack it first"},
    {"BZh"sv, "is compressed with bzip2", "unpack it first"},
    {"\x1F\x9D"sv, "is compressed with compress", "unpack it first"},
    {"PK\x03\x04"sv, "is a zip archive", "unpack it first"},
    {"7z\xBC\xAF\x27\x1C"sv, "is a 7z archive", "unpack it first"},
    {"Rar!"sv, "is a rar archive", "unpack it first"},
    {"\x1F\x8B"sv, "is compressed with gzip twice", "unpack it first"},
    {"\x28\xB5\x2F\xFD"sv, "is compressed with zstd twice", "unpack it first"},
    {"snoop\0\0\0"sv, "is a snoop capture", "convert it to pcap with editcap"},
    {"GMBU"sv, "is a Network Monitor capture", "convert it to pcap with editcap"},
    {"RTSS"sv, "is a Network Monitor capture", "convert it to pcap with editcap"},
};

}  // namespace

std::string foreign_format(std::span<const std::byte> head) {
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  for (const Magic& magic : kOthers) {
    if (text.starts_with(magic.bytes)) return fmt::format("{}; {}", magic.what, magic.remedy);
  }
  constexpr std::size_t kTarMagic = 257;
  if (text.size() > kTarMagic && text.substr(kTarMagic).starts_with("ustar")) {
    return "is a tar archive; unpack it first";
  }
  return {};
}

Unpacked unpack(const std::string& name, std::unique_ptr<ByteSource> raw, int zstd_window) {
  std::byte magic[4] = {};
  const std::size_t size = read_fully(*raw, magic);
  raw = with_head(std::span(magic).first(size), std::move(raw));
  const std::string_view head(reinterpret_cast<const char*>(magic), size);
  if (head.starts_with("\x1F\x8B")) {
    return {Packing::gzip, std::make_unique<GzipSource>(name, std::move(raw))};
  }
  // A skippable frame may come first: pzstd begins with one.
  const bool skippable = size == 4 && (magic[0] & std::byte{0xF0}) == std::byte{0x50} &&
                         head.substr(1) == "\x2A\x4D\x18";
  if (head == "\x28\xB5\x2F\xFD" || skippable) {
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
