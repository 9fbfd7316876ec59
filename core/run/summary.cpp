#include <algorithm>

#include <fmt/format.h>

#include "millrace/json.h"

#include "run/pipeline.h"

namespace millrace::host {

namespace {

double busy_seconds(const Account& account) {
  return static_cast<double>(account.busy_ns.value()) / 1e9;
}

}  // namespace

std::string summary_text(const std::vector<std::unique_ptr<StageRunner>>& stages) {
  std::size_t width = 16;
  for (const auto& stage : stages) width = std::max(width, stage->plan().name.size());
  std::string out = fmt::format("{:<{}} {:>12} {:>12} {:>10} {:>10} {:>8} {:>9}\n", "stage", width,
                                "in", "out", "dropped", "rejected", "retried", "busy s");
  for (const auto& stage : stages) {
    const Account& account = stage->account();
    out += fmt::format("{:<{}} {:>12} {:>12} {:>10} {:>10} {:>8} {:>9.2f}\n", stage->plan().name,
                       width, account.in.value(), account.out.value(), account.dropped_items(),
                       account.rejected.value(), account.retried.value(), busy_seconds(account));
  }
  for (const auto& stage : stages) {
    std::string line;
    for (const auto& [reason, n] : stage->account().dropped()) {
      line += fmt::format("{}{} {}", line.empty() ? "dropped " : ", ", reason, n);
    }
    std::string counters;
    for (const auto& [name, n] : stage->account().counters()) {
      if (n != 0) counters += fmt::format("{}{} {}", counters.empty() ? "" : ", ", name, n);
    }
    if (!line.empty() && !counters.empty()) line += "; ";
    line += counters;
    if (const auto failed = stage->account().failed.value(); failed != 0) {
      line += fmt::format("{}failed {}", line.empty() ? "" : "; ", failed);
    }
    if (!line.empty()) out += fmt::format("{}: {}\n", stage->plan().name, line);
  }
  return out;
}

std::string summary_json(const std::vector<std::unique_ptr<StageRunner>>& stages) {
  std::string json;
  {
    json::Object all(json);
    all.member("summary", true);
    std::string& list = all.key("stages");
    list += '[';
    for (const auto& stage : stages) {
      if (!list.ends_with('[')) list += ',';
      const Account& account = stage->account();
      json::Object object(list);
      object.member("stage", stage->plan().name);
      object.member("in", account.in.value());
      object.member("out", account.out.value());
      object.member("handled", account.handled.value());
      object.member("rejected", account.rejected.value());
      object.member("failed", account.failed.value());
      object.member("retried", account.retried.value());
      object.raw("busy_seconds", fmt::format("{:.6f}", busy_seconds(account)));
      {
        json::Object dropped(object.key("dropped"));
        for (const auto& [reason, n] : account.dropped()) dropped.member(reason, n);
      }
      json::Object counters(object.key("counters"));
      for (const auto& [name, n] : account.counters()) counters.member(name, n);
    }
    list += ']';
  }
  return json;
}

std::vector<std::string> imbalances(const std::vector<std::unique_ptr<StageRunner>>& stages) {
  std::vector<std::string> problems;
  for (const auto& stage : stages) {
    const Account& account = stage->account();
    const Plan::Stage& plan = stage->plan();
    if (plan.kind == StageKind::source) continue;
    std::uint64_t given = 0;
    for (const std::size_t from : plan.from) given += stages[from]->account().out.value();
    if (given != account.in.value()) {
      problems.push_back(fmt::format("stage '{}' got {} items of the {} it was sent", plan.name,
                                     account.in.value(), given));
    }
    const std::uint64_t known = account.handled.value() + account.rejected.value() +
                                account.dropped_items() + account.failed.value();
    // A stage that failed may hold items that nobody can account for any more.
    if (known != account.in.value() && !stage->gave_up()) {
      problems.push_back(fmt::format(
          "stage '{}' took {} items and accounts for {} (handled {}, rejected {}, dropped {}, "
          "failed {})",
          plan.name, account.in.value(), known, account.handled.value(), account.rejected.value(),
          account.dropped_items(), account.failed.value()));
    }
  }
  return problems;
}

}  // namespace millrace::host
