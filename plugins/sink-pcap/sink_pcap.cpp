#include "sink_pcap.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <iterator>
#include <system_error>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "output_folder.h"

namespace millrace {

namespace {

/// Descriptors that the host and other stages need.
constexpr std::uint32_t kReserve = 64;

std::string_view agent_of(const Packet& packet) {
  return packet.origin == nullptr ? std::string_view() : packet.origin->agent;
}

/// A text as part of a file name: what a name cannot hold is written as %XX.
std::string encoded(std::string_view text) {
  std::string name;
  for (const char c : text) {
    const bool hidden = name.empty() && c == '.';
    if (static_cast<unsigned char>(c) < 0x20 || c == '/' || c == '%' || hidden) {
      fmt::format_to(std::back_inserter(name), "%{:02X}", static_cast<unsigned char>(c));
    } else {
      name += c;
    }
  }
  return name;
}

/// tcp_10.0.0.1_4000_10.0.0.2_80: as the first packet went; colons of IPv6 as hyphens.
std::string session_name(const Decoded& decoded) {
  SessionInfo info;
  info.key = decoded.key;
  info.src_is_low = decoded.src_is_low;
  const Endpoints ends = endpoints(info);
  std::string name = fmt::format("{}_{}_{}_{}_{}", protocol_name(info.key.protocol),
                                 to_string(ends.src, info.key.family), ends.src_port,
                                 to_string(ends.dst, info.key.family), ends.dst_port);
  std::ranges::replace(name, ':', '-');
  return name;
}

}  // namespace

SinkPcap::SinkPcap(const PcapFileOptions& options)
    : options_(options), fragments_(options.max_fragments), writer_(options.max_open) {}

void SinkPcap::check(const PcapFileOptions& options, Findings& findings) {
  if (options.path.empty()) findings.add("path", "expected the name of a file");
  if (options.file_per != FilePer::run && options.path == "-") {
    findings.add("path", "standard output is one file; expected a folder for several");
  }
  const bool by_table =
      options.file_per == FilePer::label && options.label_from == PacketLabel::table;
  if (options.labels.empty() == by_table) {
    findings.add("labels", by_table ? "label_from = \"table\" needs the name of a CSV file here"
                                    : "has no effect unless file_per = \"label\" and label_from = "
                                      "\"table\"");
  }
}

void SinkPcap::open(Context& context) {
  context_ = &context;
  if (options_.file_per == FilePer::run) {
    constexpr mode_t kMode = 0644;
    const int fd = options_.path == "-"
                       ? ::dup(STDOUT_FILENO)
                       : ::open(options_.path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, kMode);
    if (fd < 0) {
      throw ConfigError("path", fmt::format("cannot write '{}': {}", options_.path,
                                            std::system_category().message(errno)));
    }
    writer_.adopt(files_.try_emplace("", options_.path).first->second, fd);
    struct stat status {};
    if (options_.path != "-" && ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) replace_ = fd;
    return;
  }
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < options_.max_open + kReserve) {
    throw ConfigError(
        "max_open", fmt::format("this process may have {} files open, {} of them for other things; "
                                "expected fewer than {} here, or a higher limit (ulimit -n)",
                                limit.rlim_cur, kReserve, options_.max_open));
  }
  open_output_folder(options_.path);
  if (!options_.labels.empty()) {
    table_ = LabelTable(context.find_file(options_.labels), {options_.label_column, false},
                        options_.max_sessions);
  }
}

bool SinkPcap::find_key(const Packet& packet, std::uint32_t agent, Decoded& decoded,
                        std::string_view& reason) {
  const Decode kind = decode(packet, decoded);
  if (kind != Decode::transport && kind != Decode::later_fragment) {
    reason = to_string(kind);
    return false;
  }
  if (!decoded.fragment) return true;
  FragmentKey key = fragment_key(packet, decoded);
  key.agent = static_cast<std::uint16_t>(agent);
  if (kind == Decode::transport) {
    fragments_.remember(key, decoded, packet.time);
    return true;
  }
  FirstFragment* first = fragments_.find(key, packet.time);
  if (first == nullptr) {
    reason = "lost-fragment";
    return false;
  }
  join_fragment(packet, *first, decoded);
  return true;
}

SinkPcap::Place SinkPcap::file_named(const std::string& name) {
  const auto found = files_.find(name);
  if (found != files_.end()) return {&found->second};
  if (files_.size() >= options_.max_sessions) return {nullptr, "beyond-max-sessions"};
  const std::filesystem::path path = std::filesystem::path(options_.path) / (name + ".pcap");
  return {&files_.try_emplace(name, path).first->second};
}

