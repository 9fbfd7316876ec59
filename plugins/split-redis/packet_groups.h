#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/decode.h"
#include "millrace/packet.h"

#include "known_flows.h"
#include "layout.h"

namespace millrace {

/// A packet on its way into a group. The views in it belong to the batch's storage.
struct DecodedPacket {
  Packet packet;
  Decoded decoded;
  Decode kind = Decode::not_ip;
  FlowKey flow{};
  std::uint32_t next = 0;  ///< of its group
};

struct GroupSettings {
  Duration idle{};
  Layer layer = Layer::l7;
  std::uint32_t buckets = 1;
  std::uint32_t packets = 24;  ///< that make a session full
  Duration delay{};
  std::uint32_t keep_done = 0;  ///< seconds
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
  Timestamp earliest;
  Timestamp latest;
  bool again = false;  ///< a packet of its chunk as late as its first was here before
  bool alone = true;   ///< the batch has no other group of the five-tuple
  bool calm = true;    ///< nothing in it can begin a session once the first packet has not
};

/// What else a batch script is told of a group.
enum GroupFlag : std::uint8_t {
  kGroupThin = 8,      ///< its packets are not sent, because they are thought to be after due
  kGroupLate = 16,     ///< its packets were to be appended when the session took none any more
  kGroupLook = 32,     ///< its packets were appended, but not to the list that was expected
  kGroupBegins = 128,  ///< a list with a state and its packets was pushed
};

/// Sorts the packets of a batch into groups, in the order of the groups' first packets. Memory is
/// kept from batch to batch.
class PacketGroups {
 public:
  explicit PacketGroups(GroupSettings settings) : settings_(settings) {}

  void clear(std::size_t packets);
  /// `index` is the packet's place in `packets`, which stay where they are until `clear`.
  PacketGroup& add(std::vector<DecodedPacket>& packets, std::uint32_t index, std::string_view agent,
                   std::uint64_t chunk);
  [[nodiscard]] std::vector<PacketGroup>& groups() { return groups_; }

  /// What a batch script is told of a group apart from its records; `known`: how its session
  /// stands, if that is known.
  void append_head(std::string& to, const std::vector<DecodedPacket>& packets,
                   const PacketGroup& group, std::uint8_t flags, const KnownFlow* known) const;
  /// Sets more flags in the head at the end of `to`.
  static void set_flags(std::string& to, std::size_t head_bytes, std::uint8_t flags) {
    char& byte = to[to.size() - head_bytes + sizeof(FlowKey)];
    byte = static_cast<char>(byte | flags);
  }
  static void clear_flags(std::string& to, std::size_t head_bytes, std::uint8_t flags) {
    char& byte = to[to.size() - head_bytes + sizeof(FlowKey)];
    byte = static_cast<char>(byte & ~flags);
  }
  [[nodiscard]] static std::size_t head_bytes(const PacketGroup& group, const KnownFlow* known) {
    return kGroupHead + (known == nullptr ? 0 : kKnownHead) + kFiveTupleBytes + group.agent.size();
  }
  /// The state of a session that begins with the group, see session_script.h.
  void append_state(std::string& to, const std::vector<DecodedPacket>& packets,
                    const PacketGroup& group) const;
  static constexpr std::size_t state_bytes(const PacketGroup& group) {
    return kState + (group.chunk == 0 ? 0 : kMark);
  }
  /// What is said of such a session to whoever waits for tickets, see read_reply.
  static void append_event(std::string& to, const std::vector<DecodedPacket>& packets,
                           const PacketGroup& group);
  static std::size_t event_bytes(const PacketGroup& group) {
    return kEvent + kFiveTupleBytes + group.agent.size();
  }
  void append_records(std::string& to, const std::vector<DecodedPacket>& packets,
                      const PacketGroup& group) const;

 private:
  static constexpr std::size_t kGroupHead = 77;
  static constexpr std::size_t kKnownHead = 56;
  static constexpr std::size_t kState = 91;
  static constexpr std::size_t kMark = 12;
  static constexpr std::size_t kEvent = 15;

  [[nodiscard]] std::uint32_t base(const Decoded& decoded) const;

  GroupSettings settings_;
  std::vector<PacketGroup> groups_;
  std::vector<std::uint32_t> slots_;
};

}  // namespace millrace
