#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "millrace/batch.h"
#include "millrace/decode.h"
#include "millrace/packet.h"
#include "millrace/packet_clock.h"
#include "millrace/session.h"
#include "millrace/time.h"

namespace millrace {

struct SessionLimits {
  std::uint32_t packets = 24;                   ///< a session is full at this many packets
  Duration delay = std::chrono::seconds(10);    ///< and due at the latest this long after its first
  Duration idle = std::chrono::seconds(60);     ///< a five-tuple idle for this long begins anew
  Duration remember = std::chrono::minutes(5);  ///< epochs are counted for `idle` and so long after
  std::uint32_t max_sessions = 1U << 20U;       ///< five-tuples remembered, due or not
  std::uint64_t max_bytes = 1ULL << 30U;        ///< packet bytes held of sessions that are not due
  std::uint32_t max_fragments = 4096;           ///< fragmented IP packets remembered
  Layer layer = Layer::l7;                      ///< lowest layer of which bytes are kept
  Duration late = PacketClock::kLate;  ///< silent sessions wait so long for packets out of order
};

/// How many packets went where. packets = stored + after_due + undecodable (by reason) +
/// lost_fragments; stored and after_due include joined fragments.
struct SessionCounts {
  std::uint64_t packets = 0;
  std::uint64_t stored = 0;            ///< became part of a session
  std::uint64_t after_due = 0;         ///< came for a session that was due already
  std::uint64_t joined_fragments = 0;  ///< later fragments among stored and after_due
  std::uint64_t lost_fragments = 0;    ///< later fragments whose first one is not remembered
  std::array<std::uint64_t, kDecodeKinds> undecodable{};  ///< by Decode; the first two stay 0
  std::uint64_t sessions = 0;                             ///< begun
  std::uint64_t forgotten = 0;      ///< done five-tuples forgotten early, table full
  std::uint64_t clock_jumps = 0;    ///< of the packets' times, see PacketClock
  Timestamp jumped_from = kNoTime;  ///< the last of them
  Timestamp jumped_to = kNoTime;
};

class SessionBatch;

/// Groups packets into sessions (design section 7), on the time that the packets carry.
///
/// A session is emitted exactly once: when it is full, when it is due by time, when it must make
/// room, or at `flush`. By time it is due to a packet of its five-tuple that comes `delay` after
/// its first one, or before the five-tuple's latest one by more than both `idle` and `delay` (the
/// clock was set back). Packets that are less out of order than that belong to it. From then on
/// packets are counted and not stored, until a TCP SYN without ACK comes or one whose time is more
/// than `idle` away from the five-tuple's latest: that begins a session with the next epoch. Epochs
/// begin again at 0 where a five-tuple was silent for `idle` and `remember`, in packet time.
///
/// No packet of another five-tuple has a part in that. A session whose five-tuple stays silent is
/// due, and a silent five-tuple is forgotten, by PacketClock, which single wrong times do not move.
///
/// A table that is full first forgets the done five-tuple that has not been in use for longest
/// (second chance: one that had packets since it was last looked at is passed over once), then
/// emits its oldest session as `evicted`. What is emitted depends on the packets alone, not on how
/// they are cut into batches.
///
/// Memory: at most about max_sessions * 180 bytes (grown as needed), max_bytes plus an eighth for
/// the blocks that hold packets, max_fragments * 96. No allocation per packet. Threads: one.
class SessionTable {
 public:
  /// Called for every session that is due, in order. The session and its packets' bytes are only
  /// valid during the call. `born` is what `add` was given with the session's first packet.
  using Emit = std::function<void(const Session& session, std::uint64_t born)>;

  /// Called for every session that begins, before it can become due. Of the info only id, key,
  /// epoch, first_seen, src_is_low and agent are filled in.
  using Begin = std::function<void(const SessionInfo& info, std::uint64_t born)>;

  explicit SessionTable(const SessionLimits& limits, Begin on_begin = {});
  SessionTable(const SessionTable&) = delete;
  SessionTable& operator=(const SessionTable&) = delete;
  ~SessionTable();

  /// `tag` is handed back as `born` with the sessions that begin in this call.
  void add(std::span<const Packet> packets, std::uint64_t tag, const Emit& emit);
  /// See BatchBase::watermark and PacketClock::hear. kStreamEnds: as `flush`, and nothing is
  /// remembered of what was there.
  void advance(Timestamp watermark, const Emit& emit);
  /// Emits the session of this key and id as `timeout` if it is not due yet. Returns whether it
  /// was.
  bool expire(const FiveTuple& key, std::string_view agent, const SessionId& id, const Emit& emit);
  /// From now on the packets of sessions that are due are gathered in the storage of `batch`, so
  /// that `batch.add`, called in Emit, need not copy them again. `batch` must outlive the table or
  /// this setting; null: no batch.
  void gather_into(SessionBatch* batch) noexcept;
  /// Emits everything that is not due yet, oldest first, as `end` (or `timeout`, where that much
  /// time has passed).
  void flush(const Emit& emit);

  [[nodiscard]] const SessionCounts& counts() const noexcept;
  [[nodiscard]] std::size_t size() const noexcept;          ///< five-tuples remembered
  [[nodiscard]] std::size_t active() const noexcept;        ///< sessions not due yet
  [[nodiscard]] std::uint64_t bytes_held() const noexcept;  ///< of packets, in blocks

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

/// Collects sessions into a batch that owns copies of their packets' bytes.
class SessionBatch {
 public:
  SessionBatch();
  ~SessionBatch();
  SessionBatch(const SessionBatch&) = delete;
  SessionBatch& operator=(const SessionBatch&) = delete;

  /// Copies the packets' bytes, unless they lie in the room that was given out last.
  void add(const Session& session);
  /// Room in the storage of the batch that `take` will give.
  [[nodiscard]] std::span<std::byte> room(std::size_t bytes);
  [[nodiscard]] std::size_t size() const noexcept;
  [[nodiscard]] std::size_t bytes() const noexcept;
  /// The sessions added since the last take.
  [[nodiscard]] Batch<Session> take();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace
