#include "status_node.h"

#include <algorithm>
#include <array>
#include <ctime>

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "millrace/abi.h"
#include "millrace/json.h"
#include "millrace/text_depth.h"

namespace millrace {

namespace {

using std::chrono::steady_clock;

// Together with all else they stay below the megabyte that ZooKeeper takes, even if every byte of
// the error needs six as JSON.
constexpr std::size_t kLongestError = 64U << 10U;
constexpr std::size_t kLongestCounters = 512U << 10U;

/// After a write that failed, and for a holder whose end nobody tells.
constexpr std::chrono::seconds kPause{1};

std::string written(Timestamp time) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
  const auto rest = std::chrono::floor<std::chrono::milliseconds>(time - seconds);
  return fmt::format(
      "{:%Y-%m-%dT%H:%M:%S}.{:03}Z",
      fmt::gmtime(std::chrono::system_clock::to_time_t(
          std::chrono::time_point_cast<std::chrono::system_clock::duration>(seconds))),
      rest.count());
}

/// Whether two statuses differ in more than their counters.
bool differ(const ConfigStatus& a, const ConfigStatus& b) {
  return a.applied != b.applied || a.seen != b.seen || a.ok != b.ok || a.error != b.error ||
         a.pid != b.pid || a.restarts != b.restarts;
}

}  // namespace

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "";
}

StatusNode::StatusNode(std::string path, std::string agent, Duration report)
    : path_(std::move(path)), agent_(std::move(agent)), report_(report), host_(host_name()) {}

void StatusNode::open(Context& context) {
  context_ = &context;
  since_ = written(context.clock().now());
}

bool StatusNode::tell(const ConfigStatus& status) {
  const std::lock_guard lock(mutex_);
  const bool waited = fresh_;
  fresh_ = fresh_ || status.counters != status_.counters;
  const bool news = differ(status, status_);
  urgent_ = urgent_ || news;
  status_ = status;
  return news || fresh_ != waited;
}

void StatusNode::tell_source(Source source) {
  const std::lock_guard lock(mutex_);
  if (source_ == source) return;
  source_ = source;
  urgent_ = true;
}

std::uint64_t StatusNode::applied() const {
  const std::lock_guard lock(mutex_);
  return status_.applied;
}

void StatusNode::renew() {
  const std::lock_guard lock(mutex_);
  urgent_ = true;
  not_before_ = {};
}

void StatusNode::node_changed() { renew(); }

std::optional<StatusNode::Time> StatusNode::due() const {
  const std::lock_guard lock(mutex_);
  if (path_.empty() || (!urgent_ && !fresh_)) return std::nullopt;
  const Time at = urgent_
                      ? not_before_
                      : written_at_ + std::chrono::duration_cast<steady_clock::duration>(report_);
  return std::max(at, not_before_);
}

std::string StatusNode::text(const ConfigStatus& status, Source source) const {
  std::string text;
  {
    json::Object object(text);
    object.member("agent", agent_);
    object.member("host", host_);
    object.member("version", MILLRACE_VERSION);
    object.member("supervisor", ::getpid());
    object.member("pid", status.pid);
    object.member("applied", status.applied);
    object.member("seen", status.seen);
    object.member("ok", status.ok);
    // A configuration that is applied, and no process that runs it.
    object.member("paused", status.ok && status.pid == 0 && status.applied != 0 &&
                                status.applied == status.seen);
    object.member("node", source == Source::there     ? "there"
                          : source == Source::deleted ? "deleted"
                                                      : "absent");
    const std::string_view error = cut_text(status.error, kLongestError);
    object.member("error", error.size() == status.error.size()
                               ? status.error
                               : fmt::format("{}... ({} bytes more)", error,
                                             status.error.size() - error.size()));
    object.member("restarts", status.restarts);
    object.member("since", since_);
    object.member("updated", written(context_->clock().now()));
    const bool fits = !status.counters.empty() && status.counters.size() <= kLongestCounters;
    object.raw("counters", fits ? status.counters : "null");
  }
  return text;
}

