#include "sink_dataset.h"

#include <cmath>
#include <system_error>

#include <fmt/format.h>

#include "millrace/plugin.h"

namespace millrace {

namespace {

void put_big_endian(std::ofstream& file, std::uint32_t value) {
  for (const unsigned shift : {24U, 16U, 8U, 0U}) file.put(static_cast<char>(value >> shift));
}

}  // namespace

SinkDataset::SinkDataset(const DatasetOptions& options)
    : options_(options),
      spec_{options.bytes, options.layer, static_cast<std::uint8_t>(options.padding),
            options.min_payload, options.fragments},
      row_(options.bytes) {}

void SinkDataset::open(Context& context) {
  context_ = &context;
  std::error_code error;
  std::filesystem::create_directories(options_.path, error);
  if (error)
    throw ConfigError(
        "path", fmt::format("cannot make the folder '{}': {}", options_.path, error.message()));
  const auto side = static_cast<std::uint32_t>(std::lround(std::sqrt(options_.bytes)));
  const bool square = side * side == options_.bytes;
  const std::uint32_t shape[] = {square ? side : 1, square ? side : options_.bytes};
  images_ = create("images-idx3-ubyte", shape);
  labels_ = create("labels-idx1-ubyte", {});
  std::ofstream names(std::filesystem::path(options_.path) / "labels.txt");
  names << options_.label << '\n';
  if (!names.flush())
    throw ConfigError("path", fmt::format("cannot write into '{}'", options_.path));
}

std::ofstream SinkDataset::create(const std::string& name, std::span<const std::uint32_t> sizes) {
  const std::filesystem::path path = std::filesystem::path(options_.path) / name;
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  if (!file) throw ConfigError("path", fmt::format("cannot write '{}'", path.string()));
  constexpr std::uint32_t kUnsignedBytes = 0x0800;
  put_big_endian(file, kUnsignedBytes | static_cast<std::uint32_t>(1 + sizes.size()));
  put_big_endian(file, 0);
  for (const std::uint32_t size : sizes) put_big_endian(file, size);
  return file;
}

void SinkDataset::write(Batch<Session>& in) {
  std::uint64_t empty = 0;
  for (const Session& session : in.items) {
    if (session.layer > spec_.layer) {
      throw std::runtime_error(
          "the sessions hold too little of their packets: set the splitter's option 'keep' to "
          "this stage's 'layer'");
    }
    if (extract_features(session, spec_, row_) == 0) {
      ++empty;
      continue;
    }
    images_.write(reinterpret_cast<const char*>(row_.data()),
                  static_cast<std::streamsize>(row_.size()));
    labels_.put('\0');
    ++rows_;
  }
  context_->dropped("no-payload", empty);
  // A file that ends here by accident is whole.
  put_count(images_);
  put_count(labels_);
}

void SinkDataset::put_count(std::ofstream& file) {
  file.seekp(4);
  put_big_endian(file, rows_);
  file.seekp(0, std::ios::end);
  if (!file.flush()) throw std::runtime_error(fmt::format("cannot write into '{}'", options_.path));
}

void SinkDataset::flush() {
  put_count(images_);
  put_count(labels_);
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
            "if it is not there, its files are replaced")
            .required(),
        option<&DatasetOptions::label>("label", "name of the class that all sessions belong to")
            .required(),
        option<&DatasetOptions::bytes>("bytes",
                                       "bytes of a session; a square number gives square images")
            .between(1, 1U << 20U),
        option<&DatasetOptions::layer>(
            "layer", "where a packet's bytes begin: l7 payload, l4 transport header, l2 packet")
            .choices({{"l7", Layer::l7}, {"l4", Layer::l4}, {"l2", Layer::l2}}),
        option<&DatasetOptions::min_payload>("min_payload",
                                             "packets with fewer bytes of payload are left out"),
        option<&DatasetOptions::fragments>("fragments",
                                           "whether parts of fragmented IP packets are used"),
        option<&DatasetOptions::padding>("padding", "byte that fills up what a session lacks")
            .between(0, 255))
        .single("writes one file in order"))
