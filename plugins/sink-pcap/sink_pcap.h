#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "millrace/fragment_cache.h"
#include "millrace/packet.h"
#include "millrace/plugin.h"
#include "millrace/stage.h"

#include "capture_writer.h"
#include "label_table.h"

namespace millrace {

/// What gets a file of its own.
enum class FilePer : std::uint8_t { run, session, label };

/// Where the label of a packet comes from.
enum class PacketLabel : std::uint8_t {
  agent,  ///< the name of the agent that captured it
  table   ///< the CSV file in `labels`, by five-tuple and time
};

struct PcapFileOptions {
  std::string path{};
  FilePer file_per = FilePer::run;
  PacketLabel label_from = PacketLabel::agent;
  std::string labels{};
  std::string label_column = "label";
  std::uint32_t max_open = 256;
  std::uint32_t max_sessions = 1U << 20U;
  std::uint32_t max_fragments = 4096;
};

/// Writes packets to one capture file, or to one for each session or label.
///
/// A session here is a five-tuple of one agent, both directions, from the first packet of the run
/// to the last, as SplitCap has it.
class SinkPcap final : public Sink<Packet> {
 public:
  explicit SinkPcap(const PcapFileOptions& options);

  static void check(const PcapFileOptions& options, Findings& findings);
  void open(Context& context) override;
  void write(Batch<Packet>& in) override;
  void flush() override;

 private:
  using File = CaptureWriter::File;
  /// Where a packet goes, or why nowhere.
  struct Place {
    File* file = nullptr;
    std::string_view reason{};
  };

  Place place_of(const Packet& packet);
  /// The five-tuple of a packet, later fragments included; `reason` if it has none.
  bool find_key(const Packet& packet, std::uint32_t agent, Decoded& decoded,
                std::string_view& reason);
  Place file_named(const std::string& name);
  void write_out();
  void empty_earlier_file();

  PcapFileOptions options_;
  Context* context_ = nullptr;
  LabelTable table_;
  FragmentCache fragments_;
  std::map<std::string, std::uint32_t, std::less<>> agents_;  ///< numbered as they came
  std::unordered_map<std::string, File> files_;               ///< by name, in the folder `path`
  std::map<std::pair<FiveTuple, std::uint32_t>, File*> sessions_;
  CaptureWriter writer_;
  std::vector<Receipt> receipts_;  ///< of the batches that wait in writer_
  int replace_ = -1;               ///< the writer's file that still holds what an earlier run wrote
};

}  // namespace millrace
