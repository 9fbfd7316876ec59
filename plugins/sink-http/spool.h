#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "millrace/context.h"

#include "answer.h"
#include "chunk.h"
#include "chunk_store.h"
#include "schedule.h"
#include "seldom.h"

namespace millrace {

/// The chunks between the capture and the server, within a bound. Keeps the stage's books: every
/// packet is handled or dropped once, see Context.
///
/// Threads: one writer (`append`, `close`, `refuses`), any number of uploaders (`take`, `read`,
/// `settle`), and one of its own that brings closed chunks to the disk, so that the writer does not
/// wait for that. `open`, `wait_until_empty` and `end` belong to the stage's thread.
class Spool {
 public:
  Spool(const UploadOptions& options, Context& context);
  ~Spool();
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  /// Throws ConfigError.
  void open();

  // For the writer.
  [[nodiscard]] std::unique_ptr<Chunk> make_chunk();
  /// Adds a frame to the chunk's file. Where it has no room, room is made as `when_full` says.
  /// False: there is none, and the chunk is as before. Throws if the file cannot be written at all.
  bool append(Chunk& chunk, std::span<const char> frame);
  /// Counts what `append` had no room for, or what was not even tried.
  void dropped(std::uint64_t packets);
  /// True while it is in vain to compress anything.
  [[nodiscard]] bool refuses() const;
  /// The chunk is complete; it is uploaded from now on.
  void close(std::unique_ptr<Chunk> chunk);
  /// Nothing of the chunk found room.
  void discard(std::unique_ptr<Chunk> chunk);

  // For uploaders.
  /// Waits for a chunk that is due; it is the caller's until `settle`. Null: asked to stop.
  Chunk* take(const std::stop_token& stop);
  [[nodiscard]] Descriptor read(const Chunk& chunk) const { return store_->read(chunk); }
  void settle(Chunk& chunk, const Answer& answer);
  /// The chunk's file cannot be sent by anybody.
  void damaged(Chunk& chunk, const std::string& reason);

  // For the end.
  /// What waits for a pause of our own is tried at once.
  void hurry();
  bool wait_until_empty(std::chrono::steady_clock::time_point deadline);
  /// After the last uploader: puts what is left on the books, and says so.
  void end() noexcept;

 private:
  using Chunks = std::map<std::uint64_t, std::unique_ptr<Chunk>>;  // by Chunk::order
  using Receipts = std::vector<Receipt>;

  void notify();
  void seal_all(const std::stop_token& stop);
  enum class Written : std::uint8_t { all, disk_full, no_descriptor };
  Written write_frame(Chunk& chunk, std::span<const char> frame);
  bool make_room_on_disk(Chunk& chunk, Written problem);
  void add(std::unique_ptr<Chunk> chunk);
  bool seal(Chunk& chunk) noexcept;
  bool make_room(std::uint64_t size, bool new_chunk);
  bool free_some(Receipts& done);
  [[nodiscard]] std::uint64_t used() const;
  void fail(Chunk& chunk, Failure failure, const Answer& answer);
  Receipts forget(Chunk& chunk);
  void overflows();
  void drop(Chunk& chunk, std::string_view reason, std::string_view recovered);
  void put_aside(Chunk& chunk, ChunkStore::Aside where, const std::string& reason);
  void leave(Chunk& chunk);

  const UploadOptions& options_;
  Context& context_;
  Condition& room_;
  struct Counters;
  std::unique_ptr<Counters> counters_;
  std::unique_ptr<ChunkStore> store_;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::uint64_t changes_ = 0;  ///< so often `notify`
  Chunks chunks_;              ///< all that are closed, oldest first
  std::uint64_t stored_ = 0;   ///< on the disk, by those
  std::uint64_t writing_ = 0;  ///< on the disk, by the one that is being written
  std::uint64_t next_number_ = 1;
  std::size_t unsealed_ = 0;
  std::size_t under_way_ = 0;
  bool full_ = false;  ///< there was no room, and nothing has become free since
  std::string_view why_full_;
  Schedule schedule_;
  Seldom tell_drops_{std::chrono::seconds(10)};
  std::uint64_t untold_drops_ = 0;

  std::jthread sealer_;  ///< last: it uses all of the above
};

}  // namespace millrace
