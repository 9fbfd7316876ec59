#include "label_table.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <system_error>

#include <arpa/inet.h>
#include <boost/locale/utf.hpp>
#include <csv.h>
#include <fmt/format.h>

#include "millrace/error.h"
#include "millrace/option.h"

namespace millrace {

namespace {

using Fields = std::vector<std::string>;

/// Cuts lines into fields; a quoted field may go over several lines.
class CsvRows {
 public:
  CsvRows() {
    if (csv_init(parser_.get(), CSV_STRICT | CSV_STRICT_FINI) != 0) throw std::bad_alloc();
  }
  ~CsvRows() { csv_free(parser_.get()); }
  CsvRows(const CsvRows&) = delete;
  CsvRows& operator=(const CsvRows&) = delete;

  /// False: a quote is where none may be.
  bool add(const std::string& line) {
    return csv_parse(parser_.get(), line.data(), line.size(), &CsvRows::field, &CsvRows::row,
                     this) == line.size();
  }
  /// False: the input ends inside a quoted field.
  bool end() { return csv_fini(parser_.get(), &CsvRows::field, &CsvRows::row, this) == 0; }
  /// The row that is whole since the last call, if one is.
  std::optional<Fields> take() { return std::exchange(whole_, {}); }

 private:
  // Called through C: what they make is looked at when that has returned.
  static void field(void* text, std::size_t size, void* self) {
    static_cast<CsvRows*>(self)->fields_.emplace_back(static_cast<const char*>(text), size);
  }
  static void row(int /*end*/, void* self) {
    auto& rows = *static_cast<CsvRows*>(self);
    rows.whole_ = std::exchange(rows.fields_, {});
  }

  std::unique_ptr<csv_parser> parser_ = std::make_unique<csv_parser>();
  Fields fields_;
  std::optional<Fields> whole_;
};

template <class T>
std::optional<T> number(std::string_view text, int base = 10) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<SessionId> session_of(std::string_view text) {
  SessionId id{};
  if (text.size() != 2 * id.size()) return std::nullopt;
  for (std::size_t i = 0; i < id.size(); ++i) {
    const auto byte = number<std::uint8_t>(text.substr(2 * i, 2), 16);
    if (!byte) return std::nullopt;
    id[i] = *byte;
  }
  return id;
}

std::optional<std::uint8_t> protocol_of(std::string_view text) {
  constexpr std::uint8_t kTcp = 6;
  constexpr std::uint8_t kUdp = 17;
  for (const std::uint8_t known : {kTcp, kUdp}) {
    if (text == protocol_name(known)) return known;
  }
  return number<std::uint8_t>(text);
}

/// 4 or 6, or 0 if the text is no address.
std::uint8_t read_address(const std::string& text, Address& address) {
  if (::inet_pton(AF_INET, text.c_str(), address.data()) == 1) return 4;
  if (::inet_pton(AF_INET6, text.c_str(), address.data()) == 1) return 6;
  return 0;
}

/// RFC 3339 in UTC, as to_rfc3339 writes it; the fraction may have 0 to 9 digits.
std::optional<Timestamp> time_of(std::string_view text) {
  constexpr std::string_view kShape = "dddd-dd-ddTdd:dd:dd";
  if (text.size() <= kShape.size() || text.back() != 'Z') return std::nullopt;
  for (std::size_t i = 0; i < kShape.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    if (kShape[i] == 'd' ? !digit : text[i] != kShape[i]) return std::nullopt;
  }
  const auto part = [&](std::size_t at, std::size_t size) {
    return number<unsigned>(text.substr(at, size)).value_or(0);
  };
  const std::chrono::year_month_day date{std::chrono::year(static_cast<int>(part(0, 4))),
                                         std::chrono::month(part(5, 2)),
                                         std::chrono::day(part(8, 2))};
  std::string fraction(text.substr(kShape.size(), text.size() - kShape.size() - 1));
  if (!date.ok() || fraction.size() == 1 || fraction.size() > 10) return std::nullopt;
  std::uint32_t nanoseconds = 0;
  if (!fraction.empty()) {
    fraction.resize(10, '0');
    const auto read = number<std::uint32_t>(std::string_view(fraction).substr(1));
    if (fraction.front() != '.' || !read) return std::nullopt;
    nanoseconds = *read;
  }
  const unsigned hour = part(11, 2);
  const unsigned minute = part(14, 2);
  const unsigned second = part(17, 2);
  constexpr unsigned kLeap = 60;
  if (hour > 23 || minute > 59 || second > kLeap) return std::nullopt;
  const auto whole = std::chrono::sys_days(date) + std::chrono::hours(hour) +
                     std::chrono::minutes(minute) + std::chrono::seconds(second);
  // What nanoseconds since 1970 in 64 bits can hold.
  if (whole < std::chrono::ceil<std::chrono::seconds>(Timestamp::min()) ||
      whole >= std::chrono::floor<std::chrono::seconds>(Timestamp::max())) {
    return std::nullopt;
  }
  return whole + Duration(nanoseconds);
}

}  // namespace

std::string label_problem(std::string_view label) {
  namespace utf = boost::locale::utf;
  if (label.empty()) return "it is empty";
  if (label.front() == ' ' || label.back() == ' ') return "it begins or ends with a space";
  for (const char* at = label.data(); at != label.data() + label.size();) {
    constexpr utf::code_point kFirstPrintable = 0x20;
    constexpr utf::code_point kDelete = 0x7F;
    const utf::code_point c = utf::utf_traits<char>::decode(at, label.data() + label.size());
    if (!utf::is_valid_codepoint(c)) return "it is not UTF-8";
    if (c < kFirstPrintable || c == kDelete) return "it has a line break or control character";
  }
  return {};
}

/// Reads one file into a table.
class LabelTable::Reader {
 public:
  Reader(LabelTable& table, const std::string& path, const Columns& columns, std::size_t most)
      : table_(table), path_(path), columns_(columns), most_(most) {}

