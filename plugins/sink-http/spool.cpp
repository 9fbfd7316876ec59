#include "spool.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <system_error>
#include <utility>

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include "spool_counters.h"
#include "threads.h"

namespace millrace {

namespace {

constexpr std::string_view kSpoolFull = "spool-full";
constexpr std::string_view kDiskFull = "disk-full";
/// Chunks that may wait for the disk before the writer does.
constexpr std::size_t kMostUnsealed = 4;

bool no_space(int error) { return error == ENOSPC || error == EDQUOT; }
bool no_descriptor(int error) { return error == EMFILE || error == ENFILE; }

}  // namespace

Spool::Spool(const UploadOptions& options, Context& context)
    : options_(options),
      context_(context),
      room_(context.condition("spool")),
      counters_(std::make_unique<Counters>(context)),
      store_(ChunkStore::make(options)),
      schedule_(options) {}

Spool::~Spool() { end(); }

void Spool::open() {
  for (std::unique_ptr<Chunk>& chunk : store_->open(context_)) {
    counters_->recovered.add();
    counters_->recovered_packets.add(chunk->packets);
    chunk->order = chunk->name.number;
    // Equal numbers come only from files that somebody has put here: the next free one will do.
    while (chunks_.contains(chunk->order)) ++chunk->order;
    next_number_ = std::max(next_number_, chunk->order + 1);
    add(std::move(chunk));
  }
  if (!chunks_.empty()) {
    context_.info(
        fmt::format("{} chunks of an earlier run wait in '{}'", chunks_.size(), options_.spool));
  }
  sealer_ = start_thread([this](const std::stop_token& stop) { seal_all(stop); });
}

// --- Writing -------------------------------------------------------------------------------------

std::unique_ptr<Chunk> Spool::make_chunk() {
  auto chunk = std::make_unique<Chunk>();
  const auto now = std::chrono::floor<std::chrono::seconds>(context_.clock().now());
  chunk->name.time = fmt::format("{:%Y%m%dT%H%M%SZ}", fmt::gmtime(now.time_since_epoch().count()));
  chunk->name.id = random_chunk_id();
  const std::lock_guard lock(mutex_);
  chunk->order = chunk->name.number = next_number_++;
  return chunk;
}

bool Spool::append(Chunk& chunk, std::span<const char> frame) {
  while (make_room(on_disk(chunk.bytes + frame.size()), !chunk.file)) {
    const Written written = write_frame(chunk, frame);
    if (written == Written::all) {
      chunk.bytes += frame.size();
      counters_->spooled_bytes.add(frame.size());
      return true;
    }
    if (!make_room_on_disk(chunk, written)) return false;
  }
  return false;
}

/// Unless all of the frame is written the file is as before.
Spool::Written Spool::write_frame(Chunk& chunk, std::span<const char> frame) {
  if (!chunk.file) {
    try {
      store_->begin(chunk);
    } catch (const std::system_error& error) {
      if (no_space(error.code().value())) return Written::disk_full;
      if (no_descriptor(error.code().value())) return Written::no_descriptor;
      throw;
    }
  }
  std::size_t written = 0;
  while (written < frame.size()) {
    const ssize_t done = ::pwrite(chunk.file.get(), frame.data() + written, frame.size() - written,
                                  static_cast<off_t>(chunk.bytes + written));
    if (done > 0) {
      written += static_cast<std::size_t>(done);
      continue;
    }
    const int error = done == 0 ? ENOSPC : errno;
    if (error == EINTR) continue;
    // What is behind the last whole frame would be cut off by the next start, too.
    if (::ftruncate(chunk.file.get(), static_cast<off_t>(chunk.bytes)) == 0 && no_space(error)) {
      return Written::disk_full;
    }
    throw std::system_error(error, std::generic_category(),
                            fmt::format("cannot write '{}'", chunk.name.file()));
  }
  return Written::all;
}

/// After the system had no room. True: it is worth another try.
bool Spool::make_room_on_disk(Chunk& chunk, Written problem) {
  Receipts done;
  bool room = false;
  {
    const std::lock_guard lock(mutex_);
    writing_ = chunk.file ? on_disk(chunk.bytes) : 0;
    // A file that is removed gives a descriptor back only where it has no name.
    room = (problem == Written::disk_full || !store_->durable()) && free_some(done);
    if (!room) why_full_ = kDiskFull;
  }
  for (Receipt& receipt : done) receipt.done();
  return room;
}

/// Whether the chunk that is being written may take so much on the disk.
bool Spool::make_room(std::uint64_t size, bool new_chunk) {
  Receipts done;
  bool room = true;
  {
    const std::lock_guard lock(mutex_);
    const std::uint64_t before = std::exchange(writing_, size);
    while (room && (used() > options_.spool_bytes.bytes ||
                    (new_chunk && chunks_.size() >= store_->most_chunks()))) {
      room = free_some(done);
    }
    if (!room) {
      writing_ = before;
      full_ = true;
      why_full_ = kSpoolFull;
    }
  }
  for (Receipt& receipt : done) receipt.done();
  return room;
}

/// Gives up what is worth least; false if nothing may be given up.
bool Spool::free_some(Receipts& done) {
  if (store_->drop_aside()) return true;
  if (options_.when_full == WhenFull::drop_newest) return false;
  const auto oldest = std::ranges::find_if(
      chunks_, [](const auto& entry) { return entry.second->state == Chunk::State::waiting; });
  if (oldest == chunks_.end()) return false;
  Chunk& chunk = *oldest->second;
  counters_->dropped_chunks.add();
  drop(chunk, kSpoolFull, "the spool is full");
  store_->remove(chunk);
  std::ranges::move(forget(chunk), std::back_inserter(done));
  return true;
}

/// Until uploads have made room: it would begin anew with every chunk otherwise.
void Spool::overflows() {
  room_.fails(why_full_ == kDiskFull ? "the disk is full, packets are dropped"
                                     : "the spool is full, packets are dropped",
              Condition::Grace::none);
}

/// On the books: this chunk's packets will not arrive.
void Spool::drop(Chunk& chunk, std::string_view reason, std::string_view why) {
  if (chunk.mine) {
    context_.dropped(reason, chunk.packets);
  } else {
    counters_->dropped_recovered.add(chunk.packets);
  }
  if (why.empty()) return;
  overflows();
  untold_drops_ += chunk.packets;
  if (!tell_drops_.due()) return;
  context_.warning(fmt::format("{}: dropped {} packets, the oldest that wait for the server", why,
                               std::exchange(untold_drops_, 0)));
}

/// Takes a chunk off the list. Its receipts are for the caller, without the lock.
Spool::Receipts Spool::forget(Chunk& chunk) {
  Receipts receipts = std::move(chunk.receipts);
  stored_ -= on_disk(chunk.bytes);
  full_ = false;
  chunks_.erase(chunk.order);
  return receipts;
}

std::uint64_t Spool::used() const { return stored_ + writing_ + store_->aside_bytes(); }

bool Spool::refuses() const {
  const std::lock_guard lock(mutex_);
  return full_ && options_.when_full == WhenFull::drop_newest;
}

void Spool::dropped(std::uint64_t packets) {
  const std::lock_guard lock(mutex_);
  context_.dropped(why_full_, packets);
  overflows();
  untold_drops_ += packets;
  if (!tell_drops_.due()) return;
  context_.warning(fmt::format("{}: dropped {} packets",
                               why_full_ == kDiskFull ? "the disk is full" : "the spool is full",
                               std::exchange(untold_drops_, 0)));
}

void Spool::close(std::unique_ptr<Chunk> chunk) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return unsealed_ < kMostUnsealed; });
  counters_->chunks.add();
  writing_ = 0;
  chunk->state = store_->durable() ? Chunk::State::sealing : Chunk::State::waiting;
  if (store_->durable()) ++unsealed_;
  add(std::move(chunk));
  notify();
}

