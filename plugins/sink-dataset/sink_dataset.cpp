#include "sink_dataset.h"

#include <array>
#include <filesystem>
#include <stdexcept>
#include <system_error>

#include <fmt/format.h>

#include "data_files.h"
#include "output_folder.h"

namespace millrace {

namespace {

std::string_view name_of(Layer layer) {
  static constexpr std::array<std::string_view, 3> kNames = {"l2", "l4", "l7"};
  return kNames[static_cast<std::size_t>(layer)];
}

/// A label in an IDX file is one byte.
std::size_t most_classes(DataFormat format) { return format == DataFormat::idx ? 256 : 65536; }

}  // namespace

SinkDataset::SinkDataset(const DatasetOptions& options)
    : options_(options),
      spec_{options.bytes, options.layer, static_cast<std::uint8_t>(options.padding),
            options.min_payload, options.fragments},
      rows_(options.seed, options.max_sessions),
      features_(options.bytes) {}

void SinkDataset::check(const DatasetOptions& options, Findings& findings) {
  if (options.path.empty()) findings.add("path", "expected the name of a folder");
  if (options.label_from == LabelFrom::option) {
    if (const std::string problem = label_problem(options.label); !problem.empty()) {
      findings.add("label", options.label.empty()
                                ? "expected the name of the class of all sessions, or 'label_from'"
                                : fmt::format("'{}' cannot be the name of a class: {}",
                                              options.label, problem));
    }
  } else if (!options.label.empty()) {
    findings.add("label", "has no effect unless label_from = \"option\"; expected one of them");
  }
  if (options.label_from == LabelFrom::table ? options.labels.empty() : !options.labels.empty()) {
    findings.add("labels", options.labels.empty()
                               ? "label_from = \"table\" needs the name of a CSV file here"
                               : "has no effect unless label_from = \"table\"");
  }
}

void SinkDataset::open(Context& context) {
  context_ = &context;
  open_output_folder(options_.path);
  if (options_.label_from == LabelFrom::table) {
    table_ = LabelTable(context.find_file(options_.labels), {options_.label_column, true},
                        options_.max_sessions);
  }
}

const std::string* SinkDataset::label_of(const Session& session) {
  switch (options_.label_from) {
    case LabelFrom::option:
      return &options_.label;
    case LabelFrom::agent:
      agent_ = session.info.agent;
      return agent_.empty() ? nullptr : &agent_;
    case LabelFrom::table:
      return table_.find(session.info);
  }
  return nullptr;
}

/// Everything that can be wrong with a batch, before any of it is taken.
void SinkDataset::check_batch(const Batch<Session>& in) {
  std::vector<std::size_t> bad;
  std::string why;
  for (std::size_t i = 0; i < in.items.size(); ++i) {
    const Session& session = in.items[i];
    if (session.layer > spec_.layer) {
      throw std::runtime_error(fmt::format(
          "the sessions hold their packets from {0} on, and option 'layer' asks for {1}: "
          "give the splitter keep = \"{1}\"",
          name_of(session.layer), name_of(spec_.layer)));
    }
    if (options_.label_from != LabelFrom::agent || session.info.agent.empty()) continue;
    const std::string problem = label_problem(session.info.agent);
    if (problem.empty()) continue;
    why = fmt::format("the agent '{}' cannot be the name of a class: {}", session.info.agent,
                      problem);
    bad.push_back(i);
  }
  if (!bad.empty()) throw Rejected(why, std::move(bad));
}

void SinkDataset::write(Batch<Session>& in) {
  check_batch(in);
  std::uint64_t unlabelled = 0;
  std::uint64_t empty = 0;
  bool fresh = false;
  for (const Session& session : in.items) {
    const std::string* label = label_of(session);
    if (label == nullptr) {
      ++unlabelled;
    } else if (extract_features(session, spec_, features_) == 0) {
      ++empty;
    } else {
      fresh |= rows_.add(features_, *label, session.info);
    }
  }
  context_->dropped("no-label", unlabelled);
  context_->dropped("no-payload", empty);
  if (fresh && in.receipt) receipts_.push_back(std::move(in.receipt));
  if (rows_.labels() > most_classes(options_.format)) {
    throw std::runtime_error(fmt::format("more than {} classes{}", most_classes(options_.format),
                                         options_.format == DataFormat::idx
                                             ? ": that is all an IDX file can tell apart; "
                                               "format = \"npz\" can hold more"
                                             : ""));
  }
}

void SinkDataset::flush() {
  if (written_) return;
  // A part of the input is no data set, and the one that is there may be whole.
  if (const std::string why = context_->incomplete(); !why.empty()) {
    throw std::runtime_error(fmt::format(
        "no data set is written, because the input is not complete; what is in '{}' stays as it "
        "was ({})",
        options_.path, why));
  }
  const DataSplit split = rows_.split(options_.dev_share);
  if (split.train.empty()) {
    throw std::runtime_error(
        fmt::format("no data set is written, because no session came that has a label and a usable "
                    "byte; what is in '{}' stays as it was",
                    options_.path));
  }
  const std::filesystem::path folder = options_.path;
  if (options_.format == DataFormat::idx) {
    write_idx(folder, split, options_.bytes);
  } else {
    write_npz(folder, split, options_.bytes);
  }
  if (options_.index) {
    write_index(folder, split);
  } else {
    // One from an earlier run would speak of other rows.
    std::error_code not_there;
    std::filesystem::remove(folder / "sessions.csv", not_there);
  }
  written_ = true;
  report(split);
  for (Receipt& receipt : receipts_) receipt.done();
  receipts_.clear();
}

void SinkDataset::report(const DataSplit& split) {
  context_->handled(split.train.size() + split.dev.size());
  context_->dropped("duplicate", split.duplicates);
  context_->dropped("ambiguous", split.ambiguous);
  context_->dropped("beyond-max-sessions", split.beyond);
  for (const std::string& label : split.without) {
    context_->warning(
        fmt::format("the class '{}' is left out: what its sessions send is not its own", label));
  }
  const std::string what =
      fmt::format("{} sessions in train, {} in dev, {} classes, in '{}'", split.train.size(),
                  split.dev.size(), split.labels.size(), options_.path);
  context_->info(what);
}

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "sink-dataset", MILLRACE_VERSION,
    sink<SinkDataset, DatasetOptions>(
        "sink-dataset", "Writes labelled sessions as training data for a model",
        option<&DatasetOptions::path>(
            "path",
            "folder for the files, made if it is not there; they replace those of an earlier run "
            "when the input has ended")
            .required(),
        option<&DatasetOptions::format>(
            "format",
            "\"idx\": {train,dev}-images-idx3-ubyte, {train,dev}-labels-idx1-ubyte and labels.txt; "
            "\"npz\": dataset.npz with train_x, train_y, dev_x, dev_y and labels for numpy")
            .choices({{"idx", DataFormat::idx}, {"npz", DataFormat::npz}}),
        option<&DatasetOptions::label_from>(
            "label_from",
            "where the label of a session comes from: \"option\" 'label', \"agent\" the name of "
            "its agent (source-pcap: agent_from = \"folder\"), \"table\" the file in 'labels'")
            .choices({{"option", LabelFrom::option},
                      {"agent", LabelFrom::agent},
                      {"table", LabelFrom::table}}),
        option<&DatasetOptions::label>("label", "name of the class that all sessions belong to"),
        option<&DatasetOptions::labels>(
            "labels",
            "CSV file with a header, a column 'session' (the id) or columns protocol, src, "
            "src_port, dst, dst_port (and first_seen), and one with the label"),
        option<&DatasetOptions::label_column>("label_column",
                                              "name of the column with the label in 'labels'"),
        option<&DatasetOptions::dev_share>(
            "dev_share", "share of each class that is kept for dev; the rest is for training")
            .between(0, 0.9),
        option<&DatasetOptions::seed>(
            "seed", "of the choice between train and dev, and of the rows' order"),
        option<&DatasetOptions::max_sessions>(
            "max_sessions",
            "different sessions held in memory, each with 'bytes' and about 200 bytes more; of "
            "more a random sample is kept, and the others are dropped under beyond-max-sessions. "
            "Also the most rows of 'labels', about 150 bytes each")
            .between(1, 1U << 30U),
        option<&DatasetOptions::bytes>(
            "bytes",
            "bytes of a session, as in the model's card; in IDX files a square number gives square "
            "images (784: 28 x 28), another one images of a single row")
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
            "padding", "value of the bytes that fill up a row which the session does not fill")
            .between(0, 255),
        option<&DatasetOptions::index>(
            "index",
            "also write sessions.csv: for every row its part, its number there (from 0), session "
            "id, protocol and endpoints"))
        .checked(&SinkDataset::check)
        .aggregates()
        .single("finds what is twice among all sessions"))
