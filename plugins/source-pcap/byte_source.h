#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <stop_token>
#include <string>

namespace millrace {

/// A stream of bytes that is read once from the beginning: a file or standard input, unpacked if it
/// is compressed with gzip (RFC 1952) or zstd (RFC 8878), which its first bytes tell.
class ByteSource {
 public:
  ByteSource() = default;
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;
  virtual ~ByteSource() = default;

  /// Reads at least one byte, unless the stream has ended (then 0). Throws std::runtime_error
  /// naming the file: read errors and damaged compressed data, after all that was unpacked before
  /// the damage. A compressed file that is cut off counts as ended, and `cut_off` says so.
  virtual std::size_t read(std::span<std::byte> to) = 0;
  /// Bytes of the file itself that were read so far.
  [[nodiscard]] virtual std::uint64_t raw_position() const = 0;
  [[nodiscard]] virtual bool cut_off() const { return false; }
};

/// "-" is standard input. Throws std::system_error if the file cannot be opened. A read that waits
/// for a silent pipe ends as soon as `stop` is requested, as if the stream had ended.
[[nodiscard]] std::unique_ptr<ByteSource> open_bytes(const std::filesystem::path& path,
                                                     const std::stop_token& stop);

enum class Packing : std::uint8_t { none, gzip, zstd };

struct Unpacked {
  Packing packing = Packing::none;
  std::unique_ptr<ByteSource> bytes;
};

/// Unpacks `raw` if its first bytes tell that it is compressed. `name` is for messages. A zstd
/// stream that needs a window of more than 2^`zstd_window` bytes counts as damaged; 0: the
/// library's own bound, 128 MiB.
[[nodiscard]] Unpacked unpack(const std::string& name, std::unique_ptr<ByteSource> raw,
                              int zstd_window = 0);

/// What a file that begins like this is if it is compressed or packed in a way that is not read, or
/// a capture in another format, and what to do: "is compressed with xz; unpack it first". Empty:
/// none of these. A tar archive needs 262 bytes.
[[nodiscard]] std::string foreign_format(std::span<const std::byte> head);

/// For what has been read already: `head` comes first.
[[nodiscard]] std::unique_ptr<ByteSource> with_head(std::span<const std::byte> head,
                                                    std::unique_ptr<ByteSource> rest);

/// Fills `to` as far as the stream reaches.
std::size_t read_fully(ByteSource& source, std::span<std::byte> to);

}  // namespace millrace
