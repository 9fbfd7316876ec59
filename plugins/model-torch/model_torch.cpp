#include "model_torch.h"

#include <fmt/format.h>

namespace millrace {

void check_torch_options(const TorchOptions& options, Findings& findings) {
  // What is not in the working folder is looked for in the installation at the start.
  std::error_code error;
  const std::filesystem::path model(options.model);
  const bool model_here = std::filesystem::exists(model, error);
  if (!model_here && model.is_absolute()) {
    findings.add("model", fmt::format("there is no file '{}'", options.model));
  }
  const std::filesystem::path card(options.card);
  const bool card_here = options.card.empty()
                             ? model_here
                             : card.is_absolute() || std::filesystem::exists(card, error);
  if (card_here) check_card(options.model, options.card, findings);
}

void ModelTorch::open(Context& context) {
  load(context);
  try_out();
}

void ModelTorch::load(Context& context) {
  const std::filesystem::path file = context.find_file(options_.model);
  std::error_code error;
  if (!std::filesystem::exists(file, error)) {
    throw ConfigError("model",
                      fmt::format("there is no file '{}', neither in the working folder nor in the "
                                  "installation's data folder",
                                  options_.model));
  }
  const std::filesystem::path card =
      options_.card.empty() ? card_file(file, {}) : context.find_file(options_.card);
  labeller_.emplace(load_card(card, card_option(options_.card)), options_.min_confidence,
                    options_.probabilities, context);
  const TorchBackend& backend = torch_backend();
  const int threads = backend.use_threads(static_cast<int>(options_.threads));
  if (threads != static_cast<int>(options_.threads)) {
    throw ConfigError("threads", fmt::format("libtorch's threads are one number for the whole "
                                             "process, and another stage has set it to {}",
                                             threads));
  }
  try {
    model_ = backend.load(file, labeller_->card().tensor);
  } catch (const ModelError& problem) {
    throw ConfigError("model",
                      fmt::format("'{}' cannot be loaded: {}", file.string(), problem.what()));
  }
}

/// A run with zeros: everything that does not fit shows before the first packet.
void ModelTorch::try_out() {
  const Card& card = labeller_->card();
  const std::size_t rows = options_.batch;
  const std::vector<std::uint8_t> zeros(rows * card.features.bytes);
  std::size_t classes = 0;
  try {
    classes = model_->run(zeros, rows, logits_);
  } catch (const ModelError& problem) {
    std::string shape;
    for (const std::int64_t size : card.tensor.shape) shape += fmt::format(", {}", size);
    throw ConfigError(
        "model",
        fmt::format("'{}' does not take what its card says ({} [sessions{}]): {}", options_.model,
                    card.tensor.floating ? "float32" : "uint8", shape, problem.what()));
  }
  if (classes != card.labels.size()) {
    throw ConfigError("model", fmt::format("'{}' gives {} classes, but its card names {} labels",
                                           options_.model, classes, card.labels.size()));
  }
}

void ModelTorch::process(Batch<Session>& in, Output<Verdict>& out) {
  if (in.items.empty()) return;
  labeller_->begin(in);
  while (const std::size_t rows = labeller_->next(options_.batch)) {
    // Always as many rows: libtorch chooses its way by their number, and the last bits with it.
    const std::size_t classes = model_->run(labeller_->features(), options_.batch, logits_);
    for (std::size_t row = 0; row < rows; ++row) {
      labeller_->logits(row, std::span(logits_).subspan(row * classes, classes));
    }
  }
  out.push(labeller_->finish());
}

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "model-torch", MILLRACE_VERSION,
    transform<ModelTorch, TorchOptions>(
        "model-torch", "Labels sessions with a TorchScript model, through libtorch",
        option<&TorchOptions::model>(
            "model",
            "the TorchScript file, with its card (the same name with .toml) beside it; looked for "
            "in the working folder, then in the installation's data folder")
            .required(),
        option<&TorchOptions::card>(
            "card", "another card than the one beside the model; looked for like the model"),
        option<&TorchOptions::batch>("batch",
                                     "sessions that the model is asked about at once at most; "
                                     "more than 64 gains nothing with small models")
            .between(1, 4096),
        option<&TorchOptions::max_wait>("max_wait", "how long sessions wait for a batch to fill")
            .between(Duration(0), std::chrono::minutes(1)),
        option<&TorchOptions::threads>(
            "threads",
            "libtorch's and OpenBLAS' threads for one operation, one number for the whole process; "
            "several workers with one thread each are faster")
            .between(1, 256),
        option<&TorchOptions::min_confidence>(
            "min_confidence",
            "a less probable answer is the label 'unknown'; if not "
            "given, what the card says")
            .between(0.0, 1.0),
        option<&TorchOptions::probabilities>("probabilities",
                                             "give the probabilities of all classes as well"))
        .checked(&check_torch_options))
