#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "millrace/session.h"

#include "session/packet_store.h"
#include "session/slab.h"

/// The parts of SessionTable: entries, the lists through them, and the way from a five-tuple to
/// one.
namespace millrace {

inline constexpr std::uint32_t kNone = 0xFFFFFFFF;

/// What a packet needs comes first: one that comes after its session was due touches 64 bytes.
struct SessionEntry {
  FiveTuple key;
  bool active = false;  ///< not due yet
  bool src_is_low = true;
  std::uint32_t hash = 0;
  std::uint32_t agent = 0;
  Timestamp touched;  ///< time of the latest packet
  Duration used{};    ///< time that had passed at the last packet, see PacketClock::elapsed
  std::uint32_t epoch = 0;
  std::uint32_t packets = 0;
  PacketStore::Chain chain;
  Timestamp last_seen;
  std::uint64_t bytes = 0;
  std::uint64_t payload_bytes = 0;
  Timestamp first_seen;
  Duration queued{};  ///< time that had passed when it was put at the end of its list
  std::uint64_t born = 0;
  std::uint32_t previous = kNone;  ///< in the list of active or of done sessions
  std::uint32_t next = kNone;
};
static_assert(sizeof(SessionEntry) <= 144, "the header promises this bound");

using SessionEntries = Slab<SessionEntry, 1024>;

/// A list through the entries, oldest first.
class SessionList {
 public:
  [[nodiscard]] std::uint32_t front() const { return front_; }
  [[nodiscard]] bool empty() const { return front_ == kNone; }

  void push_back(SessionEntries& entries, std::uint32_t index) {
    entries[index].previous = back_;
    entries[index].next = kNone;
    (back_ == kNone ? front_ : entries[back_].next) = index;
    back_ = index;
  }
  void remove(SessionEntries& entries, std::uint32_t index) {
    const SessionEntry& entry = entries[index];
    (entry.previous == kNone ? front_ : entries[entry.previous].next) = entry.next;
    (entry.next == kNone ? back_ : entries[entry.next].previous) = entry.previous;
  }

 private:
  std::uint32_t front_ = kNone;
  std::uint32_t back_ = kNone;
};

/// Five-tuple to entry: open addressing with linear probing, half full at most.
class SessionIndex {
 public:
  struct Slot {
    std::uint32_t entry = kNone;
    std::uint32_t hash = 0;
  };

  SessionIndex() : slots_(1024) {}

  void prefetch(std::uint32_t hash) const { __builtin_prefetch(&slots_[hash & mask()]); }
  /// The entry that probably will be asked for.
  [[nodiscard]] std::uint32_t hint(std::uint32_t hash) const { return slots_[hash & mask()].entry; }

  [[nodiscard]] std::uint32_t find(const SessionEntries& entries, const FiveTuple& key,
                                   std::uint32_t agent, std::uint32_t hash) const {
    for (std::size_t at = hash & mask(); slots_[at].entry != kNone; at = (at + 1) & mask()) {
      if (slots_[at].hash != hash) continue;
      const SessionEntry& entry = entries[slots_[at].entry];
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

}  // namespace millrace
