#include "chunk.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <system_error>

#include <fmt/format.h>
#include <sys/random.h>

namespace millrace {

namespace {

constexpr std::string_view kFinished = ".pcap.zst";
constexpr std::string_view kPart = ".part";
constexpr std::size_t kIdDigits = 32;

std::string_view until(std::string_view& text, char end) {
  const std::size_t at = text.find(end);
  const std::string_view head = text.substr(0, at);
  text.remove_prefix(at == text.npos ? text.size() : at + 1);
  return head;
}

bool number_of(std::string_view text, std::uint64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::string ChunkName::file() const {
  const std::string stem = fmt::format("{:012}-{}-{}", number, time, id);
  return packets ? fmt::format("{}-{}{}", stem, *packets, kFinished) : stem + std::string(kPart);
}

std::optional<ChunkName> ChunkName::parse(std::string_view file) {
  const bool finished = file.ends_with(kFinished);
  if (!finished && !file.ends_with(kPart)) return std::nullopt;
  file.remove_suffix(finished ? kFinished.size() : kPart.size());
  ChunkName name;
  if (!number_of(until(file, '-'), name.number)) return std::nullopt;
  name.time = until(file, '-');
  name.id = until(file, '-');
  const bool hexadecimal = name.id.size() == kIdDigits && std::ranges::all_of(name.id, [](char c) {
                             return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
                           });
  if (!hexadecimal || name.time.empty()) return std::nullopt;
  if (finished) {
    std::uint64_t packets = 0;
    if (!number_of(file, packets)) return std::nullopt;
    name.packets = packets;
  } else if (!file.empty()) {
    return std::nullopt;
  }
  return name;
}

std::string random_chunk_id() {
  std::array<unsigned char, kIdDigits / 2> bytes{};
  for (std::size_t filled = 0; filled < bytes.size();) {
    const ssize_t got = ::getrandom(bytes.data() + filled, bytes.size() - filled, 0);
    if (got > 0) {
      filled += static_cast<std::size_t>(got);
    } else if (errno != EINTR) {
      throw std::system_error(errno, std::generic_category(), "no random bytes");
    }
  }
  std::string id;
  for (const unsigned char byte : bytes) id += fmt::format("{:02x}", byte);
  return id;
}

}  // namespace millrace
