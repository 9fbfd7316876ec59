#include "source_pcap.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <pcap/pcap.h>

namespace millrace {

void check_pcap_options(const PcapOptions& options, Findings& findings) {
  if (options.file.empty() == options.interface.empty()) {
    findings.add(options.file.empty() ? "" : "interface",
                 options.file.empty()
                     ? "neither 'file' nor 'interface' is set; expected one of them"
                     : "both 'file' and 'interface' are set; expected one of them");
  }
  if (options.agent_from != AgentFrom::option) {
    if (!options.agent.empty()) {
      findings.add("agent", "both 'agent' and 'agent_from' are set; expected one of them");
    }
    if (!options.interface.empty() || std::ranges::count(options.file, "-") != 0) {
      findings.add("agent_from",
                   "an interface and standard input have no folder and no name; "
                   "expected \"option\" and the name in 'agent'");
    }
  }
  if (options.filter.empty()) return;
  // The link type is only known when the file or the interface is open; what fits none is wrong.
  std::string first_problem;
  for (const int link : {DLT_EN10MB, DLT_LINUX_SLL, DLT_RAW}) {
    try {
      const Filter filter(options.filter, link, options.snaplen);
      return;
    } catch (const std::runtime_error& error) {
      if (first_problem.empty()) first_problem = error.what();
    }
  }
  findings.add("filter", fmt::format("'{}' is no BPF filter: {}", options.filter, first_problem));
}

namespace {

LiveOptions live_options(const PcapOptions& options) {
  LiveOptions live;
  live.interface = options.interface;
  live.filter = options.filter;
  live.snaplen = options.snaplen;
  live.promiscuous = options.promiscuous;
  live.immediate = options.immediate;
  live.buffer = options.buffer;
  live.read_timeout = options.read_timeout;
  return live;
}

}  // namespace

namespace {

/// Folders that name the agents are classes to learn from: a file that cannot be read may be what
/// is missing in one of them.
bool others_stop(const PcapOptions& options) {
  if (options.other_files != OtherFiles::automatic) return options.other_files == OtherFiles::stop;
  return options.agent_from == AgentFrom::folder;
}

/// "a, b, c and 5 more"
std::string first_of(const std::vector<std::string>& names, std::string_view separator) {
  constexpr std::size_t kShown = 5;
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kShown); ++i) {
    text += fmt::format("{}{}", i == 0 ? "" : separator, names[i]);
  }
  if (names.size() > kShown) text += fmt::format(" and {} more", names.size() - kShown);
  return text;
}

/// "2 files are no captures: a, b"; empty: none.
std::string say_others(const std::vector<CaptureFile>& others) {
  if (others.empty()) return {};
  std::vector<std::string> names;
  for (const CaptureFile& file : others) names.push_back(file.path.string());
  return fmt::format("{}: {}",
                     others.size() == 1 ? "1 file is no capture"
                                        : fmt::format("{} files are no captures", others.size()),
                     first_of(names, ", "));
}

constexpr std::string_view kHowToSkip = "take them away, or set other_files = \"skip\"";

class Nowhere final : public Downstream {
 public:
  void push(BatchBase& /*batch*/) override {}
};

/// Whether files are captures, and whether their first packets can be decoded and the filter fits
/// them.
void probe_files(std::vector<CaptureFile> files, const PcapOptions& options, Findings& findings) {
  const auto others = take_out_others(files);
  if (options.agent_from == AgentFrom::folder) check_folder_names(files);
  if (!others.empty() && others_stop(options)) {
    findings.add("file", fmt::format("{}; {}", say_others(others), kHowToSkip));
  }
  bool decodable = false;
  std::string undecodable;  // of a folder
  for (const CaptureFile& file : files) {
    std::error_code error;
    if (file.path == "-" || !std::filesystem::is_regular_file(file.path, error)) continue;
    Gate gate(0, {});
    if (!options.filter.empty()) gate.set_filters(Filters(options.filter, options.snaplen));
    try {
      const auto reader = open_capture(file.path, options.snaplen, {});
      if (!reader) continue;
      if (const auto link = reader->link_type()) gate.prepare(*link);
      Nowhere nowhere;
      Output<Packet> out(nowhere);
      PacketBatcher batcher(options.batch, options.batch_bytes.bytes);
      while (gate.taken() + gate.filtered() == 0 &&
             reader->step(out, batcher, gate) == CaptureReader::Step::more) {
      }
    } catch (const ConfigError& problem) {
      findings.add(problem.option(), problem.what());
      continue;
    } catch (const std::runtime_error& problem) {
      findings.add("file", problem.what());
      continue;
    }
    const Census& census = gate.census();
    if (census.packets() == 0) continue;
    if (census.of_unknown_link() != census.packets()) {
      decodable = true;
    } else if (file.folder.empty() || others_stop(options)) {
      findings.add("file", fmt::format("{}: its packets cannot be decoded: {}", file.path.string(),
                                       census.unknown_links()));
    } else {
      undecodable = fmt::format("{}: its packets cannot be decoded: {}", file.path.string(),
                                census.unknown_links());
    }
  }
  if (!decodable && !undecodable.empty()) findings.add("file", undecodable);
}

}  // namespace

