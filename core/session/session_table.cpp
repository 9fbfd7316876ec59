#include "millrace/session_table.h"

#include <algorithm>
#include <array>
#include <bit>
#include <random>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "millrace/fragment_cache.h"

#include "session/agents.h"
#include "session/packet_store.h"
#include "session/session_index.h"

namespace millrace {

namespace {

/// A packet after the first pass.
struct Work {
  Decoded decoded;
  Decode kind = Decode::not_ip;
  std::uint32_t hash = 0;
  std::uint32_t agent = 0;
};

std::uint64_t random_seed() {
  std::random_device device;
  return static_cast<std::uint64_t>(device()) << 32U | device();
}

}  // namespace

/// With a fixed seed: which of many fragments is forgotten must not differ from run to run.
std::uint64_t FragmentCache::hash_of(const FragmentKey& key) noexcept {
  return XXH3_64bits(&key, sizeof key);
}

class SessionTable::Impl {
 public:
  Impl(const SessionLimits& limits, Begin on_begin)
      : limits_(limits),
        on_begin_(std::move(on_begin)),
        fragments_(limits.max_fragments),
        seed_(random_seed()) {
    limits_.packets = std::max<std::uint32_t>(limits_.packets, 1);
    limits_.max_sessions = std::max<std::uint32_t>(limits_.max_sessions, 1);
    due_after_ = sum(limits_.delay, limits_.late);
    back_ = std::max(limits_.idle, limits_.delay);
    epochs_for_ = sum(limits_.idle, limits_.remember);
    forget_after_ = sum(epochs_for_, limits_.late);
  }

  void add(std::span<const Packet> packets, std::uint64_t tag, const Emit& emit) {
    if (work_.size() < packets.size()) work_.resize(packets.size());
    const Origin* origin = nullptr;
    std::uint32_t agent = 0;
    for (std::size_t i = 0; i < packets.size(); ++i) {
      if (packets[i].origin != origin) {
        origin = packets[i].origin;
        agent = origin == nullptr ? 0 : agents_.number(origin->agent);
      }
      work_[i].agent = agent;
      look_at(packets[i], work_[i]);
    }
    constexpr std::size_t kAhead = 6;
    for (std::size_t i = 0; i < packets.size(); ++i) {
      if (i + kAhead < packets.size() && work_[i + kAhead].kind == Decode::transport) {
        prefetch(index_.hint(work_[i + kAhead].hash));
      }
      handle(packets[i], work_[i], tag, emit);
    }
    agents_.drop_unused();
  }

  void advance(Timestamp watermark, const Emit& emit) {
    if (watermark == kStreamEnds) {
      flush(emit);
      while (!done_.empty()) forget(done_.front());
      fragments_ = FragmentCache(limits_.max_fragments);
      clock_.restart();
      early_count_ = 0;
      elapsed_before_ = Duration(0);
    } else if (clock_.hear(watermark)) {
      clock_moved(emit);
    }
  }

  bool expire(const FiveTuple& key, std::string_view agent, const SessionId& id, const Emit& emit) {
    const std::uint32_t number = agents_.number(agent);
    const std::uint32_t index = index_.find(entries_, key, number, hash_of(key, number));
    const bool found = index != kNone && entries_[index].active && id_of(entries_[index]) == id;
    if (found) finish(index, Due::timeout, emit);
    agents_.drop_unused();
    return found;
  }

  void flush(const Emit& emit) {
    const Timestamp end = clock_.at_end();
    while (!active_.empty()) {
      const bool over = between(entries_[active_.front()].first_seen, end) >= limits_.delay;
      finish(active_.front(), over ? Due::timeout : Due::end, emit);
    }
  }

  void gather_into(SessionBatch* batch) { batch_ = batch; }

  [[nodiscard]] const SessionCounts& counts() const { return counts_; }
  [[nodiscard]] std::size_t size() const { return entries_.used(); }
  [[nodiscard]] std::size_t active() const { return active_count_; }
  [[nodiscard]] std::uint64_t bytes_held() const { return store_.bytes_held(); }

 private:
  static Duration sum(Duration a, Duration b) {
    return b > Duration::max() - a ? Duration::max() : a + b;
  }

