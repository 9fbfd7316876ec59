#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "millrace/packet.h"
#include "millrace/session.h"
#include "millrace/session_table.h"
#include "millrace/ticket.h"
#include "millrace/verdict.h"

namespace millrace::testing {

/// Builds packets byte by byte; the bytes live as long as the builder or a batch that it gave.
class Packets {
 public:
  struct Spec {
    std::uint8_t src = 1;
    std::uint8_t dst = 2;
    std::uint16_t src_port = 1000;
    std::uint16_t dst_port = 80;
    std::size_t payload = 10;
    bool tcp = false;
    std::uint8_t flags = 0x10;
    std::uint16_t fragment = 0;  ///< the IPv4 field: flags and offset
    std::uint16_t id = 0;
    std::uint8_t fill = 0x41;
  };

  /// IPv4 from the header on.
  static std::vector<std::uint8_t> ipv4(const Spec& spec) {
    const bool later = (spec.fragment & 0x1FFFU) != 0;
    const std::size_t l4 = later ? 0 : spec.tcp ? 20 : 8;
    std::vector<std::uint8_t> bytes(20 + l4 + spec.payload, spec.fill);
    std::fill_n(bytes.begin(), 20 + l4, std::uint8_t{0});
    bytes[0] = 0x45;
    put(bytes, 2, static_cast<std::uint16_t>(bytes.size()));
    put(bytes, 4, spec.id);
    put(bytes, 6, spec.fragment);
    bytes[9] = spec.tcp ? 6 : 17;
    bytes[12] = bytes[16] = 10;
    bytes[15] = spec.src;
    bytes[19] = spec.dst;
    if (!later) {
      put(bytes, 20, spec.src_port);
      put(bytes, 22, spec.dst_port);
      if (spec.tcp) {
        bytes[32] = 0x50;
        bytes[33] = spec.flags;
      } else {
        put(bytes, 24, static_cast<std::uint16_t>(8 + spec.payload));
      }
    }
    return bytes;
  }

  static std::vector<std::uint8_t> behind(std::vector<std::uint8_t> head,
                                          const std::vector<std::uint8_t>& rest) {
    head.insert(head.end(), rest.begin(), rest.end());
    return head;
  }

  static std::vector<std::uint8_t> ethernet(const std::vector<std::uint8_t>& ip,
                                            std::uint16_t type = 0x0800) {
    std::vector<std::uint8_t> head(14);
    put(head, 12, type);
    return behind(head, ip);
  }

  Packet raw(const std::vector<std::uint8_t>& bytes, Duration time = {},
             LinkType link = LinkType::ethernet) {
    const auto& kept = storage_->emplace_back(bytes);
    const auto view = std::as_bytes(std::span(kept));
    Packet packet;
    packet.time = Timestamp(time);
    packet.data = view.data();
    packet.captured = packet.length = static_cast<std::uint32_t>(view.size());
    packet.link = link;
    added_.push_back(packet);
    return packet;
  }
  Packet add(const Spec& spec, Duration time = {}) { return raw(ethernet(ipv4(spec)), time); }

  /// The packets added since the last call, as a batch that owns their bytes; the builder lets go
  /// of them. Its watermark is the last packet's time.
  [[nodiscard]] Batch<Packet> take() {
    Batch<Packet> batch(std::exchange(added_, {}));
    if (!batch.items.empty()) batch.watermark = batch.items.back().time;
    for (const Packet& packet : batch.items) batch.storage_bytes += packet.captured;
    batch.storage = std::exchange(storage_, std::make_shared<Storage>());
    return batch;
  }

  static void put(std::vector<std::uint8_t>& bytes, std::size_t at, std::uint16_t value) {
    bytes[at] = static_cast<std::uint8_t>(value >> 8U);
    bytes[at + 1] = static_cast<std::uint8_t>(value);
  }

 private:
  using Storage = std::deque<std::vector<std::uint8_t>>;
  std::shared_ptr<Storage> storage_ = std::make_shared<Storage>();
  std::vector<Packet> added_;
};

/// What a session is made of; the first packet went from `src` to `dst`. Addresses as texts, of one
/// family.
struct SessionSpec {
  std::string src = "10.0.0.1";
  std::string dst = "10.0.0.2";
  std::uint16_t src_port = 1000;
  std::uint16_t dst_port = 80;
  std::uint8_t protocol = 6;
  std::uint32_t packets = 1;
  std::uint64_t bytes = 100;
  Timestamp first_seen{};
  Timestamp last_seen{};
  std::uint32_t epoch = 0;
  Due due = Due::full;
};

/// With the id that such a session has. Throws std::invalid_argument for what is no address.
[[nodiscard]] SessionInfo session_info(const SessionSpec& spec = {});
/// Without packets.
[[nodiscard]] Session session(const SessionSpec& spec = {});
/// `label` outlives it.
[[nodiscard]] Verdict verdict(std::string_view label, const SessionSpec& spec = {});
[[nodiscard]] Ticket ticket(const SessionSpec& spec = {});
/// The sessions that these packets are, with the packets, made as split-memory makes them. The
/// batch owns all it points to.
[[nodiscard]] Batch<Session> sessions_of(std::span<const Packet> packets,
                                         const SessionLimits& limits = {});

}  // namespace millrace::testing