void probe_pcap_options(const PcapOptions& options, Findings& findings) {
  try {
    if (options.interface.empty()) {
      std::vector<CaptureFile> files =
          list_captures(options.file, [&](const auto& path) { return findings.find_file(path); });
      probe_files(std::move(files), options, findings);
      return;
    }
    LiveOptions live = live_options(options);
    // A look changes nothing on the interface and takes no memory from the one that captures.
    live.promiscuous = false;
    live.buffer = 1_MiB;
    const LiveCapture capture(live);
  } catch (const ConfigError& error) {
    findings.add(error.option(), error.what());
  }
}

SourcePcap::SourcePcap(const PcapOptions& options)
    : options_(options),
      batcher_(options.batch, options.batch_bytes.bytes, options.agent),
      gate_(options.count, options.interface.empty() ? options.duration : Duration()) {
  if (!options.filter.empty() && options.interface.empty()) {
    gate_.set_filters(Filters(options.filter, options.snaplen));
  }
}

void SourcePcap::open(Context& context) {
  context_ = &context;
  context.counter("kernel-dropped");
  context.counter("truncated-records");
  if (!options_.interface.empty()) {
    live_ = std::make_unique<LiveCapture>(live_options(options_));
    context.info(options_.filter.empty()
                     ? fmt::format("captures on '{}', everything", options_.interface)
                     : fmt::format("captures on '{}' what '{}' lets through", options_.interface,
                                   options_.filter));
    return;
  }
  files_ = list_captures(options_.file, [&](const auto& path) { return context.find_file(path); });
  const std::vector<CaptureFile> others = take_out_others(files_);
  if (options_.agent_from == AgentFrom::folder) check_folder_names(files_);
  context.counter("no-captures").add(others.size());
  if (others_stop(options_)) {
    others_ = say_others(others);
  } else if (!others.empty()) {
    context.warning(fmt::format("passed over: {}", say_others(others)));
  }
  if (options_.order == FileOrder::time && files_.size() > 1) {
    for (CaptureFile& one : files_) one.begins = begin_of(one);
    sort_by_time(files_, [this](const CaptureFile& one) { return agent_of(one); });
  }
  total_ = total_size(files_);
  // Standard input may stay silent for long: it is opened when the pipeline runs.
  if (files_.front().path == "-") return;
  try {
    opened_ = open_file(0);
    if (const auto link = opened_ ? opened_->link_type() : std::nullopt) gate_.prepare(*link);
  } catch (const ConfigError&) {
    throw;
  } catch (const std::exception& error) {
    throw ConfigError("file", error.what());
  }
}

std::unique_ptr<CaptureReader> SourcePcap::open_file(std::size_t index) {
  try {
    return open_capture(files_[index].path, options_.snaplen, stop_.get_token());
  } catch (const std::system_error& error) {
    throw std::runtime_error(
        fmt::format("cannot open '{}': {}", files_[index].path.string(), error.code().message()));
  }
}

std::string SourcePcap::agent_of(const CaptureFile& file) const {
  switch (options_.agent_from) {
    case AgentFrom::folder:
      return folder_name(file);
    case AgentFrom::file:
      return file_name(file);
    case AgentFrom::option:
      break;
  }
  return options_.agent;
}

/// What is wrong with a file is said when it is read.
std::optional<Timestamp> SourcePcap::begin_of(const CaptureFile& file) const {
  struct Nowhere final : Downstream {
    void push(BatchBase& /*batch*/) override {}
  } nowhere;
  std::error_code error;
  // A pipe's packets come once only.
  if (!std::filesystem::is_regular_file(file.path, error)) return std::nullopt;
  PacketBatcher batcher(PacketBatcher::kTimes, 4096);
  try {
    const auto reader = open_capture(file.path, options_.snaplen, stop_.get_token());
    if (!reader) return std::nullopt;
    Output<Packet> out(nowhere);
    Gate gate(PacketBatcher::kTimes, {});
    while (reader->step(out, batcher, gate) == CaptureReader::Step::more) {
    }
  } catch (const std::exception&) {
    // As far as it could be read.
  }
  const auto times = bulk_of(batcher.last_times());
  return times ? std::optional(times->earliest) : std::nullopt;
}

