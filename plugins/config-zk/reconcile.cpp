#include "reconcile.h"

#include <stop_token>

#include <fmt/format.h>

#include "millrace/error.h"

namespace millrace {

Reconcile::Result Reconcile::run() {
  const Values before = wanted();
  Versions versions = differences(before);
  if (remove_) look_for_superfluous(before, versions);
  if (versions.empty()) return result_;
  const Values now = wanted();
  for (const auto& [path, version] : versions) repair(path, version, now);
  return result_;
}

Reconcile::Values Reconcile::wanted() {
  Values values;
  result_.bad_rows = 0;
  const std::vector<Change::Row> rows = read_table_();
  result_.rows = rows.size();
  for (const Change::Row& row : rows) {
    try {
      values.insert_or_assign(layout_.path(row), layout_.value(row));
    } catch (const RowFault& fault) {
      if (result_.bad_rows++ == 0) {
        result_.fault = fmt::format("{}: {}", layout_.name_of(row), fault.what());
      }
    }
  }
  return values;
}

Reconcile::Versions Reconcile::differences(const Values& values) {
  Versions versions;
  for (const auto& [path, value] : values) {
    const ZkReply node = answered(client_.get(path, false, {}));
    if (node.code == ZkCode::no_node) {
      versions.emplace(path, kMissing);
    } else if (node.code != ZkCode::ok) {
      ++result_.left;
    } else if (node.data != value) {
      versions.emplace(path, node.version);
    }
  }
  return versions;
}

void Reconcile::look_for_superfluous(const Values& values, Versions& versions) {
  const std::string folder = layout_.owned_folder();
  if (folder.empty()) return;
  for (const std::string& name : answered(client_.children(folder, {})).children) {
    const std::string path = fmt::format("{}/{}", folder, name);
    if (values.contains(path)) continue;
    const ZkReply node = answered(client_.get(path, false, {}));
    if (node.code == ZkCode::ok) versions.emplace(path, node.version);
  }
}

void Reconcile::repair(const std::string& path, std::int32_t version, const Values& values) {
  const auto wanted = values.find(path);
  ZkReply reply;
  std::size_t* count = nullptr;
  const char* done = "changed";
  if (wanted == values.end()) {
    if (version == kMissing || !remove_ || layout_.owned_folder().empty()) return;
    // A bad row's node is left alone, and no table at all is rather a mistake than a wish.
    if (result_.bad_rows > 0) return;
    if (result_.rows == 0) {
      result_.table_is_empty = true;
      return;
    }
    reply = answered(client_.remove(path, version, {}));
    count = &result_.superfluous;
    done = "deleted";
  } else if (version == kMissing) {
    reply = answered(client_.create(path, wanted->second, false, {}));
    count = &result_.missing;
    done = "made";
  } else {
    reply = answered(client_.set(path, wanted->second, version, {}));
    count = &result_.different;
  }
  const bool repaired = reply.code == ZkCode::ok;
  ++(repaired ? *count : result_.left);
  if (repaired) {
    result_.audit.push_back(fmt::format("{} '{}' as it was not what the table says", done, path));
  }
}

ZkReply Reconcile::answered(ZkReply reply) const {
  if (reply.code == ZkCode::lost || reply.code == ZkCode::stopped) {
    throw Transient(
        fmt::format("{} does not answer: {}", client_.options().servers.hosts, reply.error));
  }
  return reply;
}

}  // namespace millrace
