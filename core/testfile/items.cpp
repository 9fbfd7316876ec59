#include "testfile/items.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "millrace/change.h"
#include "millrace/decode.h"
#include "millrace/packet.h"
#include "millrace/session.h"
#include "millrace/ticket.h"
#include "millrace/verdict.h"

#include "testfile/compare.h"
#include "testfile/item_line.h"
#include "testfile/packet_bytes.h"
#include "testfile/packet_lines.h"

namespace millrace::host {

namespace {

struct SessionLine {
  std::string protocol = "tcp";
  std::string src{}, dst{};
  std::uint16_t src_port = 0, dst_port = 0;
  std::optional<Duration> first_seen{}, last_seen{};
  std::optional<std::uint32_t> packets{};
  std::optional<std::uint64_t> bytes{}, payload_bytes{};
  Due reason = Due::full;
  std::uint32_t epoch = 0;
  std::string agent{};
  std::vector<std::string> payloads{};
  std::uint32_t repeat = 1;
  Duration every{};

  /// `due`: the name under which items of this type tell why they are due.
  static std::vector<OptionSpec> specs(const std::string& due, bool with_packets) {
    std::vector<OptionSpec> list = {
        option<&SessionLine::protocol>("protocol", "tcp or udp"),
        option<&SessionLine::src>("src", "address of who began").required(),
        option<&SessionLine::dst>("dst", "the other address").required(),
        option<&SessionLine::src_port>("src_port", "port at src"),
        option<&SessionLine::dst_port>("dst_port", "port at dst"),
        option<&SessionLine::first_seen>("first_seen",
                                         "since the begin; without it that of the "
                                         "item before"),
        option<&SessionLine::reason>(due, "why it is due")
            .choices({{"full", Due::full},
                      {"timeout", Due::timeout},
                      {"end", Due::end},
                      {"evicted", Due::evicted}}),
        option<&SessionLine::epoch>("epoch", "how often the five-tuple was done before"),
        option<&SessionLine::agent>("agent", "who captured it"),
        option<&SessionLine::repeat>("repeat", "how often it comes").between(1, kMostRepeats),
        option<&SessionLine::every>("every", "time from one repetition to the next")};
    if (!with_packets) return list;
    list.push_back(option<&SessionLine::last_seen>("last_seen", "without it first_seen"));
    list.push_back(option<&SessionLine::packets>("packets", "without it the number of payloads"));
    list.push_back(option<&SessionLine::bytes>("bytes", "without it payload_bytes"));
    list.push_back(option<&SessionLine::payload_bytes>("payload_bytes",
                                                       "without it those of the "
                                                       "payloads"));
    list.push_back(option<&SessionLine::payloads>("payloads", "of its packets, as texts"));
    return list;
  }
};

/// What sessions, verdicts and tickets have in common.
class SessionLikeReader {
 public:
  [[nodiscard]] static bool only_time() { return false; }
  [[nodiscard]] std::optional<Duration> time() const { return line_.first_seen; }
  [[nodiscard]] std::uint32_t repeat() const { return line_.repeat; }
  [[nodiscard]] Duration every() const { return line_.every; }

 protected:
  bool read_flow(Line& line, const std::vector<OptionSpec>& specs, std::string_view what,
                 const ConfigValue::Table& entries) {
    line_ = {};
    if (!line.bind(line_, specs, what, entries)) return false;
    const auto src = parse_address(line_.src);
    const auto dst = parse_address(line_.dst);
    for (const char* key : {"src", "dst"}) {
      if (!parse_address(key[0] == 's' ? line_.src : line_.dst)) {
        line.wrong(key, "this is no address", "an IPv4 or IPv6 address");
      }
    }
    if (src && dst && src->family != dst->family) {
      line.wrong("dst", "one address is IPv4, the other IPv6", "two of one family");
    }
    if (line_.protocol != "tcp" && line_.protocol != "udp") {
      line.wrong("protocol", "this is no protocol of a session", "\"tcp\" or \"udp\"");
    }
    if (!line.good()) return false;
    flow_ = {*src, *dst};
    flow_.src.port = line_.src_port;
    flow_.dst.port = line_.dst_port;
    return true;
  }