  /// Sessions whose five-tuples were silent for long enough are due, or forgotten.
  void clock_moved(const Emit& emit) {
    if (clock_.jumps() != counts_.clock_jumps) {
      counts_.clock_jumps = clock_.jumps();
      counts_.jumped_from = clock_.jumped_from();
      counts_.jumped_to = clock_.jumped_to();
    }
    const Duration now = clock_.elapsed();
    if (now - elapsed_before_ > PacketClock::kStep) mend_stamps();
    elapsed_before_ = now;
    while (!active_.empty() && now - entries_[active_.front()].queued >= due_after_) {
      finish(active_.front(), Due::timeout, emit);
    }
    while (!done_.empty()) {
      const SessionEntry& oldest = entries_[done_.front()];
      if (now - oldest.used > forget_after_) {
        forget(done_.front());
      } else if (now - oldest.queued > forget_after_) {
        queue_again(done_.front());
      } else {
        break;
      }
    }
  }

  /// What was stamped while the clock was behind its packet is not as old as it seems.
  void mend_stamps() {
    for (std::size_t i = 0; i < early_count_;) {
      Early& early = early_[i];
      const Duration age = std::max(between(early.time, clock_.now()), Duration(0));
      const Duration stamp = clock_.elapsed() - std::min(age, clock_.elapsed());
      SessionEntry& entry = entries_[early.entry];
      entry.used = std::max(entry.used, stamp);
      if (entry.active && entry.first_seen == early.time) {
        entry.queued = std::max(entry.queued, stamp);
      }
      if (early.time <= clock_.now() || --early.left == 0) {
        early_[i] = early_[--early_count_];
      } else {
        ++i;
      }
    }
  }
  void note_early(std::uint32_t index, Timestamp time) {
    if (time <= clock_.now()) return;
    if (early_count_ == early_.size()) {
      std::ranges::move(early_.begin() + 1, early_.end(), early_.begin());
      --early_count_;
    }
    early_[early_count_++] = {index, time};
  }

  /// Whether a packet of its five-tuple that comes at `time` finds the session due.
  [[nodiscard]] bool is_over(const SessionEntry& entry, Timestamp time) const {
    return between(entry.first_seen, time) >= limits_.delay || between(time, entry.touched) > back_;
  }

  [[nodiscard]] std::uint32_t hash_of(const FiveTuple& key, std::uint32_t agent) const {
    constexpr std::uint32_t kOdd = 0x9E3779B1;
    return static_cast<std::uint32_t>(XXH3_64bits_withSeed(&key, sizeof key, seed_)) ^ agent * kOdd;
  }

  [[nodiscard]] SessionId id_of(const SessionEntry& entry) const {
    return session_id(entry.key, entry.first_seen, entry.epoch, agents_.name(entry.agent));
  }

  void prefetch(std::uint32_t entry) const {
    if (entry == kNone) return;
    constexpr std::size_t kLine = 64;
    const auto* bytes = reinterpret_cast<const std::byte*>(&entries_[entry]);
    for (std::size_t at = 0; at < sizeof(SessionEntry); at += kLine) __builtin_prefetch(bytes + at);
  }

  /// First pass: decodes and asks the memory for what the second pass will need.
  void look_at(const Packet& packet, Work& work) {
    work.kind = decode(packet, work.decoded);
    if (work.kind == Decode::later_fragment) {
      const FragmentKey key = key_of(packet, work);
      FirstFragment* first = fragments_.find(key, packet.time);
      if (first == nullptr) return;
      work.kind = Decode::transport;
      join_fragment(packet, *first, work.decoded);
      ++counts_.joined_fragments;
    } else if (work.kind == Decode::transport && work.decoded.fragment) {
      fragments_.remember(key_of(packet, work), work.decoded, packet.time);
    }
    if (work.kind == Decode::transport) {
      work.hash = hash_of(work.decoded.key, work.agent);
      index_.prefetch(work.hash);
    }
  }

  static FragmentKey key_of(const Packet& packet, const Work& work) {
    FragmentKey key = fragment_key(packet, work.decoded);
    key.agent = static_cast<std::uint16_t>(work.agent);
    return key;
  }

