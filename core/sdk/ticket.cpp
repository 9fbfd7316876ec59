#include "millrace/ticket.h"

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "millrace/error.h"

namespace millrace {

namespace {

constexpr std::string_view kMagic{"MRT\x01", 4};
constexpr std::size_t kFixed = 16 + 38 + 4 + 1 + 1;
constexpr std::size_t kLongestAgent = 255;

template <class T>
void put(std::string& to, T value) {
  for (std::size_t i = sizeof(T); i-- > 0;) to += static_cast<char>(value >> (8 * i) & 0xFFU);
}

/// Reads what `encode` wrote; the first thing that is not there ends it.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::span<const std::byte> take(std::size_t size) {
    if (bytes_.size() - at_ < size) {
      throw Rejected("no message of tickets: it ends at byte " + std::to_string(bytes_.size()) +
                     ", inside a ticket");
    }
    at_ += size;
    return bytes_.subspan(at_ - size, size);
  }
  template <class T>
  T number() {
    T value = 0;
    for (const std::byte byte : take(sizeof(T))) {
      value = static_cast<T>(static_cast<T>(value << 8U) | std::to_integer<T>(byte));
    }
    return value;
  }
  void fill(std::span<std::uint8_t> to) {
    std::ranges::transform(take(to.size()), to.begin(),
                           [](std::byte byte) { return std::to_integer<std::uint8_t>(byte); });
  }
  [[nodiscard]] std::size_t at() const { return at_; }
  [[nodiscard]] std::size_t left() const { return bytes_.size() - at_; }

 private:
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
};

}  // namespace

std::string encode(std::span<const Ticket> tickets) {
  std::string message(kMagic);
  message.reserve(kMagic.size() + 4 + tickets.size() * (kFixed + 16));
  put(message, static_cast<std::uint32_t>(tickets.size()));
  for (const Ticket& ticket : tickets) {
    message.append(ticket.id.begin(), ticket.id.end());
    put(message, ticket.key.protocol);
    put(message, ticket.key.family);
    message.append(ticket.key.low.begin(), ticket.key.low.end());
    message.append(ticket.key.high.begin(), ticket.key.high.end());
    put(message, ticket.key.low_port);
    put(message, ticket.key.high_port);
    put(message, ticket.epoch);
    put(message, static_cast<std::uint8_t>(ticket.why));
    const std::string_view agent = ticket.agent.substr(0, kLongestAgent);
    put(message, static_cast<std::uint8_t>(agent.size()));
    message += agent;
  }
  return message;
}

Batch<Ticket> decode_tickets(std::span<const std::byte> message) {
  auto text = std::make_shared<std::string>();
  Reader reader(message);
  std::array<std::uint8_t, 4> magic{};
  if (message.size() >= magic.size()) reader.fill(magic);
  if (!std::ranges::equal(magic, kMagic, {}, {},
                          [](char c) { return static_cast<std::uint8_t>(c); })) {
    throw Rejected("no message of tickets: it does not begin with MRT and version 1");
  }
  const auto count = reader.number<std::uint32_t>();
  if (count > reader.left() / kFixed) {
    throw Rejected("no message of tickets: " + std::to_string(count) + " tickets do not fit into " +
                   std::to_string(message.size()) + " bytes");
  }
  text->reserve(reader.left());  // the views into it must stay where they are
  Batch<Ticket> batch{std::vector<Ticket>(count)};
  for (Ticket& ticket : batch.items) {
    reader.fill(ticket.id);
    ticket.key.protocol = reader.number<std::uint8_t>();
    ticket.key.family = reader.number<std::uint8_t>();
    reader.fill(ticket.key.low);
    reader.fill(ticket.key.high);
    ticket.key.low_port = reader.number<std::uint16_t>();
    ticket.key.high_port = reader.number<std::uint16_t>();
    ticket.epoch = reader.number<std::uint32_t>();
    const auto why = reader.number<std::uint8_t>();
    if (why > static_cast<std::uint8_t>(Due::evicted) ||
        (ticket.key.family != 4 && ticket.key.family != 6)) {
      throw Rejected("no message of tickets: byte " + std::to_string(reader.at()) +
                     " ends a ticket with a wrong reason or address family");
    }
    ticket.why = static_cast<Due>(why);
    const auto name = reader.take(reader.number<std::uint8_t>());
    const std::size_t begin = text->size();
    for (const std::byte byte : name) *text += std::to_integer<char>(byte);
    ticket.agent = std::string_view(*text).substr(begin);
  }
  if (reader.left() != 0) {
    throw Rejected("no message of tickets: something follows the last one at byte " +
                   std::to_string(reader.at()));
  }
  batch.storage_bytes = text->capacity();
  batch.storage = std::move(text);
  return batch;
}

}  // namespace millrace
