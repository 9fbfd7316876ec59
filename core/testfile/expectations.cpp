#include <algorithm>
#include <fstream>
#include <numeric>
#include <sstream>

#include <fmt/format.h>

#include "testfile/test_run.h"

namespace millrace::host {

namespace {

constexpr std::size_t kItemsShown = 3;

std::string indented(const std::string& text) {
  std::string out;
  std::stringstream lines(text);
  for (std::string line; std::getline(lines, line);) out += "  " + line + '\n';
  return out;
}

class Checker {
 public:
  Checker(const Expectation& expect, const Recording* recording,
          const std::vector<std::unique_ptr<StageRunner>>& stages)
      : expect_(expect), recording_(recording) {
    for (const auto& stage : stages) {
      const std::string& name = stage->plan().name;
      // The halves of a queue stage are two of the plan.
      const bool half = name == expect.stage + ".in" || name == expect.stage + ".out";
      if (name == expect.stage || half) accounts_.push_back(&stage->account());
    }
  }

  /// What is not as expected, empty if all is.
  std::string check() {
    if (expect_.where == Expectation::Where::file) {
      if (!read_file()) return std::move(out_);
    } else if (recording_ != nullptr) {
      for (const std::string& item : recording_->items()) got_.push_back(to_json(item));
    }
    if (expect_.count) number("count", *expect_.count, count());
    if (recording_ != nullptr && recording_->count() > got_.size()) {
      out_ += fmt::format("{} items came, of which only {} were kept; let fewer come\n",
                          recording_->count(), got_.size());
      return std::move(out_);
    }
    items();
    none();
    account();
    for (const std::string& text : expect_.contains) {
      if (content_.find(text) == std::string::npos)
        out_ += fmt::format("- contains \"{}\"\n", text);
    }
    return std::move(out_);
  }

 private:
  bool read_file() {
    std::ifstream file(expect_.stage, std::ios::binary);
    if (!file) {
      out_ += "there is no such file\n";
      return false;
    }
    std::stringstream content;
    content << file.rdbuf();
    content_ = content.str();
    for (std::string line; std::getline(content, line);) {
      ++lines_;
      if (!expect_.items.empty() || !expect_.none.empty()) got_.push_back(to_json(line));
    }
    return true;
  }

  template <class Tally>
  std::uint64_t sum(Tally Account::*tally) const {
    std::uint64_t all = 0;
    for (const Account* account : accounts_) all += (account->*tally).value();
    return all;
  }
  template <class List>
  std::map<std::string, std::uint64_t> sums(List list) const {
    std::map<std::string, std::uint64_t> all;
    for (const Account* account : accounts_) {
      for (const auto& [name, n] : (account->*list)()) all[name] += n;
    }
    return all;
  }

  std::uint64_t count() const {
    if (expect_.where == Expectation::Where::file) return lines_;
    return expect_.where == Expectation::Where::after ? sum(&Account::out) : sum(&Account::in);
  }

  void number(const std::string& name, const ConfigValue& expected, std::uint64_t got) {
    if (matches(expected, Json(got), 0)) return;
    out_ += fmt::format("- {} = {}\n+ {} = {}\n", name, shown(expected), name, got);
  }

  void account() {
    for (const ConfigEntry& entry : expect_.numbers) {
      number(entry.key, entry.value,
             entry.key == "rejected" ? sum(&Account::rejected)
             : entry.key == "failed" ? sum(&Account::failed)
                                     : sum(&Account::retried));
    }
    named("dropped", expect_.dropped, sums(&Account::dropped));
    named("counters", expect_.counters, sums(&Account::counters));
  }

  void named(const std::string& what, const ConfigValue::Table& expected,
             const std::map<std::string, std::uint64_t>& got) {
    std::vector<std::string> names;
    names.reserve(got.size());
    for (const auto& [name, n] : got) names.push_back(name);
    for (const ConfigEntry& entry : expected) {
      const auto found = got.find(entry.key);
      number(fmt::format("{} \"{}\"", what, entry.key), entry.value,
             found == got.end() ? 0 : found->second);
      const std::string meant = nearest(entry.key, names);
      if (found == got.end() && !meant.empty()) {
        out_ += fmt::format("  there is \"{}\" = {}\n", meant, got.at(meant));
      }
    }
  }

  void items() {
    if (expect_.items.empty()) return;
    const auto places = find_items(expect_.items, got_, expect_.ordered, expect_.tolerance);
    std::vector<bool> taken(got_.size());
    for (const auto& place : places) {
      if (place) taken[*place] = true;
    }
    for (std::size_t i = 0; i < places.size(); ++i) {
      if (!places[i]) missing(i, taken);
    }
    // Where the count is wrong, what else came is the first question.
    if (out_.empty()) return;
    std::size_t others = 0;
    for (std::size_t i = 0; i < got_.size(); ++i) {
      if (!taken[i] && ++others <= kItemsShown) out_ += fmt::format("+ {}\n", shown(got_[i]));
    }
    if (others > kItemsShown) out_ += fmt::format("+ and {} more\n", others - kItemsShown);
  }

  void missing(std::size_t number, std::vector<bool>& taken) {
    const ConfigValue& wanted = expect_.items[number];
    out_ += fmt::format("item {} of {} did not come", number + 1, expect_.items.size());
    if (expect_.ordered && std::ranges::any_of(got_, [&](const Json& item) {
          return matches(wanted, item, expect_.tolerance);
        })) {
      out_ += " in this order";
    }
    const auto near = nearest_item(wanted, got_, taken, expect_.tolerance);
    if (!near) {
      out_ += fmt::format("; nothing like it is among the {}\n- {}\n", got_.size(), shown(wanted));
      return;
    }
    taken[*near] = true;
    out_ += fmt::format("; the nearest of {} is number {}\n{}", got_.size(), *near + 1,
                        indented(difference(wanted, got_[*near], expect_.tolerance)));
  }

  void none() {
    for (const ConfigValue& unwanted : expect_.none) {
      const auto found = std::ranges::find_if(
          got_, [&](const Json& item) { return matches(unwanted, item, expect_.tolerance); });
      if (found == got_.end()) continue;
      out_ += fmt::format("- none {}\n+ {}\n", shown(unwanted), shown(*found));
    }
  }

  const Expectation& expect_;
  const Recording* recording_;
  std::vector<const Account*> accounts_;
  std::vector<Json> got_;
  std::string content_;
  std::size_t lines_ = 0;
  std::string out_;
};

}  // namespace

void check_expectations(const TestFile& file, const Test& test, const TestPlan& plan,
                        const std::vector<std::unique_ptr<StageRunner>>& stages,
                        TestResult& result) {
  for (std::size_t i = 0; i < test.expectations.size(); ++i) {
    const Expectation& expect = test.expectations[i];
    const std::string wrong = Checker(expect, plan.recordings[i].get(), stages).check();
    if (wrong.empty()) continue;
    const char* where = expect.where == Expectation::Where::after ? "after"
                        : expect.where == Expectation::Where::at  ? "at"
                                                                  : "file";
    result.fail(fmt::format("{} '{}' ({}:{})\n{}", where, expect.stage, file.path.string(),
                            expect.at.line, wrong));
  }
}

}  // namespace millrace::host