  void handle(const Packet& packet, const Work& work, std::uint64_t tag, const Emit& emit) {
    ++counts_.packets;
    if (clock_.see(packet.time)) clock_moved(emit);
    if (work.kind != Decode::transport) {
      if (work.kind == Decode::later_fragment) {
        ++counts_.lost_fragments;
      } else {
        ++counts_.undecodable[static_cast<std::size_t>(work.kind)];
      }
      return;
    }
    const Decoded& decoded = work.decoded;
    const std::size_t base = limits_.layer == Layer::l2   ? 0
                             : limits_.layer == Layer::l4 ? decoded.l4_offset
                                                          : decoded.l7_offset;
    SessionPacket kept;
    kept.time = packet.time;
    kept.data = packet.data + base;
    kept.size = static_cast<std::uint32_t>(decoded.l7_offset + decoded.l7_size - base);
    kept.l4_offset =
        static_cast<std::uint16_t>(std::max<std::size_t>(decoded.l4_offset, base) - base);
    kept.l7_offset = static_cast<std::uint16_t>(decoded.l7_offset - base);
    kept.fragment = decoded.fragment;

    while (!active_.empty() &&
           store_.bytes_held() + PacketStore::cost(kept.size) > limits_.max_bytes) {
      evict(emit);
    }
    std::uint32_t index = index_.find(entries_, decoded.key, work.agent, work.hash);
    if (index == kNone) {
      index = create(decoded.key, work, emit);
      begin(index, packet, decoded, 0, tag);
    } else {
      SessionEntry& entry = entries_[index];
      if (entry.active && is_over(entry, packet.time)) finish(index, Due::timeout, emit);
      if (!entry.active && !begins_anew(entry, packet, decoded)) {
        // Its place in the list is mended when it comes to the front: most packets of large
        // captures come this way, and the neighbours in the list are in no cache.
        ++counts_.after_due;
        entry.touched = std::max(entry.touched, packet.time);
        entry.used = clock_.elapsed();
        note_early(index, packet.time);
        return;
      }
      if (!entry.active) {
        // What was silent for long enough is as good as forgotten, as `clock_moved` does it.
        // So is what lies as far behind: a table that had forgotten it would count the same.
        const Duration gap = between(entry.touched, packet.time);
        const bool forgotten = gap > epochs_for_ || gap < -epochs_for_;
        done_.remove(entries_, index);
        begin(index, packet, decoded, forgotten ? 0 : entry.epoch + 1, tag);
      }
    }
    SessionEntry& entry = entries_[index];
    kept.from_src = decoded.src_is_low == entry.src_is_low;
    store_.append(entry.chain, kept);
    entry.last_seen = std::max(entry.last_seen, packet.time);
    entry.touched = std::max(entry.touched, packet.time);
    entry.used = clock_.elapsed();
    note_early(index, packet.time);
    entry.bytes += packet.length;
    entry.payload_bytes += decoded.l7_size;
    ++counts_.stored;
    if (++entry.packets == limits_.packets) finish(index, Due::full, emit);
  }

  [[nodiscard]] bool begins_anew(const SessionEntry& entry, const Packet& packet,
                                 const Decoded& decoded) const {
    const bool opens =
        decoded.key.protocol == 6 && (decoded.tcp_flags & (kTcpSyn | kTcpAck)) == kTcpSyn;
    return opens || between(entry.touched, packet.time) > limits_.idle ||
           between(packet.time, entry.touched) > limits_.idle;
  }

  std::uint32_t create(const FiveTuple& key, const Work& work, const Emit& emit) {
    if (entries_.used() >= limits_.max_sessions) {
      if (done_.empty()) {
        evict(emit);  // leaves it done, to be forgotten
      }
      while (entries_[done_.front()].used > entries_[done_.front()].queued) {
        queue_again(done_.front());
      }
      forget(done_.front());
      ++counts_.forgotten;
    }
    const std::uint32_t index = entries_.allocate();
    entries_[index].key = key;
    entries_[index].hash = work.hash;
    entries_[index].agent = work.agent;
    agents_.use(work.agent);
    index_.insert(index, work.hash);
    return index;
  }

  /// A session begins, with a new five-tuple or with one that was done.
  void begin(std::uint32_t index, const Packet& packet, const Decoded& decoded, std::uint32_t epoch,
             std::uint64_t tag) {
    SessionEntry& entry = entries_[index];
    entry.active = true;
    entry.src_is_low = decoded.src_is_low;
    entry.epoch = epoch;
    entry.packets = 0;
    entry.chain = {};
    entry.first_seen = packet.time;
    entry.last_seen = packet.time;
    entry.touched = packet.time;
    entry.queued = clock_.elapsed();
    entry.bytes = 0;
    entry.payload_bytes = 0;
    entry.born = tag;
    active_.push_back(entries_, index);
    ++active_count_;
    ++counts_.sessions;
    if (on_begin_) announce(entry);
  }