/// Captures that are parts of one follow each other, as tcpdump -C and -G write them; others end
/// what is open of those before.
void SourcePcap::end_what_is_not_continued(CaptureFile& file, Output<Packet>& out) {
  if (const auto times = bulk_of(batcher_.last_times())) ended_ = times;
  const std::string agent = agent_of(file);
  const bool other = std::exchange(agent_, agent) != agent;
  if (!ended_) return;
  if (!file.begins) file.begins = begin_of(file);
  const bool apart = file.begins && (between(*file.begins, ended_->latest) > PacketClock::kLate ||
                                     between(ended_->latest, *file.begins) > PacketClock::kSilence);
  if (!other && !apart) return;
  batcher_.push_end(out);
  ended_.reset();
}

void SourcePcap::judge(const CaptureFile& file, const Census& census) {
  const std::string name = file.path.string();
  found_ = found_ || census.found();
  reasons_ = census.reasons();
  const std::uint64_t unknown = census.of_unknown_link();
  decodable_ = decodable_ || unknown != census.packets();
  if (unknown == 0) return;
  if (unknown == census.packets()) {
    named_undecodable_ = named_undecodable_ || file.folder.empty();
    undecodable_.push_back(fmt::format("{}: none of its {} packets can be decoded: {}", name,
                                       unknown, census.unknown_links()));
  } else {
    context_->warning(fmt::format("{}: {} of its {} packets cannot be decoded: {}", name, unknown,
                                  census.packets(), census.unknown_links()));
  }
}

/// What a run with nothing to show for it owes to its user.
void SourcePcap::sum_up() {
  if (!without_packets_.empty()) {
    context_->warning(fmt::format("no packets are in {}", first_of(without_packets_, ", ")));
  }
  if (gate_.taken() == 0 && gate_.filtered() != 0) {
    context_->warning(fmt::format("none of the {} packets matches the filter '{}'",
                                  gate_.filtered(), options_.filter));
  }
  if (!undecodable_.empty()) {
    const std::string problem = first_of(undecodable_, "; ");
    // Of a folder that holds other captures too, the others are what was asked for, unless every
    // file of it counts.
    if (named_undecodable_ || !decodable_ || others_stop(options_)) {
      throw std::runtime_error(problem);
    }
    context_->warning(problem);
  }
  if (gate_.taken() != 0 && !found_) {
    context_->warning(
        fmt::format("none of the {} packets is TCP or UDP over IP ({}{}), so no session "
                    "comes of them",
                    gate_.taken(), files_.size() > 1 ? "in the last file: " : "", reasons_));
  }
}

void SourcePcap::run(Output<Packet>& out, std::stop_token stop) {
  const std::stop_callback pass_on(stop, [this] { stop_.request_stop(); });
  if (live_) return live_->run(out, batcher_, gate_, options_.duration, *context_, stop);
  // Here and not in open: what is after this stage learns that the input is not whole.
  if (!others_.empty()) throw std::runtime_error(fmt::format("{}; {}", others_, kHowToSkip));
  context_->progress(0, total_);
  for (std::size_t i = 0; i < files_.size() && !satisfied_ && !stop.stop_requested(); ++i) {
    read_file(i, out, stop);
  }
  context_->counter("filtered").add(gate_.filtered());
  if (!stop.stop_requested()) sum_up();
}

