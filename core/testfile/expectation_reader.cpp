#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "testfile/test_file.h"
#include "testfile/test_keys.h"

namespace millrace::host {

namespace {

class ExpectationReader {
 public:
  ExpectationReader(const std::filesystem::path& folder, Report& report)
      : folder_(folder), report_(report) {}

  std::optional<Expectation> read(const ConfigValue::Table& table, Position at) {
    static const std::vector<std::string> kNumbers = {"rejected", "retried", "failed"};
    std::vector<std::string> inner = {"count", "items", "none", "dropped", "counters"};
    inner.insert(inner.end(), kNumbers.begin(), kNumbers.end());
    const ConfigValue::Table plain = without(table, inner);
    ExpectKeys keys;
    (void)bind_options(plain, ExpectKeys::specs(), &keys, "an expectation", at, inner, true,
                       report_);
    Expectation expect;
    expect.at = at;
    expect.ordered = keys.ordered;
    expect.tolerance = keys.tolerance;
    expect.contains = keys.contains;
    int places = 0;
    for (const auto& [key, name, where] :
         {std::tuple("after", keys.after, Expectation::Where::after),
          std::tuple("at", keys.at, Expectation::Where::at),
          std::tuple("file", keys.file, Expectation::Where::file)}) {
      const ConfigEntry* entry = find(plain, key);
      if (entry == nullptr) continue;
      ++places;
      expect.where = where;
      expect.stage = where == Expectation::Where::file ? (folder_ / name).string() : name;
      expect.stage_at = entry->value.at;
    }
    if (places != 1) {
      report_.add(at, "the expectation does not say of what it is",
                  R"(one of after = "STAGE", at = "STAGE" and file = "PATH")");
      return std::nullopt;
    }
    for (const ConfigEntry& entry : table) {
      if (!among(entry.key, inner)) continue;
      check_expected(entry.value, report_);
      read_expected(entry, among(entry.key, kNumbers), expect);
    }
    const bool empty = !expect.count && expect.items.empty() && expect.none.empty() &&
                       expect.contains.empty() && expect.numbers.empty() &&
                       expect.dropped.empty() && expect.counters.empty();
    if (empty) {
      report_.add(at, "the expectation expects nothing",
                  fmt::format("one of {}", fmt::join(inner, ", ")));
    }
    check_place(expect);
    return expect;
  }

 private:
  void read_expected(const ConfigEntry& entry, bool number, Expectation& expect) {
    const ConfigValue& value = entry.value;
    if (number || entry.key == "count") {
      if (value.table() == nullptr && !std::holds_alternative<std::int64_t>(value.value)) {
        report_.add(value.at, fmt::format("'{}' is {}", entry.key, kind_of(value)),
                    "a number, or a condition such as { min = 1, max = 9 }");
      } else if (number) {
        expect.numbers.push_back(entry);
      } else {
        expect.count = value;
      }
    } else if (entry.key == "dropped" || entry.key == "counters") {
      if (value.table() == nullptr) {
        report_.add(value.at, fmt::format("'{}' is {}", entry.key, kind_of(value)),
                    "a table { \"name\" = number }");
        return;
      }
      (entry.key == "dropped" ? expect.dropped : expect.counters) = *value.table();
    } else if (value.list() == nullptr) {
      report_.add(value.at, fmt::format("'{}' is {}", entry.key, kind_of(value)),
                  "a list [{ field = value }, ...]");
    } else {
      (entry.key == "items" ? expect.items : expect.none) = *value.list();
    }
  }

  void check_place(const Expectation& expect) {
    const bool file = expect.where == Expectation::Where::file;
    if (file && (!expect.numbers.empty() || !expect.dropped.empty() || !expect.counters.empty())) {
      report_.add(expect.at, "a file has no counts of a stage", "count, items, none or contains");
    }
    if (!file && !expect.contains.empty()) {
      report_.add(expect.at, "'contains' is for files", "items or none");
    }
  }

  const std::filesystem::path& folder_;
  Report& report_;
};

}  // namespace

std::optional<Expectation> read_expectation(const ConfigValue::Table& table, Position at,
                                            const std::filesystem::path& folder, Report& report) {
  return ExpectationReader(folder, report).read(table, at);
}

}  // namespace millrace::host
