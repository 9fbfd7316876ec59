#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "millrace/session.h"

namespace millrace {

/// "This session is due": goes through a durable queue in place of the session itself.
struct Ticket {
  SessionId id{};
  FiveTuple key;
  std::uint32_t epoch = 0;
  Due why = Due::full;
};

template <>
struct ItemTraits<Ticket> {
  static constexpr std::string_view name = "millrace.Ticket";
  static void describe(const Ticket& ticket, std::string& json);
};

}  // namespace millrace
