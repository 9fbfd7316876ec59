#include "run/health.h"

#include <utility>

#include <fmt/format.h>

#include "millrace/json.h"
#include "millrace/session.h"

namespace millrace::host {

namespace {

using std::chrono::steady_clock;
using std::chrono::system_clock;

void append(std::string& list, const Trouble& trouble) {
  const auto lasted = steady_clock::now() - trouble.since;
  json::Object object(list);
  if (!trouble.stage.empty()) object.member("stage", trouble.stage);
  object.member("what", trouble.what);
  object.member("since",
                to_rfc3339(std::chrono::time_point_cast<Duration>(system_clock::now() - lasted)));
  object.member("seconds", static_cast<std::uint64_t>(
                               std::chrono::duration_cast<std::chrono::seconds>(lasted).count()));
  if (trouble.tolerated) object.member("required", false);
}

std::string list_of(const std::vector<Trouble>& troubles) {
  std::string list = "[";
  for (const Trouble& trouble : troubles) {
    if (list.size() > 1) list += ',';
    append(list, trouble);
  }
  return list + ']';
}

}  // namespace

void Health::add(Trouble trouble, std::chrono::milliseconds blocked) {
  const bool lasting = trouble.at_once || steady_clock::now() - trouble.since >= blocked;
  (lasting && !trouble.tolerated ? reasons : degraded).push_back(std::move(trouble));
}

std::string Health::why() const {
  if (ready()) return {};
  std::string text = status == kRunning ? "" : std::string(status);
  for (const Trouble& trouble : reasons) {
    text += fmt::format("{}{}{}{}", text.empty() ? "" : "; ", trouble.stage,
                        trouble.stage.empty() ? "" : ": ", trouble.what);
  }
  return text;
}

std::string Health::json(std::string_view more) const {
  std::string text;
  {
    json::Object object(text);
    if (!pipeline.empty()) object.member("pipeline", pipeline);
    object.member("status", status);
    object.member("ready", ready());
    if (!reasons.empty()) object.raw("reasons", list_of(reasons));
    if (!degraded.empty()) object.raw("degraded", list_of(degraded));
    if (!more.empty()) {
      text += ',';
      text += more;
    }
  }
  return text;
}

}  // namespace millrace::host
