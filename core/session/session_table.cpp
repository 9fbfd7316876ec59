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
#include "session/slab.h"

namespace millrace {

namespace {

constexpr std::uint32_t kNone = 0xFFFFFFFF;

struct Entry {
  FiveTuple key;
  bool active = false;  ///< not due yet
  bool src_is_low = true;
  std::uint32_t hash = 0;
  std::uint32_t agent = 0;
  std::uint32_t previous = kNone;  ///< in the list of active or of done sessions
  std::uint32_t next = kNone;
  std::uint32_t epoch = 0;
  std::uint32_t packets = 0;
  PacketStore::Chain chain;
  Timestamp first_seen;
  Timestamp last_seen;
  Timestamp created;  ///< the table's clock at the first packet
  Timestamp touched;  ///< the table's clock at the last packet
  std::uint64_t bytes = 0;
  std::uint64_t payload_bytes = 0;
  std::uint64_t born = 0;
};
static_assert(sizeof(Entry) <= 152, "the header promises this bound");

using Entries = Slab<Entry, 1024>;

/// A list through the entries, oldest first.
class List {
 public:
  [[nodiscard]] std::uint32_t front() const { return front_; }
  [[nodiscard]] bool empty() const { return front_ == kNone; }

  void push_back(Entries& entries, std::uint32_t index) {
    entries[index].previous = back_;
    entries[index].next = kNone;
    (back_ == kNone ? front_ : entries[back_].next) = index;
    back_ = index;
  }
  void remove(Entries& entries, std::uint32_t index) {
    const Entry& entry = entries[index];
    (entry.previous == kNone ? front_ : entries[entry.previous].next) = entry.next;
    (entry.next == kNone ? back_ : entries[entry.next].previous) = entry.previous;
  }

 private:
  std::uint32_t front_ = kNone;
  std::uint32_t back_ = kNone;
};

/// Five-tuple to entry: open addressing with linear probing, half full at most.
class Index {
 public:
  struct Slot {
    std::uint32_t entry = kNone;
    std::uint32_t hash = 0;
  };

  Index() : slots_(1024) {}

  void prefetch(std::uint32_t hash) const { __builtin_prefetch(&slots_[hash & mask()]); }
  /// The entry that probably will be asked for.
  [[nodiscard]] std::uint32_t hint(std::uint32_t hash) const { return slots_[hash & mask()].entry; }

  [[nodiscard]] std::uint32_t find(const Entries& entries, const FiveTuple& key,
                                   std::uint32_t agent, std::uint32_t hash) const {
    for (std::size_t at = hash & mask(); slots_[at].entry != kNone; at = (at + 1) & mask()) {
      if (slots_[at].hash != hash) continue;
      const Entry& entry = entries[slots_[at].entry];
      if (entry.key == key && entry.agent == agent) return slots_[at].entry;
    }
    return kNone;
  }

  void insert(std::uint32_t entry, std::uint32_t hash) {
    if ((size_ + 1) * 2 > slots_.size()) grow();
    place(slots_, {entry, hash});
    ++size_;
  }

  void remove(std::uint32_t entry, std::uint32_t hash) {
    std::size_t hole = hash & mask();
    while (slots_[hole].entry != entry) hole = (hole + 1) & mask();
    // Those behind it move up, so that no probe ends too early.
    for (std::size_t at = (hole + 1) & mask(); slots_[at].entry != kNone; at = (at + 1) & mask()) {
      const std::size_t home = slots_[at].hash & mask();
      if (((at - home) & mask()) >= ((at - hole) & mask())) {
        slots_[hole] = slots_[at];
        hole = at;
      }
    }
    slots_[hole] = {};
    --size_;
  }

 private:
  [[nodiscard]] std::size_t mask() const { return slots_.size() - 1; }

  static void place(std::vector<Slot>& slots, Slot slot) {
    const std::size_t mask = slots.size() - 1;
    std::size_t at = slot.hash & mask;
    while (slots[at].entry != kNone) at = (at + 1) & mask;
    slots[at] = slot;
  }

  void grow() {
    std::vector<Slot> larger(slots_.size() * 2);
    for (const Slot& slot : slots_) {
      if (slot.entry != kNone) place(larger, slot);
    }
    slots_ = std::move(larger);
  }

