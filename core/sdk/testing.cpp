#include <algorithm>
#include <stdexcept>
#include <string>

#include <arpa/inet.h>
#include <fmt/format.h>

#include "millrace/testing/configured.h"
#include "millrace/testing/items.h"

#include "config/pipeline_file.h"
#include "config/toml.h"

namespace millrace::testing {

namespace {

Address address(const std::string& text, std::uint8_t& family) {
  Address bytes{};
  family = text.find(':') == std::string::npos ? 4 : 6;
  if (::inet_pton(family == 6 ? AF_INET6 : AF_INET, text.c_str(), bytes.data()) != 1) {
    throw std::invalid_argument("no address: " + text);
  }
  return bytes;
}

}  // namespace

const StageDescriptor& find_stage(const PluginBody& body, std::string_view name) {
  const auto found = std::ranges::find(body.stages, name, &StageDescriptor::name);
  if (found != body.stages.end()) return *found;
  std::string names;
  for (const StageDescriptor& stage : body.stages) {
    names += (names.empty() ? "" : ", ") + stage.name;
  }
  throw std::invalid_argument(fmt::format("no stage '{}'; there are: {}", name, names));
}

Configured configure(const StageDescriptor& stage, std::string_view toml) {
  host::Report report;
  const host::TomlDocument document =
      host::read_toml("options", std::string(toml), host::Variables(), report);
  Configured made{&stage, stage.new_options()};
  const bool good = host::bind_options(document.root, stage.options, made.options.get(),
                                       fmt::format("stage '{}'", stage.name), {}, {},
                                       !document.syntax_errors, report);
  if (good && report.empty() && stage.check) {
    Findings findings;
    stage.check(made.options.get(), findings);
    for (const auto& finding : findings.list()) {
      const host::ConfigEntry* entry = host::find(document.root, finding.option);
      report.add(entry != nullptr ? entry->value.at : host::Position{}, finding.message);
    }
  }
  if (!report.empty()) throw BadOptions(report.text());
  return made;
}

SessionInfo session_info(const SessionSpec& spec) {
  SessionInfo info;
  std::uint8_t family = 4;
  const Address src = address(spec.src, family);
  const Address dst = address(spec.dst, info.key.family);
  if (family != info.key.family) {
    throw std::invalid_argument("one family: " + spec.src + ", " + spec.dst);
  }
  info.src_is_low = std::pair(src, spec.src_port) <= std::pair(dst, spec.dst_port);
  info.key.low = info.src_is_low ? src : dst;
  info.key.high = info.src_is_low ? dst : src;
  info.key.low_port = info.src_is_low ? spec.src_port : spec.dst_port;
  info.key.high_port = info.src_is_low ? spec.dst_port : spec.src_port;
  info.key.protocol = spec.protocol;
  info.due = spec.due;
  info.epoch = spec.epoch;
  info.packets = spec.packets;
  info.bytes = spec.bytes;
  info.first_seen = spec.first_seen;
  info.last_seen = std::max(spec.first_seen, spec.last_seen);
  info.id = session_id(info.key, info.first_seen, info.epoch);
  return info;
}

Session session(const SessionSpec& spec) { return {session_info(spec), {}, Layer::l7}; }

Verdict verdict(std::string_view label, const SessionSpec& spec) {
  Verdict made;
  made.session = session_info(spec);
  made.label = label;
  made.model = label.empty() ? "" : "test";
  made.confidence = label.empty() ? 0 : 1;
  return made;
}

Ticket ticket(const SessionSpec& spec) {
  const SessionInfo info = session_info(spec);
  Ticket made;
  made.id = info.id;
  made.key = info.key;
  made.epoch = info.epoch;
  made.why = info.due;
  return made;
}

Batch<Session> sessions_of(std::span<const Packet> packets, const SessionLimits& limits) {
  SessionBatch collected;
  SessionTable table(limits);
  const SessionTable::Emit emit = [&](const Session& due, std::uint64_t /*born*/) {
    collected.add(due);
  };
  table.add(packets, 0, emit);
  table.flush(emit);
  return collected.take();
}

}  // namespace millrace::testing