  SessionInfo info(Timestamp time, Storage& storage) const {
    SessionInfo info;
    const std::uint8_t protocol = line_.protocol == "tcp" ? 6 : 17;
    info.key = five_tuple(flow_, protocol, info.src_is_low);
    info.epoch = line_.epoch;
    if (!line_.agent.empty()) info.agent = storage.keep(line_.agent);
    info.id = session_id(info.key, time, info.epoch, info.agent);
    info.due = line_.reason;
    info.first_seen = time;
    info.last_seen = std::max(time, line_.last_seen ? kTestBegin + *line_.last_seen : time);
    std::uint64_t payload = 0;
    for (const std::string& one : line_.payloads) payload += one.size();
    info.packets = line_.packets.value_or(static_cast<std::uint32_t>(line_.payloads.size()));
    info.payload_bytes = line_.payload_bytes.value_or(payload);
    info.bytes = line_.bytes.value_or(info.payload_bytes);
    return info;
  }

  SessionLine line_;
  Flow flow_;
};

class SessionReader : public SessionLikeReader {
 public:
  using Item = Session;
  bool read(Line& line) {
    static const std::vector<OptionSpec> kSpecs = SessionLine::specs("reason", true);
    return read_flow(line, kSpecs, "a session", line.table());
  }
  Session item(Timestamp time, Storage& storage) const {
    Session session;
    session.info = info(time, storage);
    auto& packets = storage.packets.emplace_back();
    for (const std::string& payload : line_.payloads) {
      const auto bytes = bytes_of(storage.keep(payload));
      SessionPacket& packet = packets.emplace_back();
      packet.time = time;
      packet.data = bytes.data();
      packet.size = static_cast<std::uint32_t>(bytes.size());
    }
    session.packets = packets;
    return session;
  }
  static Timestamp last(const Session& session) { return session.info.last_seen; }
};

class VerdictReader : public SessionLikeReader {
 public:
  using Item = Verdict;
  bool read(Line& line) {
    static const std::vector<OptionSpec> kSpecs = SessionLine::specs("reason", true);
    ConfigValue::Table labels;
    ConfigValue::Table others;
    for (const ConfigEntry& entry : line.table()) {
      const bool label =
          std::ranges::find(label_specs(), entry.key, &OptionSpec::name) != label_specs().end();
      (label ? labels : others).push_back(entry);
    }
    label_ = {};
    const bool labelled = line.bind(label_, label_specs(), "a verdict", labels);
    return read_flow(line, kSpecs, "a verdict", others) && labelled;
  }
  Verdict item(Timestamp time, Storage& storage) const {
    Verdict verdict;
    verdict.session = info(time, storage);
    verdict.label = storage.keep(label_.label);
    verdict.model = storage.keep(label_.model);
    verdict.model_version = storage.keep(label_.model_version);
    verdict.label_index = label_.label_index;
    verdict.confidence = static_cast<float>(label_.confidence);
    return verdict;
  }
  static Timestamp last(const Verdict& verdict) { return verdict.session.last_seen; }

 private:
  Label label_;
};

class TicketReader : public SessionLikeReader {
 public:
  using Item = Ticket;
  bool read(Line& line) {
    static const std::vector<OptionSpec> kSpecs = SessionLine::specs("why", false);
    return read_flow(line, kSpecs, "a ticket", line.table());
  }
  Ticket item(Timestamp time, Storage& storage) const {
    const SessionInfo session = info(time, storage);
    Ticket ticket;
    ticket.id = session.id;
    ticket.key = session.key;
    ticket.epoch = session.epoch;
    ticket.why = session.due;
    ticket.agent = session.agent;
    return ticket;
  }
  static Timestamp last(const Ticket& /*ticket*/) { return kNoTime; }
};

struct ChangeLine {
  Change::Kind kind = Change::Kind::inserted;
  std::string database{}, table{};
  std::map<std::string, std::string> before{}, after{};

  static const std::vector<OptionSpec>& specs() {
    static const std::vector<OptionSpec> kList = {
        option<&ChangeLine::kind>("kind", "what happened to the row")
            .choices({{"insert", Change::Kind::inserted},
                      {"update", Change::Kind::updated},
                      {"delete", Change::Kind::deleted}}),
        option<&ChangeLine::database>("database", "its name"),
        option<&ChangeLine::table>("table", "its name").required(),
        option<&ChangeLine::before>("before", "the row before: column and value as texts"),
        option<&ChangeLine::after>("after", "the row after")};
    return kList;
  }
};

class ChangeReader {
 public:
  using Item = Change;
  bool read(Line& line) {
    line_ = {};
    return line.bind(line_, ChangeLine::specs(), "a change", line.table());
  }
  [[nodiscard]] static bool only_time() { return false; }
  [[nodiscard]] static std::optional<Duration> time() { return std::nullopt; }
  [[nodiscard]] static std::uint32_t repeat() { return 1; }
  [[nodiscard]] static Duration every() { return {}; }
  Change item(Timestamp /*time*/, Storage& /*storage*/) const {
    Change change;
    change.kind = line_.kind;
    change.database = line_.database;
    change.table = line_.table;
    change.before.assign(line_.before.begin(), line_.before.end());
    change.after.assign(line_.after.begin(), line_.after.end());
    return change;
  }
  static Timestamp last(const Change& /*change*/) { return kNoTime; }

