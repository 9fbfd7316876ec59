#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "millrace/session.h"

namespace millrace::host {

struct Endpoint {
  Address address{};
  std::uint8_t family = 4;
  std::uint16_t port = 0;
};

struct Flow {
  Endpoint src;
  Endpoint dst;
};

/// "10.0.0.1" or "fd00::1"; the port stays 0.
[[nodiscard]] std::optional<Endpoint> parse_address(const std::string& text);

/// "10.0.0.1:1234 > 10.0.0.2:80" or "[fd00::1]:1234 > [fd00::2]:80", both of one family.
[[nodiscard]] std::optional<Flow> parse_flow(std::string_view text);

/// Letters as tcpdump prints them: F S R P A U ("." is A as well).
[[nodiscard]] std::optional<std::uint8_t> parse_tcp_flags(std::string_view letters);

/// Pairs of hexadecimal digits, blanks between them allowed.
[[nodiscard]] std::optional<std::string> parse_hex(std::string_view text);

/// The largest payload that build_frame takes.
inline constexpr std::size_t kLongestPayload = 65535 - 20 - 20;

/// An Ethernet frame with one whole TCP (`flags` given) or UDP packet. Lengths and checksums are
/// right; sequence numbers are 0.
[[nodiscard]] std::string build_frame(const Flow& flow, std::optional<std::uint8_t> tcp_flags,
                                      std::string_view payload);

/// The key of a flow, canonical; `src_is_low` tells which end is which.
[[nodiscard]] FiveTuple five_tuple(const Flow& flow, std::uint8_t protocol, bool& src_is_low);

}  // namespace millrace::host