SinkPcap::Place SinkPcap::place_of(const Packet& packet) {
  if (options_.file_per == FilePer::run) return {&files_.begin()->second};
  const std::string_view agent = agent_of(packet);
  if (options_.file_per == FilePer::label && options_.label_from == PacketLabel::agent) {
    return agent.empty() ? Place{nullptr, "no-label"} : file_named(encoded(agent));
  }
  auto number = agents_.find(agent);
  if (number == agents_.end()) {
    if (agents_.size() >= options_.max_sessions) return {nullptr, "beyond-max-sessions"};
    number = agents_.emplace(agent, static_cast<std::uint32_t>(agents_.size())).first;
  }
  Decoded decoded;
  Place nowhere;
  if (!find_key(packet, number->second, decoded, nowhere.reason)) return nowhere;
  if (options_.file_per == FilePer::label) {
    const std::string* label = table_.find(decoded.key, packet.time);
    return label == nullptr ? Place{nullptr, "no-label"} : file_named(encoded(*label));
  }
  const auto known = sessions_.find({decoded.key, number->second});
  if (known != sessions_.end()) return {known->second};
  const std::string folder = agent.empty() ? "" : encoded(agent) + "/";
  const Place place = file_named(folder + session_name(decoded));
  if (place.file != nullptr) sessions_.emplace(std::pair(decoded.key, number->second), place.file);
  return place;
}

/// Not when it is opened: a pipeline that fails to start must destroy nothing.
void SinkPcap::empty_earlier_file() {
  if (replace_ < 0) return;
  while (::ftruncate(replace_, 0) != 0) {
    if (errno == EINTR) continue;
    throw std::system_error(errno, std::system_category(), fmt::format("'{}'", options_.path));
  }
  replace_ = -1;
}

void SinkPcap::write(Batch<Packet>& in) {
  write_out();  // what an attempt before left
  if (!in.items.empty()) empty_earlier_file();
  std::vector<Place> places;
  std::vector<std::size_t> foreign;
  places.reserve(in.items.size());
  for (std::size_t i = 0; i < in.items.size(); ++i) {
    const Packet& packet = in.items[i];
    const Place& place = places.emplace_back(place_of(packet));
    if (place.file == nullptr) continue;
    if (!place.file->link) place.file->link = packet.link;
    if (*place.file->link != packet.link) foreign.push_back(i);
  }
  if (!foreign.empty()) {
    const auto link = static_cast<unsigned>(in.items[foreign.front()].link);
    throw Rejected(
        fmt::format("a capture file has one link type, and these packets have another ({})", link),
        std::move(foreign));
  }
  for (std::size_t i = 0; i < in.items.size(); ++i) {
    if (places[i].file != nullptr) {
      writer_.add(*places[i].file, in.items[i]);
    } else {
      context_->dropped(places[i].reason, 1);
    }
  }
  receipts_.push_back(std::move(in.receipt));
  // The batch is taken over: a disk that is full now is told of at the next call.
  try {
    write_out();
  } catch (const Transient&) {
    return;
  }
}

void SinkPcap::flush() {
  if (options_.file_per == FilePer::run && !files_.begin()->second.link) {
    // A capture without packets is a capture too, unless packets are missing.
    if (replace_ >= 0 && !context_->incomplete().empty()) return;
    empty_earlier_file();
    writer_.add_header(files_.begin()->second, LinkType::ethernet);
  }
  write_out();
}

void SinkPcap::write_out() {
  writer_.write_out();
  for (Receipt& receipt : receipts_) receipt.done();
  receipts_.clear();
}

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "sink-pcap", MILLRACE_VERSION,
    sink<SinkPcap, PcapFileOptions>(
        "sink-pcap", "Writes packets to a capture file, or to one for each session or label",
        option<&PcapFileOptions::path>(
            "path",
            "the file, pcap with nanoseconds; replaced if it is there; \"-\" is standard output. "
            "With 'file_per' the folder for the files, made if it is not there")
            .required(),
        option<&PcapFileOptions::file_per>(
            "file_per",
            "what gets a file of its own: \"run\" all packets go to one, \"session\" every "
            "five-tuple of every agent, both directions together, \"label\" every label")
            .choices(
                {{"run", FilePer::run}, {"session", FilePer::session}, {"label", FilePer::label}}),
        option<&PcapFileOptions::label_from>(
            "label_from",
            "where the label of a packet comes from: \"agent\" the name of its agent (source-pcap: "
            "agent_from = \"folder\"), \"table\" the file in 'labels'")
            .choices({{"agent", PacketLabel::agent}, {"table", PacketLabel::table}}),
        option<&PcapFileOptions::labels>(
            "labels",
            "CSV file with a header, columns protocol, src, src_port, dst, dst_port (and "
            "first_seen), and one with the label; as sink-dataset reads it, without session ids"),
        option<&PcapFileOptions::label_column>("label_column",
                                               "name of the column with the label in 'labels'"),
        option<&PcapFileOptions::max_open>(
            "max_open",
            "files open at once; beyond it the one that was not written to for longest is closed, "
            "and opened again when it gets more")
            .between(1, 1U << 20U),
        option<&PcapFileOptions::max_sessions>(
            "max_sessions",
            "files of a run, about 500 bytes of memory each; packets for further ones are dropped "
            "under beyond-max-sessions. Also the most rows of 'labels', about 150 bytes each")
            .between(1, 1U << 30U),
        option<&PcapFileOptions::max_fragments>(
            "max_fragments",
            "fragmented IP packets remembered, so that later fragments find their session; about "
            "100 bytes each")
            .between(0, 1U << 24U))
        .checked(&SinkPcap::check)
        .single("writes the packets of a file in order"))
