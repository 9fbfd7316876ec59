#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "millrace/session.h"

#include "session/slab.h"

namespace millrace {

/// Keeps the packets of many sessions in chains of small blocks, so that sessions grow without
/// allocation or copying and the whole has one bound.
class PacketStore {
 public:
  static constexpr std::uint32_t kNone = 0xFFFFFFFF;

  /// One session's packets: a stream of (Record, bytes), cut into blocks.
  struct Chain {
    std::uint32_t first = kNone;
    std::uint32_t last = kNone;
    std::uint32_t used = 0;   ///< bytes of the last block
    std::uint32_t bytes = 0;  ///< of the whole stream
  };

  void append(Chain& chain, const SessionPacket& packet) {
    const Record record{packet.time,      packet.size,     packet.l4_offset,
                        packet.l7_offset, packet.from_src, packet.fragment};
    if (chain.last != kNone && kBlockBytes - chain.used >= sizeof record) {
      std::memcpy(blocks_[chain.last].data.data() + chain.used, &record, sizeof record);
      chain.used += sizeof record;
      chain.bytes += sizeof record;
    } else {
      write(chain, reinterpret_cast<const std::byte*>(&record), sizeof record);
    }
    if (packet.size != 0) write(chain, packet.data, packet.size);
  }

  /// The packets of a chain, gathered into `room` of at least chain.bytes, where their bytes stay.
  /// The array itself is valid until the next call.
  std::span<const SessionPacket> read(const Chain& chain, std::span<std::byte> room) {
    std::byte* to = room.data();
    for (std::uint32_t block = chain.first; block != kNone; block = blocks_[block].next) {
      const std::size_t size = block == chain.last ? chain.used : kBlockBytes;
      std::memcpy(to, blocks_[block].data.data(), size);
      to += size;
    }
    packets_.clear();
    for (std::size_t at = 0; at < chain.bytes;) {
      Record record;
      std::memcpy(&record, room.data() + at, sizeof record);
      at += sizeof record;
      packets_.push_back({record.time, room.data() + at, record.size, record.l4_offset,
                          record.l7_offset, record.from_src, record.fragment});
      at += record.size;
    }
    return packets_;
  }

  void release(Chain& chain) noexcept {
    for (std::uint32_t block = chain.first; block != kNone;) {
      const std::uint32_t next = blocks_[block].next;
      blocks_.release(block);
      block = next;
    }
    chain = {};
  }

  [[nodiscard]] std::uint64_t bytes_held() const noexcept { return blocks_.used() * sizeof(Block); }
  /// An upper bound of what appending so many bytes adds to bytes_held.
  [[nodiscard]] static std::uint64_t cost(std::size_t bytes) noexcept {
    return ((sizeof(Record) + bytes) / kBlockBytes + 2) * sizeof(Block);
  }

 private:
  static constexpr std::size_t kBlockBytes = 252;
  struct Block {
    std::uint32_t next;
    std::array<std::byte, kBlockBytes> data;
  };
  struct Record {
    Timestamp time;
    std::uint32_t size;
    std::uint16_t l4_offset;
    std::uint16_t l7_offset;
    bool from_src;
    bool fragment;
  };

  void write(Chain& chain, const std::byte* from, std::size_t size) {
    chain.bytes += static_cast<std::uint32_t>(size);
    while (size != 0) {
      if (chain.last == kNone || chain.used == kBlockBytes) {
        const std::uint32_t block = blocks_.allocate();
        blocks_[block].next = kNone;
        if (chain.last == kNone) {
          chain.first = block;
        } else {
          blocks_[chain.last].next = block;
        }
        chain.last = block;
        chain.used = 0;
      }
      const std::size_t part = std::min(size, kBlockBytes - chain.used);
      std::memcpy(blocks_[chain.last].data.data() + chain.used, from, part);
      chain.used += static_cast<std::uint32_t>(part);
      from += part;
      size -= part;
    }
  }

  Slab<Block, 1024> blocks_;
  std::vector<SessionPacket> packets_;
};

}  // namespace millrace
