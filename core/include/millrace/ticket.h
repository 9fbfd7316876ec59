#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "millrace/session.h"

namespace millrace {

/// "This session is due": goes through a queue in place of the session itself.
///
/// A session is announced by a ticket `timeout` when it begins, which a queue holds back for its
/// delay, and by a ticket `full` when it holds enough packets, which goes at once. Whoever claims
/// the session first has it; the other ticket finds it done.
struct Ticket {
  SessionId id{};
  FiveTuple key;
  std::uint32_t epoch = 0;
  Due why = Due::full;
  std::string_view agent;  ///< as in SessionInfo, in the batch's storage
};

template <>
struct ItemTraits<Ticket> {
  static constexpr std::string_view name = "millrace.Ticket";
  static void describe(const Ticket& ticket, std::string& json);
};

/// Tickets as one message of a broker, see docs/formats.md.
[[nodiscard]] std::string encode(std::span<const Ticket> tickets);
/// Throws Rejected, saying at which byte it is no such message.
[[nodiscard]] Batch<Ticket> decode_tickets(std::span<const std::byte> message);

}  // namespace millrace
