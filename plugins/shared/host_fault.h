#pragma once

#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>

namespace millrace {

/// Why `host`, from the address of one server, cannot be a host; empty: it can be. The text itself
/// is not in it: of a URL that was cut wrongly it may be the password.
inline std::string host_fault(std::string_view host) {
  if (host.empty()) return "there is no host in it";
  if (host.find(',') != std::string_view::npos) {
    return "it names several hosts; expected one, such as a name that follows the server in charge";
  }
  const bool fits = std::ranges::all_of(host, [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '.' || c == '-' || c == '_' || c == ':' || c == '%' ||
           c >= 0x80;
  });
  return fits ? std::string() : "the host is neither a name nor an address";
}

}  // namespace millrace
