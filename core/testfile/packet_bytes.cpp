#include "testfile/packet_bytes.h"

#include <algorithm>
#include <charconv>
#include <tuple>

#include <arpa/inet.h>

#include "millrace/decode.h"

namespace millrace::host {

namespace {

void put(std::string& out, std::uint8_t value) { out += static_cast<char>(value); }

void put(std::string& out, std::uint16_t value) {
  put(out, static_cast<std::uint8_t>(value >> 8U));
  put(out, static_cast<std::uint8_t>(value));
}

std::string_view bytes_of(const Endpoint& end) {
  return {reinterpret_cast<const char*>(end.address.data()), end.family == 6 ? 16U : 4U};
}

/// RFC 1071.
std::uint16_t checksum(std::string_view bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const auto byte = static_cast<std::uint8_t>(bytes[i]);
    sum += i % 2 == 0 ? static_cast<std::uint32_t>(byte) << 8U : byte;
  }
  while (sum >> 16U != 0) sum = (sum & 0xFFFFU) + (sum >> 16U);
  return static_cast<std::uint16_t>(~sum);
}

void set(std::string& bytes, std::size_t at, std::uint16_t value) {
  bytes[at] = static_cast<char>(value >> 8U);
  bytes[at + 1] = static_cast<char>(value & 0xFFU);
}

std::string transport(const Flow& flow, std::optional<std::uint8_t> flags,
                      std::string_view payload) {
  constexpr std::uint16_t kWindow = 65535;
  constexpr std::uint8_t kDataOffset = 5U << 4U;
  std::string out;
  put(out, flow.src.port);
  put(out, flow.dst.port);
  const std::size_t header = flags ? 20 : 8;
  if (flags) {
    out.append(8, '\0');
    put(out, kDataOffset);
    put(out, *flags);
    put(out, kWindow);
    out.append(4, '\0');
  } else {
    put(out, static_cast<std::uint16_t>(header + payload.size()));
    out.append(2, '\0');
  }
  out += payload;

  std::string pseudo(bytes_of(flow.src));
  pseudo += bytes_of(flow.dst);
  put(pseudo, std::uint16_t{0});
  put(pseudo, static_cast<std::uint16_t>(out.size()));
  put(pseudo, static_cast<std::uint16_t>(flags ? IPPROTO_TCP : IPPROTO_UDP));
  std::uint16_t sum = checksum(pseudo + out);
  if (!flags && sum == 0) sum = 0xFFFF;  // 0 would mean that there is none
  set(out, flags ? 16 : 6, sum);
  return out;
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return port;
}

std::optional<Endpoint> parse_endpoint(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  const auto port = parse_port(text.substr(colon + 1));
  std::string_view host = text.substr(0, colon);
  const bool bracketed = host.starts_with('[') && host.ends_with(']');
  if (bracketed) host = host.substr(1, host.size() - 2);
  auto end = parse_address(std::string(host));
  if (!end || !port || (end->family == 6) != bracketed) return std::nullopt;
  end->port = *port;
  return end;
}

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

}  // namespace

std::optional<Endpoint> parse_address(const std::string& text) {
  Endpoint end;
  if (::inet_pton(AF_INET, text.c_str(), end.address.data()) == 1) return end;
  end.family = 6;
  if (::inet_pton(AF_INET6, text.c_str(), end.address.data()) == 1) return end;
  return std::nullopt;
}

std::optional<Flow> parse_flow(std::string_view text) {
  const std::size_t arrow = text.find('>');
  if (arrow == std::string_view::npos) return std::nullopt;
  const auto src = parse_endpoint(trimmed(text.substr(0, arrow)));
  const auto dst = parse_endpoint(trimmed(text.substr(arrow + 1)));
  if (!src || !dst || src->family != dst->family) return std::nullopt;
  return Flow{*src, *dst};
}

std::optional<std::uint8_t> parse_tcp_flags(std::string_view letters) {
  constexpr std::string_view kLetters = "FSRPAU";  // in the order of the bits
  std::uint8_t flags = 0;
  for (const char letter : letters) {
    const std::size_t bit = letter == '.' ? kLetters.find('A') : kLetters.find(letter);
    if (bit == std::string_view::npos) return std::nullopt;
    flags = static_cast<std::uint8_t>(flags | 1U << bit);
  }
  return flags;
}

std::optional<std::string> parse_hex(std::string_view text) {
  std::string digits;
  std::ranges::copy_if(text, std::back_inserter(digits), [](char c) { return c != ' '; });
  if (digits.size() % 2 != 0) return std::nullopt;
  std::string bytes;
  for (std::size_t i = 0; i < digits.size(); i += 2) {
    std::uint8_t byte = 0;
    const char* end = digits.data() + i + 2;
    const auto [stop, error] = std::from_chars(digits.data() + i, end, byte, 16);
    if (error != std::errc() || stop != end) return std::nullopt;
    put(bytes, byte);
  }
  return bytes;
}

std::string build_frame(const Flow& flow, std::optional<std::uint8_t> tcp_flags,
                        std::string_view payload) {
  constexpr std::uint8_t kHops = 64;
  constexpr std::uint16_t kDontFragment = 0x4000;
  const auto protocol = static_cast<std::uint8_t>(tcp_flags ? IPPROTO_TCP : IPPROTO_UDP);
  const std::string inner = transport(flow, tcp_flags, payload);
  const bool v6 = flow.src.family == 6;
  std::string frame("\x02\0\0\0\0\x02\x02\0\0\0\0\x01", 12);
  put(frame, static_cast<std::uint16_t>(v6 ? 0x86DD : 0x0800));
  std::string ip;
  if (v6) {
    ip.append("\x60\0\0\0", 4);
    put(ip, static_cast<std::uint16_t>(inner.size()));
    put(ip, protocol);
    put(ip, kHops);
  } else {
    ip.append("\x45\0", 2);
    put(ip, static_cast<std::uint16_t>(20 + inner.size()));
    put(ip, std::uint16_t{0});
    put(ip, kDontFragment);
    put(ip, kHops);
    put(ip, protocol);
    put(ip, std::uint16_t{0});
  }
  ip += bytes_of(flow.src);
  ip += bytes_of(flow.dst);
  if (!v6) set(ip, 10, checksum(ip));
  return frame + ip + inner;
}

FiveTuple five_tuple(const Flow& flow, std::uint8_t protocol, bool& src_is_low) {
  src_is_low =
      std::tie(flow.src.address, flow.src.port) < std::tie(flow.dst.address, flow.dst.port);
  const Endpoint& low = src_is_low ? flow.src : flow.dst;
  const Endpoint& high = src_is_low ? flow.dst : flow.src;
  FiveTuple key;
  key.low = low.address;
  key.high = high.address;
  key.low_port = low.port;
  key.high_port = high.port;
  key.protocol = protocol;
  key.family = low.family;
  return key;
}

}  // namespace millrace::host
