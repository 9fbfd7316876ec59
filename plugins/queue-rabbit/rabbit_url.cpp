#include "rabbit_url.h"

#include <charconv>
#include <stdexcept>
#include <string_view>

#include "host_fault.h"

namespace millrace {

namespace {

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string decoded(std::string_view text, const char* part) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const int high = i + 1 < text.size() ? digit(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? digit(text[i + 2]) : -1;
    if (high < 0 || low < 0) {
      throw std::runtime_error(std::string("a '%' in the ") + part +
                               " must be followed by two hexadecimal digits");
    }
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

}  // namespace

RabbitUrl parse_rabbit_url(const std::string& text) {
  constexpr std::string_view kPlain = "amqp://";
  constexpr std::string_view kTls = "amqps://";
  RabbitUrl url;
  std::string_view rest = text;
  if (rest.starts_with(kTls)) {
    constexpr std::uint16_t kTlsPort = 5671;
    url.tls = true;
    url.port = kTlsPort;
    rest.remove_prefix(kTls.size());
  } else if (rest.starts_with(kPlain)) {
    rest.remove_prefix(kPlain.size());
  } else {
    throw std::runtime_error("expected amqp://user:password@host:port/vhost or amqps://...");
  }
  const std::size_t slash = rest.find('/');
  if (slash != std::string_view::npos && slash + 1 < rest.size()) {
    const std::string_view path = rest.substr(slash + 1);
    if (path.find_first_of("/?") != std::string_view::npos) {
      throw std::runtime_error("the vhost must not hold '/' or '?'; write %2F and %3F");
    }
    url.vhost = decoded(path, "vhost");
  }
  rest = rest.substr(0, slash);
  const std::size_t at = rest.rfind('@');
  if (at != std::string_view::npos) {
    const std::string_view user = rest.substr(0, at);
    const std::size_t colon = user.find(':');
    url.user = decoded(user.substr(0, colon), "user name");
    url.password =
        colon == std::string_view::npos ? "" : decoded(user.substr(colon + 1), "password");
    rest.remove_prefix(at + 1);
  }
  if (rest.find(',') != std::string_view::npos) throw std::runtime_error(host_fault(rest));
  std::size_t colon = rest.rfind(':');
  if (rest.starts_with('[')) {
    const std::size_t end = rest.find(']');
    if (end == std::string_view::npos) throw std::runtime_error("a '[' without ']'");
    url.host = rest.substr(1, end - 1);
    colon = end + 1 < rest.size() ? end + 1 : std::string_view::npos;
  } else {
    url.host = rest.substr(0, colon);
  }
  if (const std::string fault = host_fault(url.host); !fault.empty()) {
    throw std::runtime_error(fault);
  }
  if (colon != std::string_view::npos) {
    const std::string_view port = rest.substr(colon + 1);
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), url.port);
    if (error != std::errc() || end != port.data() + port.size() || url.port == 0) {
      throw std::runtime_error("'" + std::string(port) + "' is no port");
    }
  }
  return url;
}

}  // namespace millrace
