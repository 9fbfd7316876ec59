#include "redis_url.h"

#include <charconv>
#include <optional>

#include "millrace/error.h"

#include "host_fault.h"

namespace millrace {

namespace {

[[noreturn]] void wrong(const std::string& what) {
  throw ConfigError("server", what +
                                  "; expected redis://[user:password@]host[:port][/database], "
                                  "rediss://... or unix:///path[?db=database]");
}

std::optional<unsigned> hex(char c) {
  if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F') return static_cast<unsigned>(c - 'A' + 10);
  return std::nullopt;
}

std::string decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const auto high = i + 2 < text.size() ? hex(text[i + 1]) : std::nullopt;
    const auto low = i + 2 < text.size() ? hex(text[i + 2]) : std::nullopt;
    if (!high || !low) wrong("a % in user or password must be followed by two hexadecimal digits");
    out += static_cast<char>(*high * 16 + *low);
    i += 2;
  }
  return out;
}

std::uint32_t number(std::string_view text, std::uint32_t most, const char* what) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > most) {
    wrong(std::string("the ") + what + " is no number up to " + std::to_string(most));
  }
  return value;
}

constexpr std::uint32_t kMostDatabases = 1U << 20U;

}  // namespace

std::string RedisAddress::name() const {
  if (!unix_path.empty()) return "Redis at " + unix_path;
  const bool v6 = host.find(':') != std::string::npos;
  return "Redis at " + (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

RedisAddress parse_redis_url(std::string_view url, std::string_view ca_file) {
  RedisAddress address;
  address.ca_file = ca_file;
  const std::size_t colon = url.find("://");
  if (colon == std::string_view::npos) wrong("no address of a Redis server");
  const std::string_view scheme = url.substr(0, colon);
  std::string_view rest = url.substr(colon + 3);
  const bool local = scheme == "unix";
  if (!local && scheme != "redis" && scheme != "rediss") wrong("the scheme is not known");
  address.tls = scheme == "rediss";

  // A path may hold an @, what comes before it may hold no slash.
  const std::size_t at = rest.substr(0, local ? rest.find('/') : rest.size()).rfind('@');
  if (at != std::string_view::npos) {
    const std::string_view login = rest.substr(0, at);
    const std::size_t split = login.find(':');
    if (split == std::string_view::npos) wrong("there is a user but no password");
    address.user = decoded(login.substr(0, split));
    address.password = decoded(login.substr(split + 1));
    rest = rest.substr(at + 1);
  }
  if (local) {
    const std::size_t query = rest.find("?db=");
    if (query != std::string_view::npos) {
      address.database = number(rest.substr(query + 4), kMostDatabases, "database");
      rest = rest.substr(0, query);
    }
    if (rest.empty() || rest.front() != '/') wrong("the path of the socket must begin with /");
    address.host.clear();
    address.unix_path = rest;
    return address;
  }
  const std::size_t slash = rest.find('/');
  if (slash != std::string_view::npos) {
    if (slash + 1 < rest.size()) {
      address.database = number(rest.substr(slash + 1), kMostDatabases, "database");
    }
    rest = rest.substr(0, slash);
  }
  if (rest.find(',') != std::string_view::npos) wrong(host_fault(rest));
  std::string_view port;
  if (!rest.empty() && rest.front() == '[') {
    const std::size_t end = rest.find(']');
    if (end == std::string_view::npos) wrong("a ] is missing");
    port = rest.substr(end + 1);
    rest = rest.substr(1, end - 1);
  } else if (const std::size_t mark = rest.find(':'); mark != std::string_view::npos) {
    port = rest.substr(mark);
    rest = rest.substr(0, mark);
  }
  if (const std::string fault = host_fault(rest); !fault.empty()) wrong(fault);
  address.host = rest;
  if (!port.empty()) {
    if (port.front() != ':') wrong("something follows the host that is no port");
    address.port = static_cast<std::uint16_t>(number(port.substr(1), 65535, "port"));
  }
  return address;
}

}  // namespace millrace
