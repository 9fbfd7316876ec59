#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "millrace/plugin.h"

#include "capture_files.h"
#include "capture_reader.h"
#include "live_capture.h"

namespace millrace {

/// What the agent of a packet is called.
enum class AgentFrom : std::uint8_t {
  option,  ///< as the option `agent` says
  folder,  ///< like the folder its file is in, see folder_name
  file     ///< like its file
};

/// What files of a folder that are no captures do to a run.
enum class OtherFiles : std::uint8_t {
  automatic,  ///< `stop` if the folders name the agents, else `skip`
  skip,
  stop
};

/// In which order files are read.
enum class FileOrder : std::uint8_t { time, name };

struct PcapOptions {
  std::vector<std::string> file;
  std::string interface;
  std::string filter;
  std::uint32_t snaplen = 262144;
  bool promiscuous = true;
  bool immediate = false;
  ByteSize buffer = 16_MiB;
  Duration read_timeout = std::chrono::milliseconds(100);
  std::uint64_t count = 0;
  Duration duration{};
  std::uint32_t batch = 512;
  ByteSize batch_bytes = 256_KiB;
  std::string agent{};
  AgentFrom agent_from = AgentFrom::option;
  OtherFiles other_files = OtherFiles::automatic;
  FileOrder order = FileOrder::time;
};

/// Packets from capture files or from a network interface.
class SourcePcap final : public Source<Packet> {
 public:
  explicit SourcePcap(const PcapOptions& options);

  void open(Context& context) override;
  void run(Output<Packet>& out, std::stop_token stop) override;

 private:
  std::unique_ptr<CaptureReader> open_file(std::size_t index);
  void read_file(std::size_t index, Output<Packet>& out, const std::stop_token& stop);
  void judge(const CaptureFile& file, const Census& census);
  void sum_up();
  [[nodiscard]] std::string agent_of(const CaptureFile& file) const;
  [[nodiscard]] std::optional<Timestamp> begin_of(const CaptureFile& file) const;
  void end_what_is_not_continued(CaptureFile& file, Output<Packet>& out);

  PcapOptions options_;
  PacketBatcher batcher_;
  Gate gate_;
  Context* context_ = nullptr;
  std::vector<CaptureFile> files_;
  std::string others_;  ///< files that are no captures, where these end the run
  std::uint64_t total_ = 0;
  std::optional<Times> ended_;            ///< times of the last packets of the files so far
  std::string agent_;                     ///< of the file before
  std::uint64_t read_before_ = 0;         ///< bytes of the files that are done
  std::vector<std::string> undecodable_;  ///< files of which no packet can be decoded, and why
  bool decodable_ = false;                ///< a packet with a link type that is decoded
  bool named_undecodable_ = false;        ///< one of these files was named itself
  std::vector<std::string> without_packets_;
  bool found_ = false;   ///< a packet of TCP or UDP
  std::string reasons_;  ///< why there was none in the last file
  bool satisfied_ = false;
  std::stop_source stop_;                  ///< ends reads that wait for a silent pipe
  std::unique_ptr<CaptureReader> opened_;  ///< the first file
  std::unique_ptr<LiveCapture> live_;
};

void check_pcap_options(const PcapOptions& options, Findings& findings);
/// Whether files and interface are there, and the filter fits the interface.
void probe_pcap_options(const PcapOptions& options, Findings& findings);

}  // namespace millrace
