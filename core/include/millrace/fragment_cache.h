#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "millrace/decode.h"

namespace millrace {

/// Remembers what the first fragment of an IP packet says of the others. Four places for each hash
/// value; a fifth takes the place of the oldest. Entries older than 30 s (the reassembly time that
/// RFC 791 suggests at least, RFC 8200: 60 s) count as unknown.
/// Which entry goes depends on the packets alone.
class FragmentCache {
 public:
  struct Slot {
    FragmentKey key;
    FirstFragment first;
    bool used = false;
    Timestamp time;
  };

  explicit FragmentCache(std::uint32_t most) : sets_((most + kWays - 1) / kWays) {}

  void remember(const FragmentKey& key, const Decoded& first, Timestamp time) {
    if (sets_ == 0) return;
    if (slots_.empty()) slots_.resize(static_cast<std::size_t>(sets_) * kWays);
    Slot* set = &slots_[hash_of(key) % sets_ * kWays];
    Slot* place = set;
    for (Slot* slot = set; slot != set + kWays; ++slot) {
      if (!slot->used || slot->key == key) {
        place = slot;
        break;
      }
      if (slot->time < place->time) place = slot;
    }
    *place = {key, first_fragment(first), true, time};
  }

  [[nodiscard]] FirstFragment* find(const FragmentKey& key, Timestamp time) {
    if (slots_.empty()) return nullptr;
    Slot* set = &slots_[hash_of(key) % sets_ * kWays];
    for (Slot* slot = set; slot != set + kWays; ++slot) {
      const auto age = time > slot->time ? time - slot->time : slot->time - time;
      if (slot->used && slot->key == key && age <= std::chrono::seconds(30)) {
        return &slot->first;
      }
    }
    return nullptr;
  }

 private:
  static constexpr std::uint32_t kWays = 4;

  [[nodiscard]] static std::uint64_t hash_of(const FragmentKey& key) noexcept;

  std::uint32_t sets_;
  std::vector<Slot> slots_;  // made with the first fragment
};

}  // namespace millrace