  void read() {
    std::ifstream file(path_, std::ios::binary);
    if (!file) {
      throw ConfigError("labels", fmt::format("cannot read '{}': {}", path_,
                                              std::system_category().message(errno)));
    }
    CsvRows rows;
    std::string line;
    std::size_t number = 0;
    while (std::getline(file, line)) {
      ++number;
      if (number == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);
      if (inside_) {
        if (line_ + kLongest < number) fail("a quoted field begins here and does not end");
      } else {
        line_ = number;
      }
      if (!rows.add(line + '\n')) {
        line_ = number;
        fail("a quote inside a field; a field with quotes stands in quotes, its own doubled");
      }
      take(rows, line);
    }
    if (file.bad()) fail("cannot be read to its end");
    if (!rows.end()) fail("a quoted field begins here and does not end");
    take(rows, "");
    if (header_.empty()) fail("expected a header with the names of the columns");
    sort();
  }

 private:
  static constexpr std::size_t kLongest = 1000;  ///< lines of one row
  static constexpr std::array<std::string_view, 5> kFiveTuple = {"protocol", "src", "src_port",
                                                                 "dst", "dst_port"};

  [[noreturn]] void fail(const std::string& problem, const char* option = "labels") const {
    throw ConfigError(option,
                      fmt::format("{}:{}: {}", path_, std::max<std::size_t>(line_, 1), problem));
  }

  void take(CsvRows& rows, const std::string& line) {
    const std::optional<Fields> fields = rows.take();
    inside_ = !fields && line.find_first_not_of(" \t\r") != std::string::npos;
    if (!fields) return;
    if (header_.empty()) {
      header_ = *fields;
      find_columns();
      return;
    }
    if (fields->size() != header_.size()) {
      fail(fmt::format("{} fields; the header names {} columns", fields->size(), header_.size()));
    }
    if (++rows_ > most_) fail(fmt::format("more than {} rows ('max_sessions')", most_));
    add(*fields);
  }

  [[nodiscard]] std::optional<std::size_t> column(std::string_view name) const {
    const auto found = std::ranges::find(header_, name);
    if (found == header_.end()) return std::nullopt;
    return static_cast<std::size_t>(found - header_.begin());
  }

  void find_columns() {
    const std::optional<std::size_t> label = column(columns_.label);
    if (!label) {
      const std::string meant = nearest(columns_.label, header_);
      fail(fmt::format("there is no column '{}'{}; there are: {}", columns_.label,
                       meant.empty() ? "" : fmt::format(" (did you mean '{}'?)", meant),
                       fmt::join(header_, ", ")),
           "label_column");
    }
    label_ = *label;
    if (columns_.by_session) session_ = column("session");
    if (session_) return;
    for (std::size_t i = 0; i < kFiveTuple.size(); ++i) {
      const std::optional<std::size_t> found = column(kFiveTuple[i]);
      if (!found) {
        fail(fmt::format("expected {}the columns {}; '{}' is not there",
                         columns_.by_session ? "a column 'session' or " : "",
                         fmt::join(kFiveTuple, ", "), kFiveTuple[i]));
      }
      five_tuple_[i] = *found;
    }
    first_seen_ = column("first_seen");
  }

