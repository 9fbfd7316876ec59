#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "millrace/context.h"

#include "chunk.h"
#include "options.h"

namespace millrace {

/// What a file takes on the disk, at least.
[[nodiscard]] constexpr std::uint64_t on_disk(std::uint64_t bytes) {
  constexpr std::uint64_t kBlock = 4096;
  return (bytes + kBlock - 1) / kBlock * kBlock;
}

/// Where chunks are files. Functions that can fail throw std::system_error with the file's name.
///
/// Threads: `begin`, `seal` and `open` from any thread for different chunks; the others from one
/// thread at a time.
class ChunkStore {
 public:
  ChunkStore() = default;
  ChunkStore(const ChunkStore&) = delete;
  ChunkStore& operator=(const ChunkStore&) = delete;
  virtual ~ChunkStore() = default;

  /// The folder that is meant by "tmp", or this one.
  static std::unique_ptr<ChunkStore> make(const UploadOptions& options);

  /// Whether a sealed chunk outlives the process.
  [[nodiscard]] virtual bool durable() const = 0;
  /// So many chunks may be there at a time.
  [[nodiscard]] virtual std::size_t most_chunks() const = 0;
  /// Takes the folder for this process and returns the chunks that an earlier one has left, oldest
  /// first. Throws ConfigError for the option "spool".
  virtual std::vector<std::unique_ptr<Chunk>> open(Context& context) = 0;

  /// Opens `chunk.file` for a new chunk.
  virtual void begin(Chunk& chunk) = 0;
  /// The chunk is complete: it gets its final name, and is on the disk when this returns.
  virtual void seal(Chunk& chunk) = 0;
  /// For reading, from any position.
  [[nodiscard]] virtual Descriptor read(const Chunk& chunk) const = 0;
  virtual void remove(const Chunk& chunk) noexcept = 0;

  enum class Aside : std::uint8_t { rejected, damaged };
  /// Moves a chunk out of the way, with the reason in a file beside it.
  virtual void set_aside(const Chunk& chunk, Aside where, const std::string& reason) = 0;
  /// What files that are out of the way take on the disk.
  [[nodiscard]] virtual std::uint64_t aside_bytes() const = 0;
  /// Removes the oldest of those; false if there is none.
  virtual bool drop_aside() = 0;
};

}  // namespace millrace
