#include "apply.h"

#include <algorithm>
#include <map>
#include <stop_token>
#include <utility>

#include <fmt/format.h>

#include "reconcile.h"

namespace millrace {

namespace {

using std::chrono::steady_clock;

/// How long one attempt waits for a connection.
constexpr std::chrono::seconds kConnectWait{5};
/// After a comparison that failed.
constexpr std::chrono::seconds kReconcileAgain{30};

/// "database.table" of the table to compare with.
std::string table_name(const TableAddress& address) {
  return address.server.address.database + '.' + address.table;
}

NodeLayout layout_of(const ApplyOptions& options) {
  return NodeLayout({options.node, options.format, options.columns, options.value});
}

/// The row before an update. Some messages bring only what was different.
Change::Row row_before(const Change& change) {
  Change::Row row = change.after;
  for (const auto& [name, value] : change.before) {
    const auto found = std::ranges::find(row, name, &Change::Row::value_type::first);
    if (found == row.end()) {
      row.emplace_back(name, value);
    } else {
      found->second = value;
    }
  }
  return row;
}

}  // namespace

void ConfigZkApply::check(const ApplyOptions& options, Findings& findings) {
  try {
    (void)parse_zk_servers(options.server);
  } catch (const std::invalid_argument& error) {
    findings.add("server", error.what());
  }
  try {
    (void)layout_of(options);
  } catch (const ConfigError& error) {
    findings.add(error.option(), error.what());
  }
  for (const std::string& table : options.tables) {
    const std::size_t dot = table.find('.');
    if (dot == std::string::npos || dot == 0 || dot + 1 == table.size()) {
      findings.add("tables", fmt::format("'{}' is no database.table", table));
    }
  }
  if (!options.auth.empty()) {
    const std::size_t colon = options.auth.find(':');
    if (colon == std::string::npos || colon == 0 || colon + 1 == options.auth.size()) {
      findings.add("auth", "expected user:password");
    }
  } else if (options.readable) {
    findings.add("readable", "without 'auth' everybody may read and write the nodes anyhow");
  }
  if (options.reconcile.empty()) return;
  try {
    const std::string table = table_name(parse_table_address(options.reconcile));
    // Nodes of other tables would be superfluous.
    if (!options.tables.empty() && options.tables != std::vector{table}) {
      findings.add("tables", fmt::format("'reconcile' compares the nodes with {}, so there can be "
                                         "changes of no other table",
                                         table));
    }
  } catch (const std::invalid_argument& error) {
    findings.add("reconcile", error.what());
  }
}

void ConfigZkApply::open(Context& context) {
  Findings findings;
  check(options_, findings);
  if (!findings.list().empty()) {
    throw ConfigError(findings.list().front().option, findings.list().front().message);
  }
  context_ = &context;
  layout_.emplace(layout_of(options_));
  tables_ = options_.tables;
  if (!options_.reconcile.empty()) {
    table_ = parse_table_address(options_.reconcile);
    tables_ = {table_name(*table_)};
    reconcile_at_ = context.clock().now();
  }
  created_ = &context.counter("created");
  updated_ = &context.counter("updated");
  deleted_ = &context.counter("deleted");
  kept_ = &context.counter("kept");
  unchanged_ = &context.counter("unchanged");
  superseded_ = &context.counter("superseded");
  repaired_ = &context.counter("repaired");
  client_.emplace(ZkOptions{parse_zk_servers(options_.server), options_.session_timeout,
                            options_.auth, options_.readable});
}

void ConfigZkApply::close() noexcept { client_.reset(); }

bool ConfigZkApply::is_ours(const Change& change) const {
  return tables_.empty() ||
         std::ranges::find(tables_, change.database + '.' + change.table) != tables_.end();
}

void ConfigZkApply::write(Batch<Change>& in) {
  // Everything that can be wrong with an item comes before the first effect.
  const std::vector<Step> steps = steps_of(in);
  std::map<std::string_view, const Step*> last;
  for (const Step& step : steps) last.insert_or_assign(step.path, &step);
  if (!steps.empty()) connect();
  for (const Step& step : steps) {
    // A node is only made what it is in the end, so that a batch that is written again never
    // shows an older value.
    if (last.at(step.path) == &step) apply(step);
  }
  superseded_->add(steps.size() - last.size());
  const auto others =
      std::ranges::count_if(in.items, [this](const Change& change) { return !is_ours(change); });
  if (others > 0) context_->dropped("other-table", static_cast<std::uint64_t>(others));
  reconcile_if_due();
}

std::vector<ConfigZkApply::Step> ConfigZkApply::steps_of(const Batch<Change>& in) const {
  std::vector<Step> steps;
  std::string reason;
  std::vector<std::size_t> bad;
  for (std::size_t i = 0; i < in.items.size(); ++i) {
    if (!is_ours(in.items[i])) continue;
    try {
      add_steps(in.items[i], i, steps);
    } catch (const RowFault& fault) {
      // Those of other rows and reasons come up when the host asks again.
      const Change& change = in.items[i];
      const Change::Row& row = change.kind == Change::Kind::deleted ? change.before : change.after;
      const std::string why = fmt::format("row of {}.{} with {}: {}", change.database, change.table,
                                          layout_->name_of(row), fault.what());
      if (bad.empty()) reason = why;
      if (reason == why) bad.push_back(i);
    }
  }
  if (!bad.empty()) throw Rejected(reason, std::move(bad));
  return steps;
}

void ConfigZkApply::add_steps(const Change& change, std::size_t item,
                              std::vector<Step>& steps) const {
  if (change.kind == Change::Kind::deleted) {
    steps.push_back({layout_->path(change.before), std::nullopt, item});
    return;
  }
  std::string path = layout_->path(change.after);
  std::string value = layout_->value(change.after);
  if (change.kind == Change::Kind::updated) {
    try {
      std::string old = layout_->path(row_before(change));
      if (old != path) steps.push_back({std::move(old), std::nullopt, item});
    } catch (const RowFault&) {
      // Then there has never been a node of it.
    }
  }
  steps.push_back({std::move(path), std::move(value), item});
}

void ConfigZkApply::connect() {
  const auto until = steady_clock::now() + kConnectWait;
  for (;;) {
    switch (client_->state()) {
      case ZkState::connected:
        return;
      case ZkState::auth_failed:
        throw std::runtime_error(
            fmt::format("{} does not take the user and the password of 'auth'", options_.server));
      case ZkState::closed:
      case ZkState::expired:
        try {
          client_->open();
        } catch (const std::runtime_error& error) {
          throw Transient(error.what());
        }
        break;
      case ZkState::connecting:
        break;
    }
    if (steady_clock::now() >= until) {
      throw Transient(fmt::format("no server of {} answers", options_.server));
    }
    client_->wait(until, {});
  }
}

void ConfigZkApply::apply(const Step& step) {
  if (step.value) {
    put(step);
  } else if (options_.on_delete == OnDelete::keep) {
    kept_->add();
  } else {
    remove(step);
  }
}

void ConfigZkApply::put(const Step& step) {
  // Others may make or delete the node in between; that often they do not.
  for (int attempt = 0; attempt < 10; ++attempt) {
    // Read first: writing the same again would wake everybody who watches.
    const ZkReply node = client_->get(step.path, false, {});
    if (node.code == ZkCode::ok && node.data == *step.value) return unchanged_->add();
    const bool is_there = node.code == ZkCode::ok || node.code == ZkCode::not_allowed;
    if (!is_there && node.code != ZkCode::no_node) expect(node, step);
    const ZkReply reply = is_there ? client_->set(step.path, *step.value, ZkClient::kAnyVersion, {})
                                   : client_->create(step.path, *step.value, false, {});
    if (reply.code == ZkCode::no_node || reply.code == ZkCode::node_exists) continue;
    expect(reply, step);
    context_->info(is_there ? fmt::format("changed '{}': {}", step.path,
                                          different_keys(options_.format, node.data, *step.value))
                            : fmt::format("made '{}'", step.path));
    return (is_there ? updated_ : created_)->add();
  }
  throw Transient(fmt::format("'{}' is made and deleted by others all the time", step.path));
}

void ConfigZkApply::remove(const Step& step) {
  const ZkReply reply = client_->remove(step.path, ZkClient::kAnyVersion, {});
  if (reply.code == ZkCode::no_node) return unchanged_->add();
  if (reply.code == ZkCode::not_empty) {
    context_->warning(
        fmt::format("the node '{}' stays, because others have put nodes below it", step.path));
    return kept_->add();
  }
  expect(reply, step);
  context_->info(fmt::format("deleted '{}': its row is gone", step.path));
  deleted_->add();
}

void ConfigZkApply::expect(const ZkReply& reply, const Step& step) const {
  switch (reply.code) {
    case ZkCode::ok:
      return;
    case ZkCode::lost:
    case ZkCode::stopped:
      throw Transient(fmt::format("{} does not answer: {}", options_.server, reply.error));
    case ZkCode::not_allowed:
      // What was done before it is found unchanged when the rest is written again.
      throw Rejected(fmt::format("the node '{}' may not be changed: {}", step.path, reply.error),
                     {step.item});
    default:
      throw std::runtime_error(
          fmt::format("the node '{}' cannot be written: {}", step.path, reply.error));
  }
}

void ConfigZkApply::reconcile_if_due() {
  const Timestamp now = context_->clock().now();
  if (!reconcile_at_ || now < *reconcile_at_) return;
  std::string failure;
  try {
    reconcile();
    reconcile_said_.clear();
    reconcile_at_.reset();
    if (options_.reconcile_every > Duration(0)) reconcile_at_ = now + options_.reconcile_every;
    return;
  } catch (const Transient& error) {
    failure = error.what();
  } catch (const ServerError& error) {
    failure = error.what();
  }
  // The changes go on meanwhile.
  reconcile_at_ = now + kReconcileAgain;
  if (reconcile_said_.due(failure, steady_clock::now())) {
    context_->warning(
        fmt::format("the nodes cannot be compared with {}, trying again every {} s: {}",
                    table_name(*table_), kReconcileAgain.count(), failure));
  }
}

void ConfigZkApply::reconcile() {
  connect();
  Reconcile task(
      *client_, *layout_, [this] { return read_table(*table_, layout_->columns()); },
      options_.on_delete == OnDelete::remove);
  const Reconcile::Result result = task.run();
  repaired_->add(result.repaired());
  for (const std::string& line : result.audit) context_->info(line);
  if (result.repaired() > 0 || result.left > 0) {
    context_->info(fmt::format(
        "compared the nodes with {} rows of {}: {} were missing, {} different, {} superfluous; {} "
        "left as they are",
        result.rows, table_name(*table_), result.missing, result.different, result.superfluous,
        result.left));
  }
  // Every few minutes the same would be no news.
  const std::string fault = result.bad_rows > 0 ? result.fault : std::string();
  const bool news = std::exchange(fault_said_, fault) != fault;
  const bool still_empty = std::exchange(empty_said_, result.table_is_empty);
  if (result.bad_rows > 0 && news) {
    context_->warning(fmt::format("{} rows of {} give no node; the first: {}", result.bad_rows,
                                  table_name(*table_), result.fault));
  }
  if (result.table_is_empty && !still_empty) {
    context_->warning(
        fmt::format("{} has no row at all; no node was deleted for that", table_name(*table_)));
  }
}

}  // namespace millrace