  std::vector<Slot> slots_;
  std::size_t size_ = 0;
};

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
  explicit Impl(const SessionLimits& limits)
      : limits_(limits), fragments_(limits.max_fragments), seed_(random_seed()) {
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
        const std::uint32_t entry = index_.hint(work_[i + kAhead].hash);
        if (entry != kNone) __builtin_prefetch(&entries_[entry]);
      }
      handle(packets[i], work_[i], tag, emit);
    }
    agents_.drop_unused();
  }

  void advance(Timestamp time, const Emit& emit) {
    if (time <= clock_) return;
    clock_ = time;
    while (!active_.empty() && clock_ - entries_[active_.front()].created >= limits_.delay) {
      finish(active_.front(), Due::timeout, emit);
    }
    while (!done_.empty() && clock_ - entries_[done_.front()].touched > limits_.idle) {
      forget(done_.front());
    }
  }

  void flush(const Emit& emit) {
    while (!active_.empty()) finish(active_.front(), Due::end, emit);
  }

  [[nodiscard]] const SessionCounts& counts() const { return counts_; }
  [[nodiscard]] std::size_t size() const { return entries_.used(); }
  [[nodiscard]] std::size_t active() const { return active_count_; }
  [[nodiscard]] std::uint64_t bytes_held() const { return store_.bytes_held(); }

 private:
  [[nodiscard]] std::uint64_t hash_of(const void* data, std::size_t size) const {
    return XXH3_64bits_withSeed(data, size, seed_);
  }

  /// First pass: decodes and asks the memory for what the second pass will need.
  void look_at(const Packet& packet, Work& work) {
    work.kind = decode(packet, work.decoded);
    if (work.kind == Decode::later_fragment) {
      const FragmentKey key = key_of(packet, work);
      const auto* first = fragments_.find(key, packet.time);
      if (first == nullptr) return;
      // The direction is the first fragment's; the five-tuple makes it a packet like any other.
      work.kind = Decode::transport;
      work.decoded.key = first->session;
      work.decoded.src_is_low = first->src_is_low;
      work.decoded.tcp_flags = 0;
      ++counts_.joined_fragments;
    } else if (work.kind == Decode::transport && work.decoded.fragment) {
      fragments_.remember(key_of(packet, work), work.decoded, packet.time);
    }
    if (work.kind == Decode::transport) {
      constexpr std::uint32_t kOdd = 0x9E3779B1;
      work.hash = static_cast<std::uint32_t>(hash_of(&work.decoded.key, sizeof(FiveTuple))) ^
                  work.agent * kOdd;
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
      Entry& entry = entries_[index];
      const bool opens =
          decoded.key.protocol == 6 && (decoded.tcp_flags & (kTcpSyn | kTcpAck)) == kTcpSyn;
      if (opens || clock_ - entry.touched > limits_.idle) {
        // What was idle for long enough is as good as forgotten, as `advance` does it.
        const bool forgotten = clock_ - entry.touched > limits_.idle;
        done_.remove(entries_, index);
        begin(index, packet, decoded, forgotten ? 0 : entry.epoch + 1, tag);
      } else {
        ++counts_.after_due;
        entry.touched = clock_;
        done_.remove(entries_, index);
        done_.push_back(entries_, index);
        return;
      }
    }
    Entry& entry = entries_[index];
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
    Entry& entry = entries_[index];
    entry.active = true;
    entry.src_is_low = decoded.src_is_low;
    entry.epoch = epoch;
    entry.packets = 0;
    entry.chain = {};
    entry.first_seen = packet.time;
    entry.last_seen = packet.time;
    entry.created = clock_;
    entry.bytes = 0;
    entry.payload_bytes = 0;
    entry.born = tag;
    active_.push_back(entries_, index);
    ++active_count_;
    ++counts_.sessions;
  }

  void evict(const Emit& emit) { finish(active_.front(), Due::evicted, emit); }

  /// The session is due: emitted, its packets freed, its five-tuple remembered.
  void finish(std::uint32_t index, Due due, const Emit& emit) {
    Entry& entry = entries_[index];
    active_.remove(entries_, index);
    done_.push_back(entries_, index);
    entry.active = false;
    --active_count_;
    Session session;
    session.info.id =
        session_id(entry.key, entry.first_seen, entry.epoch, agents_.name(entry.agent));
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
    session.packets = store_.read(entry.chain);
    store_.release(entry.chain);
    emit(session, entry.born);
  }

  void forget(std::uint32_t index) {
    done_.remove(entries_, index);
    index_.remove(index, entries_[index].hash);
    agents_.unuse(entries_[index].agent);
    entries_.release(index);
  }

  SessionLimits limits_;
  Entries entries_;
  Index index_;
  List active_;  ///< by `created`
  List done_;    ///< by time of becoming done or of the last packet after that
  PacketStore store_;
  FragmentCache fragments_;
  Agents agents_;
  std::uint64_t seed_;
  Timestamp clock_ = kNoTime;
  std::size_t active_count_ = 0;
  SessionCounts counts_;
  std::vector<Work> work_;
};

SessionTable::SessionTable(const SessionLimits& limits) : impl_(std::make_unique<Impl>(limits)) {}
SessionTable::~SessionTable() = default;
void SessionTable::add(std::span<const Packet> packets, std::uint64_t tag, const Emit& emit) {
  impl_->add(packets, tag, emit);
}
void SessionTable::advance(Timestamp watermark, const Emit& emit) {
  impl_->advance(watermark, emit);
}
void SessionTable::flush(const Emit& emit) { impl_->flush(emit); }
const SessionCounts& SessionTable::counts() const noexcept { return impl_->counts(); }
std::size_t SessionTable::size() const noexcept { return impl_->size(); }
std::size_t SessionTable::active() const noexcept { return impl_->active(); }
std::uint64_t SessionTable::bytes_held() const noexcept { return impl_->bytes_held(); }

}  // namespace millrace