 private:
  ChangeLine line_;
};

/// Reads a list with one of the readers above and cuts it into batches.
template <class Reader>
class ListReader {
 public:
  ListReader(std::size_t size, Report& report) : size_(size), report_(report) {
    list_->type = &item_type<typename Reader::Item>();
  }

  std::shared_ptr<const ItemList> read(const ConfigValue::List& values) {
    for (const ConfigValue& value : values) {
      if (value.table() == nullptr) {
        report_.add(value.at, fmt::format("this item is {}", kind_of(value)), "a table { ... }");
        continue;
      }
      Line line(value, report_);
      if (reader_.read(line)) add();
    }
    cut();
    return list_;
  }

 private:
  void add() {
    if (const auto time = reader_.time()) now_ = kTestBegin + *time;
    if (reader_.only_time()) {
      cut();
      move_time(now_);
      list_->batches.push_back(boxed(Batch<typename Reader::Item>()));
      return;
    }
    for (std::uint32_t i = 0; i < reader_.repeat(); ++i) {
      if (i > 0) now_ += reader_.every();
      items_.push_back(reader_.item(now_, *storage_));
      move_time(Reader::last(items_.back()));
      if (items_.size() >= size_) cut();
    }
  }

  void move_time(Timestamp time) { watermark_ = std::max(watermark_, time); }

  void cut() {
    if (items_.empty()) return;
    Batch<typename Reader::Item> batch(std::exchange(items_, {}));
    batch.storage_bytes = storage_->bytes;
    batch.storage = std::exchange(storage_, std::make_shared<Storage>());
    list_->batches.push_back(boxed(std::move(batch)));
  }

  BoxedBatch boxed(Batch<typename Reader::Item> batch) {
    batch.watermark = watermark_;
    return batch.type().box(std::move(batch));
  }

  Reader reader_;
  std::size_t size_;
  Report& report_;
  std::shared_ptr<ItemList> list_ = std::make_shared<ItemList>();
  std::shared_ptr<Storage> storage_ = std::make_shared<Storage>();
  std::vector<typename Reader::Item> items_;
  Timestamp now_ = kTestBegin;
  Timestamp watermark_ = kTestBegin;
};

template <class T>
std::vector<std::string> names_of() {
  const Batch<T> batch(std::vector<T>(1));
  return names_in(described(batch, 0));
}

}  // namespace

const std::vector<std::string>& item_keys() {
  static const std::vector<std::string> kKeys = {"packets", "sessions", "verdicts", "tickets",
                                                 "changes"};
  return kKeys;
}

std::shared_ptr<const ItemList> read_items(const ConfigEntry& entry, std::size_t batch,
                                           Report& report) {
  const auto* list = entry.value.list();
  if (list == nullptr) {
    report.add(entry.value.at, fmt::format("'{}' is {}", entry.key, kind_of(entry.value)),
               "a list [{ ... }, { ... }]");
    return nullptr;
  }
  if (entry.key == "packets") return ListReader<PacketReader>(batch, report).read(*list);
  if (entry.key == "sessions") return ListReader<SessionReader>(batch, report).read(*list);
  if (entry.key == "verdicts") return ListReader<VerdictReader>(batch, report).read(*list);
  if (entry.key == "tickets") return ListReader<TicketReader>(batch, report).read(*list);
  return ListReader<ChangeReader>(batch, report).read(*list);
}

const std::vector<OptionSpec>& label_specs() {
  static const std::vector<OptionSpec> kSpecs = {
      option<&Label::label>("label", "the class"),
      option<&Label::confidence>("confidence", "probability of the class").between(0, 1),
      option<&Label::model>("model", "name of the model"),
      option<&Label::model_version>("model_version", "its version"),
      option<&Label::label_index>("label_index", "number of the class")};
  return kSpecs;
}

std::vector<std::string> field_names(const ItemType& type) {
  if (type == item_type<Packet>()) return names_of<Packet>();
  if (type == item_type<Session>()) return names_of<Session>();
  if (type == item_type<Verdict>()) return names_of<Verdict>();
  if (type == item_type<Ticket>()) return names_of<Ticket>();
  if (type == item_type<Change>()) return names_of<Change>();
  return {};
}

}  // namespace millrace::host
