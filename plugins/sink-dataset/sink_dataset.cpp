#include "sink_dataset.h"

#include <array>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <stdexcept>
#include <system_error>

#include <fmt/format.h>

namespace millrace {

namespace {

constexpr std::string_view kIndexHeader = "image,session,protocol,src,src_port,dst,dst_port\r\n";

std::string_view name_of(Layer layer) {
  static constexpr std::array<std::string_view, 3> kNames = {"l2", "l4", "l7"};
  return kNames[static_cast<std::size_t>(layer)];
}

/// Square where that is possible, as image models like it; else one row.
std::vector<std::uint32_t> shape_of(std::uint32_t bytes) {
  const auto side = static_cast<std::uint32_t>(std::lround(std::sqrt(bytes)));
  if (side * side == bytes) return {side, side};
  return {1, bytes};
}

void append_index(const SessionInfo& info, std::uint32_t image, std::string& text) {
  const Endpoints ends = endpoints(info);
  fmt::format_to(std::back_inserter(text), "{},{},{},{},{},{},{}\r\n", image, to_hex(info.id),
                 protocol_name(info.key.protocol), to_string(ends.src, info.key.family),
                 ends.src_port, to_string(ends.dst, info.key.family), ends.dst_port);
}

}  // namespace

SinkDataset::SinkDataset(const DatasetOptions& options)
    : options_(options),
      spec_{options.bytes, options.layer, static_cast<std::uint8_t>(options.padding),
            options.min_payload, options.fragments},
      image_(options.bytes) {}

void SinkDataset::check(const DatasetOptions& options, Findings& findings) {
  if (options.path.empty()) findings.add("path", "expected the name of a folder");
  if (options.label.empty() || options.label.find_first_of("\r\n") != std::string::npos) {
    findings.add("label", "expected the name of a class: one line, not empty");
  }
}

void SinkDataset::open(Context& context) {
  context_ = &context;
  const std::filesystem::path folder = options_.path;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    throw ConfigError(
        "path", fmt::format("cannot make the folder '{}': {}", options_.path, error.message()));
  }
  images_.open(folder / "images-idx3-ubyte", shape_of(options_.bytes));
  labels_.open(folder / "labels-idx1-ubyte", {});
  names_.open(folder / "labels.txt");
  if (options_.index) index_.open(folder / "sessions.csv");
}

/// Replaces what an earlier run left. Done as late as this so that a pipeline that fails to start
/// destroys nothing.
void SinkDataset::begin() {
  if (begun_) return;
  images_.clear();
  labels_.clear();
  names_.clear();
  names_.write(0, options_.label + '\n');
  if (options_.index) {
    index_.clear();
    index_.write(0, kIndexHeader);
    index_size_ = kIndexHeader.size();
  } else {
    // One from an earlier run would speak of other images.
    std::error_code not_there;
    std::filesystem::remove(std::filesystem::path(options_.path) / "sessions.csv", not_there);
  }
  begun_ = true;
}

void SinkDataset::write(Batch<Session>& in) {
  if (in.items.empty()) return;
  begin();
  std::string images;
  std::string index;
  std::uint32_t count = 0;
  for (const Session& session : in.items) {
    check_layer(session);
    if (extract_features(session, spec_, image_) == 0) continue;
    images.append(reinterpret_cast<const char*>(image_.data()), image_.size());
    if (options_.index) append_index(session.info, count_ + count, index);
    ++count;
  }
  if (count != 0) {
    // Everything goes to its place, and is counted when all of it is there: after a full disk the
    // same batch is written to the same place.
    images_.put(count_, images);
    labels_.put(count_, std::string(count, '\0'));
    if (options_.index) index_.write(index_size_, index);
    images_.commit(count_ + count);
    labels_.commit(count_ + count);
    count_ += count;
    index_size_ += index.size();
  }
  if (const std::size_t empty = in.items.size() - count; empty != 0) {
    context_->dropped("no-payload", empty);
  }
}

void SinkDataset::flush() { begin(); }

void SinkDataset::check_layer(const Session& session) const {
  if (session.layer <= spec_.layer) return;
  throw std::runtime_error(
      fmt::format("the sessions hold their packets from {0} on, and option 'layer' asks for {1}: "
                  "give the splitter keep = \"{1}\"",
                  name_of(session.layer), name_of(spec_.layer)));
}

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "sink-dataset", MILLRACE_VERSION,
    sink<SinkDataset, DatasetOptions>(
        "sink-dataset", "Writes sessions as training data (IDX files) of one class",
        option<&DatasetOptions::path>(
            "path",
            "folder for images-idx3-ubyte, labels-idx1-ubyte and labels.txt; made "
            "if it is not there, its files are replaced when the first sessions come")
            .required(),
        option<&DatasetOptions::label>(
            "label", "name of the class that all sessions belong to; written to labels.txt")
            .required(),
        option<&DatasetOptions::bytes>(
            "bytes",
            "bytes of a session, as in the model's card; a square number gives square images "
            "(784: 28 x 28), another one images of a single row")
            .between(1, 1U << 20U),
        option<&DatasetOptions::layer>(
            "layer",
            "where a packet's bytes begin: l7 transport payload, l4 transport header, l2 whole "
            "packet; the splitter's 'keep' must be this layer or a lower one")
            .choices({{"l7", Layer::l7}, {"l4", Layer::l4}, {"l2", Layer::l2}}),
        option<&DatasetOptions::min_payload>(
            "min_payload",
            "packets with fewer bytes of transport payload are left out; 2 leaves out TCP "
            "keep-alives with their one stray byte"),
        option<&DatasetOptions::fragments>("fragments",
                                           "whether parts of fragmented IP packets are used"),
        option<&DatasetOptions::padding>(
            "padding", "value of the bytes that fill up an image which the session does not fill")
            .between(0, 255),
        option<&DatasetOptions::index>(
            "index",
            "also write sessions.csv: for every image its number (from 0), session id, protocol "
            "and endpoints"))
        .checked(&SinkDataset::check)
        .single("writes the images in one order"))