void StatusNode::write(ZkClient& client, const std::stop_token& stop) {
  ConfigStatus status;
  Source source{};
  {
    const std::lock_guard lock(mutex_);
    status = status_;
    source = source_;
    urgent_ = fresh_ = false;
  }
  const std::string json = text(status, source);
  Put outcome = put(client, json, stop);
  if (outcome == Put::again) outcome = put(client, json, stop);
  const std::lock_guard lock(mutex_);
  written_at_ = steady_clock::now();
  if (outcome == Put::done) {
    not_before_ = {};
  } else {
    urgent_ = true;
    not_before_ = written_at_ + kPause;
  }
}

StatusNode::Put StatusNode::put(ZkClient& client, const std::string& text,
                                const std::stop_token& stop) {
  if (session_ == 0 || session_ != client.session()) {
    session_ = 0;
    const ZkReply made = client.create(path_, text, true, stop);
    if (made.code == ZkCode::node_exists) return look_at_holder(client, stop);
    if (made.code != ZkCode::ok) return failed(made);
    session_ = client.session();
    version_ = made.version;
    held_since_.reset();
    if (reminder_.clear()) context_->info(fmt::format("registered as '{}'", path_));
    return Put::done;
  }
  const ZkReply reply = client.set(path_, text, version_, stop);
  // Somebody has deleted the node, or more.
  if (reply.code == ZkCode::no_node || reply.code == ZkCode::bad_version) {
    session_ = 0;
    return Put::again;
  }
  if (reply.code != ZkCode::ok) return failed(reply);
  version_ = reply.version;
  return Put::done;
}

StatusNode::Put StatusNode::look_at_holder(ZkClient& client, const std::stop_token& stop) {
  const ZkReply holder = client.get(path_, true, stop);
  if (holder.code == ZkCode::no_node) return Put::again;
  if (holder.code == ZkCode::ok && holder.owner == client.session()) {
    // The answer to an earlier call was lost.
    session_ = holder.owner;
    version_ = holder.version;
    return Put::again;
  }
  if (holder.code != ZkCode::ok && holder.code != ZkCode::not_allowed) return failed(holder);
  say_held(client, holder, stop);
  return Put::failed;
}

void StatusNode::say_held(const ZkClient& client, const ZkReply& holder,
                          const std::stop_token& /*stop*/) {
  const Time now = steady_clock::now();
  if (!held_since_) held_since_ = now;
  std::string who = "a session that may not be looked at";
  if (holder.code == ZkCode::ok) {
    const auto data = json_fault(holder.data) ? nlohmann::json()
                                              : nlohmann::json::parse(holder.data, nullptr, false);
    who = data.is_object() && data.contains("host") && data.contains("supervisor")
              ? fmt::format("host {}, process {}", data["host"].dump(), data["supervisor"].dump())
              : "a session of something else";
    if (holder.owner == 0) who = "nobody: it is no ephemeral node; delete it";
  }
  // The session of an agent that was killed lasts as long as its time-out.
  if (holder.owner != 0 && now < *held_since_ + 2 * client.options().session_timeout) {
    if (reminder_.due("held", now)) {
      context_->info(fmt::format("'{}' is there already ({}); waiting for it to go", path_, who));
    }
  } else if (reminder_.due("taken", now)) {
    context_->warning(
        fmt::format("'{}' belongs to another agent of the same name ({}); this one has no status "
                    "until that has ended. Every agent needs a name of its own (option 'agent')",
                    path_, who));
  }
}

StatusNode::Put StatusNode::failed(const ZkReply& reply) {
  if (reply.code != ZkCode::lost && reply.code != ZkCode::stopped &&
      reminder_.due(reply.error, steady_clock::now())) {
    context_->warning(fmt::format("the status cannot be written to '{}': {}", path_, reply.error));
  }
  return Put::failed;
}

}  // namespace millrace