void SourcePcap::read_file(std::size_t index, Output<Packet>& out, const std::stop_token& stop) {
  const std::string name = files_[index].path.string();
  std::unique_ptr<CaptureReader> reader =
      index == 0 && opened_ ? std::move(opened_) : open_file(index);
  if (!reader) {
    if (!stop.stop_requested()) context_->warning(fmt::format("{} is empty", name));
    return;
  }
  if (const auto link = reader->link_type()) gate_.prepare(*link);
  gate_.begin_census();
  const std::uint64_t seen_before = gate_.taken() + gate_.filtered();
  end_what_is_not_continued(files_[index], out);
  batcher_.set_agent(agent_of(files_[index]));
  auto step = CaptureReader::Step::more;
  std::uint64_t shown = 0;
  constexpr std::uint64_t kShowEvery = 1U << 20U;
  while (step == CaptureReader::Step::more && !stop.stop_requested()) {
    step = reader->step(out, batcher_, gate_);
    if (const std::uint64_t position = reader->raw_position(); position - shown >= kShowEvery) {
      context_->progress(read_before_ + position, total_);
      shown = position;
    }
  }
  satisfied_ = step == CaptureReader::Step::satisfied;
  read_before_ += reader->raw_position();
  context_->progress(read_before_, total_);
  if (const auto offset = reader->cut_off_at(); offset && !stop.stop_requested()) {
    context_->warning(fmt::format(
        "{} is cut off in the middle of the record at byte {}; the packets before it are whole",
        name, *offset));
    context_->counter("truncated-records").add();
  }
  if (const auto offset = reader->zeros_from(); offset && !stop.stop_requested()) {
    context_->warning(fmt::format("{} holds nothing but zeros from byte {} on", name, *offset));
  }
  judge(files_[index], gate_.census());
  if (gate_.taken() + gate_.filtered() == seen_before && !satisfied_ && !stop.stop_requested()) {
    without_packets_.push_back(name);
  }
}

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "source-pcap", MILLRACE_VERSION,
    source<SourcePcap, PcapOptions>(
        "source-pcap", "Packets from capture files or from a network interface, through libpcap",
        option<&PcapOptions::file>(
            "file",
            "capture files (pcap or pcapng, plain or compressed with gzip or zstd), "
            "folders of them with all folders below, or \"-\" for standard input; a relative name "
            "is looked for in the working folder, then in the "
            "installation's data folder"),
        option<&PcapOptions::interface>(
            "interface",
            "network interface to capture on, instead of 'file'; \"any\" is all "
            "of them"),
        option<&PcapOptions::filter>(
            "filter", "BPF filter (pcap-filter(7)): only packets that match are given on"),
        option<&PcapOptions::snaplen>("snaplen", "bytes kept of a packet at most")
            .between(1, 262144),
        option<&PcapOptions::promiscuous>(
            "promiscuous", "on an interface: also packets that are for other machines"),
        option<&PcapOptions::immediate>(
            "immediate",
            "on an interface: deliver every packet at once, at more cost, "
            "instead of collecting them for 'read_timeout'"),
        option<&PcapOptions::buffer>(
            "buffer",
            "on an interface: the kernel's buffer; what does not fit is dropped by the "
            "kernel and counted")
            .between(64_KiB, 1_GiB),
        option<&PcapOptions::read_timeout>(
            "read_timeout", "on an interface: how long the kernel may collect packets")
            .between(std::chrono::milliseconds(1), std::chrono::seconds(10)),
        option<&PcapOptions::count>("count", "end after so many packets; 0: no limit"),
        option<&PcapOptions::duration>(
            "duration",
            "end after this time: of the clock on an interface, of the packets' "
            "times with files; \"0ns\": no limit")
            .at_least(Duration(0)),
        option<&PcapOptions::batch>("batch", "packets given on together at most").between(1, 65536),
        option<&PcapOptions::batch_bytes>(
            "batch_bytes",
            "size of the buffers that packets are read into; batches in "
            "queues keep theirs until they are done")
            .between(4_KiB, 64_MiB),
        option<&PcapOptions::agent>(
            "agent",
            "name of the agent that captured the packets; sessions of different agents are kept "
            "apart and have other ids"),
        option<&PcapOptions::agent_from>(
            "agent_from",
            "what the agent of a packet is called: \"option\" as 'agent' says, \"folder\" like the "
            "folder that its file is in (of a folder of folders: the one below that in 'file'), "
            "\"file\" like its file without .pcap, .pcapng or .cap, .gz or .zst")
            .choices({{"option", AgentFrom::option},
                      {"folder", AgentFrom::folder},
                      {"file", AgentFrom::file}}),
        option<&PcapOptions::other_files>(
            "other_files",
            "what files of a folder do that are no captures, or of which no packet can be decoded: "
            "\"skip\" they are passed over with a warning, \"stop\" the run ends with an error "
            "(before anything is read, if one is no capture), \"auto\" is \"stop\" with "
            "agent_from = \"folder\", else \"skip\"")
            .choices({{"auto", OtherFiles::automatic},
                      {"skip", OtherFiles::skip},
                      {"stop", OtherFiles::stop}}),
        option<&PcapOptions::order>(
            "order",
            "in which order files are read, those of one agent together: \"time\" by the times of "
            "their first packets, \"name\" as 'file' gives them, and those of a folder by name, "
            "numbers in it as numbers")
            .choices({{"time", FileOrder::time}, {"name", FileOrder::name}}))
        .checked(&check_pcap_options)
        .probed(&probe_pcap_options))
