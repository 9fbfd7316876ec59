#include "gtid_position.h"

#include <charconv>
#include <stdexcept>

#include <fmt/format.h>

namespace millrace {

namespace {

/// The number at the beginning of `text`, which `end` must follow; takes both away.
template <class T>
T number(std::string_view& text, char end, std::string_view whole) {
  T value = 0;
  const auto [last, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const auto used = static_cast<std::size_t>(last - text.data());
  const bool ends = end == '\0' ? used == text.size() : used < text.size() && text[used] == end;
  if (error != std::errc() || !ends) {
    throw std::invalid_argument(
        fmt::format("'{}' is no GTID position; expected domain-server-sequence, as 0-1-27, several "
                    "with commas between them",
                    whole));
  }
  text.remove_prefix(end == '\0' ? used : used + 1);
  return value;
}

}  // namespace

GtidPosition GtidPosition::parse(std::string_view text) {
  GtidPosition position;
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t comma = rest.find(',');
    std::string_view one = rest.substr(0, comma);
    rest.remove_prefix(comma == std::string_view::npos ? rest.size() : comma + 1);
    Gtid gtid;
    gtid.domain = number<std::uint32_t>(one, '-', text);
    gtid.server = number<std::uint32_t>(one, '-', text);
    gtid.sequence = number<std::uint64_t>(one, '\0', text);
    position.advance(gtid);
  }
  return position;
}

std::string GtidPosition::to_string() const {
  std::string text;
  for (const auto& [domain, gtid] : last_) {
    text += fmt::format("{}{}-{}-{}", text.empty() ? "" : ",", domain, gtid.server, gtid.sequence);
  }
  return text;
}

}  // namespace millrace
