#include "config_zk.h"

#include <stdexcept>

#include <fmt/format.h>

namespace millrace {

namespace {

using std::chrono::steady_clock;

/// A connection is made in milliseconds; so long without one is worth a word.
constexpr std::chrono::seconds kWorthAWord{3};
/// After something that is not told when it is over.
constexpr std::chrono::seconds kPause{1};
/// A watch ends without a word if the node changes while it may not be read, so the node is looked
/// at now and then all the same.
constexpr std::chrono::seconds kLookAgain{10};

/// The first fault of options that `check` would find, for those who did not ask it.
void insist(const ConfigZkOptions& options) {
  Findings findings;
  ConfigZk::check(options, findings);
  if (findings.list().empty()) return;
  throw ConfigError(findings.list().front().option, findings.list().front().message);
}

ZkOptions client_options(const ConfigZkOptions& options) {
  return {parse_zk_servers(options.server), options.session_timeout, options.auth,
          options.readable};
}

}  // namespace

ConfigZk::ConfigZk(const ConfigZkOptions& options) : options_(options) {
  if (options_.agent.empty()) options_.agent = host_name();
}

void ConfigZk::check(const ConfigZkOptions& options, Findings& findings) {
  try {
    (void)parse_zk_servers(options.server);
  } catch (const std::invalid_argument& error) {
    findings.add("server", error.what());
  }
  if (const std::string fault = path_fault(options.node); !fault.empty()) {
    findings.add("node", fmt::format("'{}' is no path of a node: {}", options.node, fault));
  }
  if (!options.status.empty()) {
    if (const std::string fault = path_fault(options.status); !fault.empty()) {
      findings.add("status", fmt::format("'{}' is no path of a node: {}", options.status, fault));
    }
  }
  const std::string agent = options.agent.empty() ? host_name() : options.agent;
  if (const std::string fault = name_fault(agent); !fault.empty()) {
    findings.add("agent", fmt::format("'{}' is no name of a node: {}", agent, fault));
  }
  if (!options.auth.empty()) {
    const std::size_t colon = options.auth.find(':');
    if (colon == std::string::npos || colon == 0 || colon + 1 == options.auth.size()) {
      findings.add("auth", "expected user:password");
    }
  } else if (options.readable) {
    findings.add("readable", "without 'auth' everybody may read and write the nodes anyhow");
  }
}

void ConfigZk::open(Context& context) {
  insist(options_);
  context_ = &context;
  client_.emplace(client_options(options_));
  status_.emplace(options_.status.empty() ? "" : options_.status + '/' + options_.agent,
                  options_.agent, options_.report);
  status_->open(context);
}

void ConfigZk::report(const ConfigStatus& status) {
  if (status_->tell(status)) client_->wake();
}

void ConfigZk::close() noexcept {
  if (client_) client_->close();
}

void ConfigZk::run(ConfigListener& listener, std::stop_token stop) {
  unconnected_since_ = steady_clock::now();
  while (!stop.stop_requested()) {
    std::optional<Time> until;
    switch (client_->state()) {
      case ZkState::expired:
        context_->warning("the session has expired; beginning a new one");
        [[fallthrough]];
      case ZkState::closed:
        begin_session();
        if (client_->state() == ZkState::closed) until = steady_clock::now() + kPause;
        break;
      case ZkState::connecting:
        break;
      case ZkState::auth_failed:
        throw std::runtime_error(
            fmt::format("{} does not take the user and the password of 'auth'", options_.server));
      case ZkState::connected:
        connected(listener, stop);
        until = next_due();
        break;
    }
    if (client_->state() != ZkState::connected) {
      say_no_connection();
      if (!until) until = steady_clock::now() + kPause;
    }
    client_->wait(until, stop);
  }
}

void ConfigZk::begin_session() {
  try {
    client_->open();
  } catch (const std::runtime_error& error) {
    if (connection_said_.due(error.what(), steady_clock::now())) context_->warning(error.what());
  }
}

void ConfigZk::say_no_connection() {
  // Why there is not even a session was said by begin_session.
  if (client_->state() == ZkState::closed) return;
  const Time now = steady_clock::now();
  if (now < unconnected_since_ + kWorthAWord || !connection_said_.due("none", now)) return;
  context_->warning(fmt::format("no server of {} answers; {}", options_.server,
                                generation_ == 0 ? std::string("waiting for one") : goes_on()));
}

void ConfigZk::connected(ConfigListener& listener, const std::stop_token& stop) {
  const std::uint64_t connection = client_->connections();
  if (connection != connection_) {
    if (connection_said_.clear()) {
      context_->info(fmt::format("connected with {}", options_.server));
    }
    connection_ = connection;
    read_at_ = steady_clock::now();
    status_->renew();
    // A server that lags behind must not show a new session an older configuration.
    (void)client_->sync(options_.node, stop);
  }
  for (const std::string& path : client_->take_changes()) {
    if (path == options_.node) read_at_ = steady_clock::now();
    if (path == status_->path()) status_->node_changed();
  }
  if (read_at_ && *read_at_ <= steady_clock::now()) read_node(listener, stop);
  if (const auto due = status_->due(); due && *due <= steady_clock::now()) {
    status_->write(*client_, stop);
  }
  unconnected_since_ = steady_clock::now();
}

void ConfigZk::read_node(ConfigListener& listener, const std::stop_token& stop) {
  ZkReply node = client_->get(options_.node, true, stop);
  if (node.code == ZkCode::no_node) {
    // Watched from the moment of the answer on.
    node = client_->exists(options_.node, true, stop);
    if (node.code == ZkCode::ok) return;  // made in between: read in the next round
  }
  const Time now = steady_clock::now();
  read_at_.reset();
  switch (node.code) {
    case ZkCode::ok:
      read_at_ = now + kLookAgain;
      return tell(listener, node);
    case ZkCode::no_node:
      read_at_ = now + kLookAgain;
      return say_absent();
    case ZkCode::stopped:
      return;
    case ZkCode::lost:
      read_at_ = now + kPause;
      return;
    case ZkCode::not_allowed:
      if (generation_ == 0) {
        throw std::runtime_error(
            fmt::format("the node '{}' may not be read {}: {}", options_.node,
                        options_.auth.empty() ? "without 'auth'" : "with this 'auth'", node.error));
      }
      if (node_said_.due("not allowed", now)) {
        context_->warning(fmt::format("the node '{}' may not be read any more ({}); {}",
                                      options_.node, node.error, goes_on()));
      }
      read_at_ = now + kPause;
      return;
    default:
      throw std::runtime_error(
          fmt::format("the node '{}' cannot be read: {}", options_.node, node.error));
  }
}

void ConfigZk::tell(ConfigListener& listener, const ZkReply& node) {
  node_said_.clear();
  status_->tell_source(StatusNode::Source::there);
  if (node.mzxid == generation_) return;
  if (node.mzxid < generation_) {
    context_->warning(
        fmt::format("the node '{}' is of generation {} after generation {}: the ensemble has been "
                    "set up anew or restored",
                    options_.node, node.mzxid, generation_));
  }
  generation_ = node.mzxid;
  try {
    listener.changed({generation_, read_values(options_.format, node.data, options_.node)});
  } catch (const std::runtime_error& error) {
    listener.unreadable(generation_, error.what());
  }
}

void ConfigZk::say_absent() {
  const Time now = steady_clock::now();
  if (generation_ == 0) {
    if (node_said_.due("absent", now)) {
      context_->info(
          fmt::format("the node '{}' does not exist yet; waiting for it", options_.node));
    }
  } else if (node_said_.due("deleted", now)) {
    context_->warning(fmt::format("the node '{}' was deleted; {}", options_.node, goes_on()));
  }
  status_->tell_source(generation_ == 0 ? StatusNode::Source::absent : StatusNode::Source::deleted);
}

/// The newest generation may be one that was refused.
std::string ConfigZk::goes_on() const {
  const std::uint64_t applied = status_->applied();
  return applied == 0 ? std::string("no pipeline runs yet")
                      : fmt::format("the pipeline goes on with generation {}", applied);
}

std::optional<ConfigZk::Time> ConfigZk::next_due() const {
  std::optional<Time> next = read_at_;
  if (const auto due = status_->due(); due && (!next || *due < *next)) next = due;
  return next;
}

}  // namespace millrace