  void add(const Fields& fields) {
    const std::string& label = fields[label_];
    if (label.empty()) return;
    if (const std::string problem = label_problem(label); !problem.empty()) {
      fail(fmt::format("the label '{}' cannot be used: {}", label, problem));
    }
    if (!session_) return add_key(key_of(fields), time_in(fields), label);
    const std::optional<SessionId> id = session_of(fields[*session_]);
    if (!id) {
      fail(fmt::format("'{}' is no session id; expected 32 hexadecimal digits", fields[*session_]));
    }
    const auto [place, fresh] = table_.by_id_.try_emplace(*id, number_of(label));
    if (!fresh) compare(place->second, label, "session");
  }

  FiveTuple key_of(const Fields& fields) const {
    const auto field = [&](std::size_t i) -> const std::string& { return fields[five_tuple_[i]]; };
    FiveTuple key;
    const auto protocol = protocol_of(field(0));
    if (!protocol)
      fail(fmt::format("'{}' is no protocol; expected tcp, udp or a number", field(0)));
    key.protocol = *protocol;
    key.family = read_address(field(1), key.low);
    for (const std::size_t i : {1U, 3U}) {
      Address address{};
      const std::uint8_t family = read_address(field(i), address);
      if (family == 0) fail(fmt::format("'{}' is no IP address", field(i)));
      if (family != key.family) fail("one address is of IPv4, the other of IPv6");
      const auto port = number<std::uint16_t>(field(i + 1));
      if (!port) fail(fmt::format("'{}' is no port; expected 0 to 65535", field(i + 1)));
      (i == 1 ? key.low : key.high) = address;
      (i == 1 ? key.low_port : key.high_port) = *port;
    }
    if (std::pair(key.high, key.high_port) < std::pair(key.low, key.low_port)) {
      std::swap(key.low, key.high);
      std::swap(key.low_port, key.high_port);
    }
    return key;
  }

  [[nodiscard]] Timestamp time_in(const Fields& fields) const {
    if (!first_seen_ || fields[*first_seen_].empty()) return kNoTime;
    const auto time = time_of(fields[*first_seen_]);
    if (!time) {
      fail(
          fmt::format("'{}' is no time; expected one like 2016-05-04T10:11:12.123456789Z, from "
                      "1677-09-22 to 2262-04-11",
                      fields[*first_seen_]));
    }
    return *time;
  }

  void add_key(const FiveTuple& key, Timestamp time, const std::string& label) {
    std::vector<Begin>& begins = table_.by_key_[key];
    const auto same = std::ranges::find(begins, time, &Begin::first);
    if (same != begins.end()) return compare(same->second, label, "five-tuple");
    begins.emplace_back(time, number_of(label));
  }

  void compare(std::uint32_t known, const std::string& label, const char* what) const {
    if (table_.labels_[known] == label) return;
    fail(fmt::format("the {} has the label '{}' here and '{}' in a line before", what, label,
                     table_.labels_[known]));
  }

  std::uint32_t number_of(const std::string& label) {
    const auto [place, fresh] =
        numbers_.try_emplace(label, static_cast<std::uint32_t>(table_.labels_.size()));
    if (fresh) table_.labels_.push_back(label);
    return place->second;
  }

  void sort() {
    for (auto& [key, begins] : table_.by_key_) std::ranges::sort(begins);
  }

  LabelTable& table_;
  const std::string& path_;
  const Columns& columns_;
  const std::size_t most_;
  std::size_t line_ = 0;  ///< where the row at hand begins
  bool inside_ = false;   ///< a row that goes on in the next line
  std::size_t rows_ = 0;
  Fields header_;
  std::size_t label_ = 0;
  std::optional<std::size_t> session_;
  std::optional<std::size_t> first_seen_;
  std::array<std::size_t, kFiveTuple.size()> five_tuple_{};
  std::map<std::string, std::uint32_t> numbers_;
};

LabelTable::LabelTable(const std::string& path, const Columns& columns, std::size_t most) {
  Reader(*this, path, columns, most).read();
}

const std::string* LabelTable::find(const SessionInfo& session) const {
  if (by_id_.empty()) return find(session.key, session.first_seen);
  const auto found = by_id_.find(session.id);
  return found == by_id_.end() ? nullptr : &labels_[found->second];
}

const std::string* LabelTable::find(const FiveTuple& key, Timestamp time) const {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return nullptr;
  const std::vector<Begin>& begins = found->second;
  const auto after = std::ranges::upper_bound(begins, time, {}, &Begin::first);
  return after == begins.begin() ? nullptr : &labels_[std::prev(after)->second];
}

}  // namespace millrace
