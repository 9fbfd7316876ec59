#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/decode.h"
#include "millrace/packet.h"

#include "layout.h"

namespace millrace {

/// A packet on its way into a group. The views in it belong to the batch's storage.
struct DecodedPacket {
  Packet packet;
  Decoded decoded;
  Decode kind = Decode::not_ip;
  Timestamp clock;
  FlowKey flow{};
  std::uint32_t next = 0;  ///< of its group
};

struct GroupSettings {
  Duration idle{};
  Layer layer = Layer::l7;
  std::uint32_t buckets = 1;
};

/// The packets of a batch that are of one five-tuple, one agent and one chunk, in arrival order.
struct PacketGroup {
  FlowKey flow{};
  FiveTuple key;
  std::string_view agent;
  std::uint64_t chunk = 0;  ///< hash of its name; 0: none
  std::uint32_t first = 0;
  std::uint32_t last = 0;
  std::uint32_t count = 0;
  std::uint32_t bucket = 0;
  std::uint64_t bytes = 0;
  std::uint64_t payload = 0;
  std::uint64_t record_bytes = 0;
  Timestamp latest;
  bool calm = true;  ///< nothing in it can begin a session once the first packet has not
};

/// Sorts the packets of a batch into groups, in the order of the groups' first packets. Memory is
/// kept from batch to batch.
class PacketGroups {
 public:
  explicit PacketGroups(GroupSettings settings) : settings_(settings) {}

  void clear(std::size_t packets);
  /// `index` is the packet's place in `packets`, which stay where they are until `clear`.
  void add(std::vector<DecodedPacket>& packets, std::uint32_t index, std::string_view agent,
           std::uint64_t chunk);
  [[nodiscard]] std::vector<PacketGroup>& groups() { return groups_; }

  /// What a batch script is told of a group apart from its records.
  void append_head(std::string& to, const std::vector<DecodedPacket>& packets,
                   const PacketGroup& group, bool thin) const;
  [[nodiscard]] static std::size_t head_bytes(const PacketGroup& group) {
    return kGroupHead + kFiveTupleBytes + group.agent.size();
  }
  void append_records(std::string& to, const std::vector<DecodedPacket>& packets,
                      const PacketGroup& group) const;

 private:
  static constexpr std::size_t kGroupHead = 85;

  [[nodiscard]] std::uint32_t base(const Decoded& decoded) const;

  GroupSettings settings_;
  std::vector<PacketGroup> groups_;
  std::vector<std::uint32_t> slots_;
};

}  // namespace millrace