/// The sealing thread: does what has been closed, also when it is asked to stop.
void Spool::seal_all(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (true) {
    if (!changed_.wait(lock, stop, [this] { return unsealed_ != 0; })) return;
    const auto next = std::ranges::find_if(
        chunks_, [](const auto& entry) { return entry.second->state == Chunk::State::sealing; });
    Chunk& chunk = *next->second;
    lock.unlock();
    Receipts safe;
    if (seal(chunk)) safe.swap(chunk.receipts);
    for (Receipt& receipt : safe) receipt.done();
    lock.lock();
    chunk.state = Chunk::State::waiting;
    --unsealed_;
    notify();
  }
}

void Spool::discard(std::unique_ptr<Chunk> chunk) {
  const std::lock_guard lock(mutex_);
  writing_ = 0;
  if (chunk->file) store_->remove(*chunk);
}

/// False if the disk does not take it. It can still be sent, and its receipts wait for that.
bool Spool::seal(Chunk& chunk) noexcept {
  try {
    try {
      store_->seal(chunk);
      return true;
    } catch (const std::exception& error) {
      context_.error(fmt::format("a chunk is not safe on the disk: {}", error.what()));
    }
  } catch (const std::exception&) {
    return false;  // no memory to say so
  }
  return false;
}

/// Under the lock: whoever waits looks again.
void Spool::notify() {
  ++changes_;
  changed_.notify_all();
}

void Spool::add(std::unique_ptr<Chunk> chunk) {
  stored_ += on_disk(chunk->bytes);
  const std::uint64_t order = chunk->order;
  chunks_.emplace(order, std::move(chunk));
}

// --- Ending --------------------------------------------------------------------------------------

void Spool::hurry() {
  const std::lock_guard lock(mutex_);
  schedule_.hurry();
  notify();
}

bool Spool::wait_until_empty(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, deadline, [this] { return chunks_.empty(); });
}

void Spool::end() noexcept {
  sealer_.request_stop();
  if (sealer_.joinable()) sealer_.join();
  try {
    if (chunks_.empty()) return;
    std::uint64_t packets = 0;
    for (const auto& [order, chunk] : chunks_) {
      packets += chunk->packets;
      leave(*chunk);
    }
    context_.warning(store_->durable()
                         ? fmt::format("{} chunks with {} packets stay in '{}' for the next start",
                                       chunks_.size(), packets, options_.spool)
                         : fmt::format("dropped {} chunks with {} packets that were not uploaded",
                                       chunks_.size(), packets));
    chunks_.clear();
  } catch (const std::exception&) {
    return;  // no memory for the log line; the receipts fail with their chunks
  }
}

void Spool::leave(Chunk& chunk) {
  if (store_->durable()) {
    counters_->left.add();
    // Where it could not be brought to the disk its receipts fail with it.
    if (chunk.mine) context_.handled(chunk.packets);
    return;
  }
  counters_->dropped_chunks.add();
  context_.dropped("unsent", chunk.packets);
  for (Receipt& receipt : chunk.receipts) receipt.done();
}

}  // namespace millrace
