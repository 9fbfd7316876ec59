#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "millrace/packet.h"

struct ZSTD_CCtx_s;

namespace millrace {

/// A chunk is a capture (classic pcap with nanoseconds) in zstd frames, one after the other. Every
/// frame begins and ends with a whole record and has a checksum, so a file that breaks off is good
/// up to its last whole frame.
inline constexpr std::uint32_t kMostCaptured = 262144;
inline constexpr std::size_t kFileHeader = 24;
inline constexpr std::size_t kRecordHeader = 16;
/// Options keep a frame below this before compression; receivers need not take a larger window.
inline constexpr std::size_t kMostFrame = std::size_t{8} << 20U;

/// Collects the records of one frame. Threads: one at a time.
class CaptureFrame {
 public:
  explicit CaptureFrame(int level);
  ~CaptureFrame();
  CaptureFrame(const CaptureFrame&) = delete;
  CaptureFrame& operator=(const CaptureFrame&) = delete;

  /// The head of a capture file; before any record of the first frame.
  void begin_capture(LinkType link);
  void add(const Packet& packet);
  void clear();

  [[nodiscard]] std::size_t size() const { return raw_.size(); }
  [[nodiscard]] std::uint64_t packets() const { return packets_; }
  /// The frame as it goes to the file; valid until the next call.
  [[nodiscard]] std::span<const char> pack();

 private:
  struct Free {
    void operator()(ZSTD_CCtx_s* context) const;
  };
  void put(std::uint32_t value);

  std::unique_ptr<ZSTD_CCtx_s, Free> context_;
  std::string raw_;
  std::vector<char> packed_;
  std::uint64_t packets_ = 0;
};

/// Whether a classic capture can hold the packet.
[[nodiscard]] bool fits_capture(const Packet& packet);

/// What was found in a chunk's file.
struct ChunkContent {
  std::uint64_t good_bytes = 0;  ///< so many from its beginning are whole frames of a capture
  std::uint64_t packets = 0;     ///< in those
  std::string problem;           ///< what comes then; empty: the end
};
/// Reads all of it. Throws std::system_error where the file cannot be read.
[[nodiscard]] ChunkContent read_chunk(int file);

}  // namespace millrace