  void announce(const SessionEntry& entry) {
    SessionInfo info;
    info.id = id_of(entry);
    info.key = entry.key;
    info.epoch = entry.epoch;
    info.first_seen = entry.first_seen;
    info.src_is_low = entry.src_is_low;
    info.agent = agents_.name(entry.agent);
    on_begin_(info, entry.born);
  }

  void evict(const Emit& emit) { finish(active_.front(), Due::evicted, emit); }

  std::span<std::byte> room_for(std::size_t bytes) {
    if (batch_ != nullptr) return batch_->room(bytes);
    if (scratch_.size() < bytes) scratch_.resize(bytes);
    return scratch_;
  }

  /// The session is due: emitted, its packets freed, its five-tuple remembered.
  void finish(std::uint32_t index, Due due, const Emit& emit) {
    SessionEntry& entry = entries_[index];
    active_.remove(entries_, index);
    done_.push_back(entries_, index);
    entry.queued = clock_.elapsed();
    entry.active = false;
    --active_count_;
    Session session;
    session.info.id = id_of(entry);
    session.info.key = entry.key;
    session.info.src_is_low = entry.src_is_low;
    session.info.due = due;
    session.info.epoch = entry.epoch;
    session.info.packets = entry.packets;
    session.info.first_seen = entry.first_seen;
    session.info.last_seen = entry.last_seen;
    session.info.bytes = entry.bytes;
    session.info.payload_bytes = entry.payload_bytes;
    session.info.agent = agents_.name(entry.agent);
    session.layer = limits_.layer;
    session.packets = store_.read(entry.chain, room_for(entry.chain.bytes));
    store_.release(entry.chain);
    emit(session, entry.born);
  }

  /// A done five-tuple had packets since it was queued: it gets a second chance.
  void queue_again(std::uint32_t index) {
    done_.remove(entries_, index);
    done_.push_back(entries_, index);
    entries_[index].queued = clock_.elapsed();
  }

  void forget(std::uint32_t index) {
    done_.remove(entries_, index);
    index_.remove(index, entries_[index].hash);
    agents_.unuse(entries_[index].agent);
    entries_.release(index);
  }

  SessionLimits limits_;
  Begin on_begin_;
  SessionEntries entries_;
  SessionIndex index_;
  SessionList active_;  ///< by `queued`, when they began
  SessionList done_;    ///< by `queued`, when they became due or were last found in use
  PacketStore store_;
  SessionBatch* batch_ = nullptr;
  std::vector<std::byte> scratch_;  ///< without a batch: the packets of a session that is due
  FragmentCache fragments_;
  Agents agents_;
  std::uint64_t seed_;
  PacketClock clock_;
  struct Early {
    std::uint32_t entry = kNone;
    Timestamp time;
    std::uint32_t left = 2;  ///< times that it is mended: one with a wrong time is never reached
  };
  std::array<Early, 64> early_;  ///< ahead of the clock when stamped
  std::size_t early_count_ = 0;
  Duration elapsed_before_{};
  Duration due_after_{};     ///< of silence, for a session
  Duration back_{};          ///< a packet so far before the latest is of another session
  Duration epochs_for_{};    ///< of silence, in the time of a five-tuple's packets
  Duration forget_after_{};  ///< of silence, for a five-tuple that is done
  std::size_t active_count_ = 0;
  SessionCounts counts_;
  std::vector<Work> work_;
};

SessionTable::SessionTable(const SessionLimits& limits, Begin on_begin)
    : impl_(std::make_unique<Impl>(limits, std::move(on_begin))) {}
SessionTable::~SessionTable() = default;
void SessionTable::add(std::span<const Packet> packets, std::uint64_t tag, const Emit& emit) {
  impl_->add(packets, tag, emit);
}
void SessionTable::advance(Timestamp watermark, const Emit& emit) {
  impl_->advance(watermark, emit);
}
bool SessionTable::expire(const FiveTuple& key, std::string_view agent, const SessionId& id,
                          const Emit& emit) {
  return impl_->expire(key, agent, id, emit);
}
void SessionTable::gather_into(SessionBatch* batch) noexcept { impl_->gather_into(batch); }
void SessionTable::flush(const Emit& emit) { impl_->flush(emit); }
const SessionCounts& SessionTable::counts() const noexcept { return impl_->counts(); }
std::size_t SessionTable::size() const noexcept { return impl_->size(); }
std::size_t SessionTable::active() const noexcept { return impl_->active(); }
std::uint64_t SessionTable::bytes_held() const noexcept { return impl_->bytes_held(); }

}  // namespace millrace
