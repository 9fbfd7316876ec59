#include "millrace/session_table.h"

#include <algorithm>
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

  void advance(Timestamp time, const Emit& emit) {
    if (time <= clock_) return;
    clock_ = time;
    while (!active_.empty() && clock_ - entries_[active_.front()].queued >= limits_.delay) {
      finish(active_.front(), Due::timeout, emit);
    }
    while (!done_.empty()) {
      const SessionEntry& oldest = entries_[done_.front()];
      if (clock_ - oldest.touched > limits_.idle) {
        forget(done_.front());
      } else if (clock_ - oldest.queued > limits_.idle) {
        queue_again(done_.front());
      } else {
        break;
      }
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
    while (!active_.empty()) finish(active_.front(), Due::end, emit);
  }

  void gather_into(SessionBatch* batch) { batch_ = batch; }

  [[nodiscard]] const SessionCounts& counts() const { return counts_; }
  [[nodiscard]] std::size_t size() const { return entries_.used(); }
  [[nodiscard]] std::size_t active() const { return active_count_; }
  [[nodiscard]] std::uint64_t bytes_held() const { return store_.bytes_held(); }

 private:
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
    advance(packet.time, emit);
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
    } else if (!entries_[index].active) {
      SessionEntry& entry = entries_[index];
      const bool opens =
          decoded.key.protocol == 6 && (decoded.tcp_flags & (kTcpSyn | kTcpAck)) == kTcpSyn;
      if (opens || clock_ - entry.touched > limits_.idle) {
        // What was idle for long enough is as good as forgotten, as `advance` does it.
        const bool forgotten = clock_ - entry.touched > limits_.idle;
        done_.remove(entries_, index);
        begin(index, packet, decoded, forgotten ? 0 : entry.epoch + 1, tag);
      } else {
        // Its place in the list is mended when it comes to the front: most packets of large
        // captures come this way, and the neighbours in the list are in no cache.
        ++counts_.after_due;
        entry.touched = clock_;
        return;
      }
    }
    SessionEntry& entry = entries_[index];
    kept.from_src = decoded.src_is_low == entry.src_is_low;
    store_.append(entry.chain, kept);
    entry.last_seen = std::max(entry.last_seen, packet.time);
    entry.touched = clock_;
    entry.bytes += packet.length;
    entry.payload_bytes += decoded.l7_size;
    ++counts_.stored;
    if (++entry.packets == limits_.packets) finish(index, Due::full, emit);
  }

  std::uint32_t create(const FiveTuple& key, const Work& work, const Emit& emit) {
    if (entries_.used() >= limits_.max_sessions) {
      if (done_.empty()) {
        evict(emit);  // leaves it done, to be forgotten
      }
      while (entries_[done_.front()].touched > entries_[done_.front()].queued) {
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
    entry.queued = clock_;
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
    entry.queued = clock_;
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
    entries_[index].queued = clock_;
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
  Timestamp clock_ = kNoTime;
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
