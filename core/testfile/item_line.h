#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/packet.h"
#include "millrace/session.h"

#include "config/pipeline_file.h"
#include "config/report.h"
#include "config/value.h"

namespace millrace::host {

/// Of one line of a list.
inline constexpr std::uint32_t kMostRepeats = 1'000'000;

/// What the items of one batch point into.
struct Storage {
  std::deque<std::string> texts;
  std::deque<Origin> origins;
  std::deque<std::vector<SessionPacket>> packets;
  std::size_t bytes = 0;

  std::string_view keep(std::string text) {
    bytes += text.size();
    return texts.emplace_back(std::move(text));
  }
};

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

/// One table of a list: says what is wrong at the place of its value.
class Line {
 public:
  Line(const ConfigValue& value, Report& report)
      : table_(*value.table()), at_(value.at), report_(report) {}

  template <class T>
  bool bind(T& to, const std::vector<OptionSpec>& specs, std::string_view what,
            const ConfigValue::Table& entries) {
    return good_ = bind_options(entries, specs, &to, std::string(what), at_, {}, true, report_);
  }
  void wrong(std::string_view key, std::string message, std::string expected) {
    const ConfigEntry* entry = find(table_, key);
    report_.add(entry != nullptr ? entry->value.at : at_, std::move(message), std::move(expected));
    good_ = false;
  }
  [[nodiscard]] bool has(std::string_view key) const { return find(table_, key) != nullptr; }
  [[nodiscard]] bool good() const { return good_; }
  [[nodiscard]] const ConfigValue::Table& table() const { return table_; }

 private:
  const ConfigValue::Table& table_;
  Position at_;
  Report& report_;
  bool good_ = true;
};

}  // namespace millrace::host
