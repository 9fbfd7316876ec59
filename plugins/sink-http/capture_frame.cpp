#include "capture_frame.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <system_error>

#include <fmt/format.h>
#include <unistd.h>
#include <zstd.h>

namespace millrace {

namespace {

constexpr std::uint32_t kMagic = 0xA1B23C4D;
constexpr std::int64_t kSecond = 1000000000;

std::size_t checked(std::size_t result) {
  if (ZSTD_isError(result) != 0) {
    throw std::runtime_error(fmt::format("zstd: {}", ZSTD_getErrorName(result)));
  }
  return result;
}

std::uint32_t word(const std::vector<char>& bytes, std::size_t at) {
  std::uint32_t value = 0;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

/// Walks the records of an unpacked frame.
std::string walk(const std::vector<char>& raw, bool first, std::uint64_t& packets) {
  std::size_t at = 0;
  if (first) {
    if (raw.size() < kFileHeader || word(raw, 0) != kMagic) return "no capture of this stage";
    at = kFileHeader;
  }
  while (at < raw.size()) {
    if (raw.size() - at < kRecordHeader) return "a record that breaks off";
    const std::uint32_t captured = word(raw, at + 8);
    at += kRecordHeader;
    if (captured > kMostCaptured || captured > raw.size() - at) return "a record that breaks off";
    at += captured;
    ++packets;
  }
  return {};
}

/// A window into a file that slides from frame to frame.
class FrameReader {
 public:
  explicit FrameReader(int file) : file_(file), context_(ZSTD_createDCtx()) {
    if (!context_) throw std::bad_alloc();
  }

  /// The next frame, unpacked into `raw`; false at the end or where `problem` is told.
  bool next(std::vector<char>& raw, std::string& problem) {
    while (true) {
      const char* const begin = window_.data() + at_;
      const std::size_t there = window_.size() - at_;
      const std::size_t size = there == 0 ? 0 : ZSTD_findFrameCompressedSize(begin, there);
      if (there != 0 && ZSTD_isError(size) == 0) return unpack(begin, size, raw, problem);
      if (there >= ZSTD_compressBound(kMostFrame)) {
        problem = fmt::format("no zstd frame: {}", ZSTD_getErrorName(size));
        return false;
      }
      if (refill()) continue;
      if (there != 0) problem = fmt::format("no whole zstd frame: {}", ZSTD_getErrorName(size));
      return false;
    }
  }
  [[nodiscard]] std::uint64_t frame_size() const { return frame_size_; }

 private:
  struct Free {
    void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
  };

  bool unpack(const char* begin, std::size_t size, std::vector<char>& raw, std::string& problem) {
    const unsigned long long content = ZSTD_getFrameContentSize(begin, size);
    if (content == ZSTD_CONTENTSIZE_UNKNOWN || content == ZSTD_CONTENTSIZE_ERROR ||
        content > kMostFrame) {
      problem = "a zstd frame that this stage has not written";
      return false;
    }
    raw.resize(content);
    const std::size_t got =
        ZSTD_decompressDCtx(context_.get(), raw.data(), raw.size(), begin, size);
    if (ZSTD_isError(got) != 0 || got != content) {
      problem = fmt::format("a damaged zstd frame: {}", ZSTD_getErrorName(got));
      return false;
    }
    at_ += size;
    frame_size_ = size;
    return true;
  }

  bool refill() {
    constexpr std::size_t kStep = std::size_t{1} << 20U;
    window_.erase(window_.begin(), window_.begin() + static_cast<std::ptrdiff_t>(at_));
    at_ = 0;
    const std::size_t before = window_.size();
    window_.resize(before + kStep);
    ssize_t got = 0;
    do {
      got = ::pread(file_, window_.data() + before, kStep, static_cast<off_t>(offset_));
    } while (got < 0 && errno == EINTR);
    if (got < 0) throw std::system_error(errno, std::generic_category(), "cannot read the chunk");
    offset_ += static_cast<std::uint64_t>(got);
    window_.resize(before + static_cast<std::size_t>(got));
    return got > 0;
  }

  int file_;
  std::unique_ptr<ZSTD_DCtx, Free> context_;
  std::vector<char> window_;
  std::size_t at_ = 0;
  std::uint64_t offset_ = 0;
  std::uint64_t frame_size_ = 0;
};

}  // namespace

void CaptureFrame::Free::operator()(ZSTD_CCtx_s* context) const { ZSTD_freeCCtx(context); }

CaptureFrame::CaptureFrame(int level) : context_(ZSTD_createCCtx()) {
  if (!context_) throw std::bad_alloc();
  checked(ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, level));
  checked(ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_checksumFlag, 1));
}

CaptureFrame::~CaptureFrame() = default;

void CaptureFrame::put(std::uint32_t value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  raw_.append(bytes, sizeof bytes);
}

void CaptureFrame::begin_capture(LinkType link) {
  put(kMagic);
  put(2U | 4U << 16U);  // version 2.4
  put(0);
  put(0);
  put(kMostCaptured);
  // In files raw IP has a number of its own.
  put(static_cast<std::uint32_t>(link == LinkType::raw_dlt ? LinkType::raw : link));
}

void CaptureFrame::add(const Packet& packet) {
  const std::int64_t time = packet.time.time_since_epoch().count();
  put(static_cast<std::uint32_t>(time / kSecond));
  put(static_cast<std::uint32_t>(time % kSecond));
  put(packet.captured);
  put(packet.length);
  if (packet.captured != 0) {
    raw_.append(reinterpret_cast<const char*>(packet.data), packet.captured);
  }
  ++packets_;
}

void CaptureFrame::clear() {
  raw_.clear();
  packets_ = 0;
}

std::span<const char> CaptureFrame::pack() {
  packed_.resize(ZSTD_compressBound(raw_.size()));
  const std::size_t size = checked(
      ZSTD_compress2(context_.get(), packed_.data(), packed_.size(), raw_.data(), raw_.size()));
  return std::span(packed_).first(size);
}

bool fits_capture(const Packet& packet) {
  const std::int64_t time = packet.time.time_since_epoch().count();
  return packet.captured <= kMostCaptured && time >= 0 &&
         time / kSecond <= std::numeric_limits<std::uint32_t>::max();
}

ChunkContent read_chunk(int file) {
  ChunkContent content;
  FrameReader reader(file);
  std::vector<char> raw;
  while (reader.next(raw, content.problem)) {
    std::uint64_t packets = 0;
    content.problem = walk(raw, content.good_bytes == 0, packets);
    if (!content.problem.empty()) break;
    content.good_bytes += reader.frame_size();
    content.packets += packets;
  }
  return content;
}

}  // namespace millrace
