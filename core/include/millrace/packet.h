#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "millrace/batch.h"
#include "millrace/time.h"

namespace millrace {

/// Link types by the numbers libpcap's live handles and files use (DLT_*,
/// https://www.tcpdump.org/linktypes.html).
enum class LinkType : std::uint16_t {
  bsd_null = 0,  ///< BSD loopback: address family in the capturing host's byte order
  ethernet = 1,
  raw_dlt = 12,        ///< raw IP as DLT_RAW on Linux
  raw = 101,           ///< raw IP as LINKTYPE_RAW in files
  bsd_loop = 108,      ///< BSD loopback: address family in network byte order
  linux_cooked = 113,  ///< SLL
  ipv4 = 228,
  ipv6 = 229,
  linux_cooked2 = 276  ///< SLL2
};

/// Where packets came from that a receiver takes for many agents. The one of a batch is in the
/// batch's storage.
struct Origin {
  std::string agent;  ///< sessions of different agents are kept apart; empty: no name was given
  /// With a packet's number, names a packet for ever: one that comes twice (an upload that is tried
  /// again) is known. Empty: no packet comes twice.
  std::string chunk;
};

/// One captured packet: a view into the storage of its batch.
struct Packet {
  Timestamp time;
  const std::byte* data = nullptr;
  std::uint32_t captured = 0;  ///< bytes at `data`
  std::uint32_t length = 0;    ///< bytes on the wire
  LinkType link = LinkType::ethernet;
  std::uint32_t number = 0;        ///< in its chunk: 0, 1, 2, ...
  const Origin* origin = nullptr;  ///< null: captured or read by this pipeline

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {data, captured}; }
};

template <>
struct ItemTraits<Packet> {
  static constexpr std::string_view name = "millrace.Packet";
  /// time (ns), link type, length, bytes in base64
  static void describe(const Packet& packet, std::string& json);
};

}  // namespace millrace
