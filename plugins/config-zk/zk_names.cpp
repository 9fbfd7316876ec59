#include "zk_names.h"

#include <charconv>
#include <cstdint>
#include <optional>
#include <stdexcept>

#include <fmt/format.h>

namespace millrace {

namespace {

/// Takes the first character out of `text`, which is not empty; nothing if it is no UTF-8.
std::optional<char32_t> take_character(std::string_view& text) {
  const auto byte = [&text](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  std::size_t size = 1;
  char32_t character = byte(0);
  char32_t least = 0;
  if (character >= 0xF8 || (character >= 0x80 && character < 0xC0)) return std::nullopt;
  if (character >= 0xF0) {
    size = 4, character &= 0x07, least = 0x10000;
  } else if (character >= 0xE0) {
    size = 3, character &= 0x0F, least = 0x800;
  } else if (character >= 0xC0) {
    size = 2, character &= 0x1F, least = 0x80;
  }
  if (text.size() < size) return std::nullopt;
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0U) != 0x80) return std::nullopt;
    character = (character << 6U) | (byte(i) & 0x3FU);
  }
  if (character < least || character > 0x10FFFF || (character >= 0xD800 && character <= 0xDFFF)) {
    return std::nullopt;
  }
  text.remove_prefix(size);
  return character;
}

/// What ZooKeeper's server refuses in a path, and what is beyond its 16-bit characters.
bool is_allowed(char32_t c) {
  return c > 0x1F && (c < 0x7F || c > 0x9F) && (c < 0xE000 || c > 0xF8FF) && c < 0xFFF0;
}

void check_host(std::string_view item) {
  if (item.find_first_of(" \t\r\n@;") != std::string_view::npos) {
    throw std::invalid_argument(fmt::format("'{}' is no host:port", item));
  }
  const std::size_t colon = item.rfind(':');
  if (colon == std::string_view::npos || colon == 0) {
    throw std::invalid_argument(fmt::format("'{}' is no host:port", item));
  }
  std::string_view host = item.substr(0, colon);
  const std::string_view port = item.substr(colon + 1);
  std::uint16_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc() || end != port.data() + port.size() || number == 0) {
    throw std::invalid_argument(fmt::format("the port of '{}' is no number from 1 to 65535", item));
  }
  const bool bracketed = host.starts_with('[') && host.ends_with(']');
  if (!bracketed && host.find_first_of(":[]") != std::string_view::npos) {
    throw std::invalid_argument(
        fmt::format("'{}': an IPv6 address is written [ADDRESS]:PORT", item));
  }
}

}  // namespace

ZkServers parse_zk_servers(std::string_view text) {
  ZkServers servers;
  const std::size_t slash = text.find('/');
  servers.hosts = text.substr(0, slash);
  if (servers.hosts.empty()) {
    throw std::invalid_argument("expected host:port, or several with commas between them");
  }
  for (std::string_view rest = servers.hosts;;) {
    const std::size_t comma = rest.find(',');
    check_host(rest.substr(0, comma));
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  if (slash != std::string_view::npos && text.substr(slash) != "/") {
    servers.folder = text.substr(slash);
    if (const std::string fault = path_fault(servers.folder); !fault.empty()) {
      throw std::invalid_argument(fmt::format("the folder '{}': {}", servers.folder, fault));
    }
  }
  return servers;
}

std::string name_fault(std::string_view name) {
  if (name.empty()) return "it is empty";
  if (name == "." || name == "..") return "it is a relative part";
  while (!name.empty()) {
    const auto character = take_character(name);
    if (!character) return "it is no UTF-8";
    if (*character == '/') return "it has a '/' in it";
    if (!is_allowed(*character)) return "it has a character in it that ZooKeeper does not allow";
  }
  return {};
}

std::string path_fault(std::string_view path) {
  if (!path.starts_with('/')) return "it does not begin with '/'";
  if (path == "/") return "it is the root";
  if (path == "/zookeeper" || path.starts_with("/zookeeper/")) return "it is ZooKeeper's own";
  path.remove_prefix(1);
  for (;;) {
    const std::size_t slash = path.find('/');
    const std::string_view name = path.substr(0, slash);
    if (const std::string fault = name_fault(name); !fault.empty()) {
      return name.empty() ? "a part of it is empty" : fmt::format("its part '{}': {}", name, fault);
    }
    if (slash == std::string_view::npos) return {};
    path.remove_prefix(slash + 1);
  }
}

std::string parent_of(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return slash == 0 ? "/" : std::string(path.substr(0, slash));
}

std::string_view cut_text(std::string_view text, std::size_t limit) {
  if (text.size() <= limit) return text;
  while (limit > 0 && (static_cast<std::uint8_t>(text[limit]) & 0xC0U) == 0x80) --limit;
  return text.substr(0, limit);
}

}  // namespace millrace
