#include "model_torch.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace millrace {

namespace {

constexpr std::string_view kUnknown = "unknown";

std::filesystem::path card_path(const TorchOptions& options, std::filesystem::path model) {
  return options.card.empty() ? model.replace_extension(".toml")
                              : std::filesystem::path(options.card);
}

}  // namespace

/// Lives as long as the verdicts: their labels and names are views into the card.
struct ModelTorch::Storage {
  std::shared_ptr<const Card> card;
  std::vector<float> probabilities;
};

void check_torch_options(const TorchOptions& options, Findings& findings) {
  // A model that is not in the working folder is looked for in the installation at the start.
  std::error_code error;
  const std::filesystem::path model(options.model);
  if (!std::filesystem::exists(model, error)) {
    if (model.is_absolute())
      findings.add("model", fmt::format("there is no file '{}'", options.model));
    return;
  }
  try {
    (void)read_card(card_path(options, model));
  } catch (const std::exception& problem) {
    findings.add(options.card.empty() ? "model" : "card", problem.what());
  }
}

void ModelTorch::open(Context& context) {
  no_payload_ = &context.counter("no-payload");
  not_a_number_ = &context.counter("not-a-number");
  load(context);
  min_confidence_ = options_.min_confidence.value_or(card_->min_confidence);
  rows_.reserve(static_cast<std::size_t>(options_.batch) * card_->features.bytes);
  try_out(1);
  try_out(options_.batch);
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
  try {
    card_ = std::make_shared<const Card>(read_card(card_path(options_, file)));
  } catch (const std::exception& problem) {
    throw ConfigError(options_.card.empty() ? "model" : "card", problem.what());
  }
  try {
    model_ = torch_backend().load(file, card_->tensor, static_cast<int>(options_.threads));
  } catch (const ModelError& problem) {
    throw ConfigError("model",
                      fmt::format("'{}' cannot be loaded: {}", file.string(), problem.what()));
  }
}

/// A run with zeros: everything that does not fit shows before the first packet.
void ModelTorch::try_out(std::size_t rows) {
  const std::vector<std::uint8_t> zeros(rows * card_->features.bytes);
  std::size_t classes = 0;
  try {
    classes = model_->run(zeros, rows, logits_);
  } catch (const ModelError& problem) {
    std::string shape;
    for (const std::int64_t size : card_->tensor.shape) shape += fmt::format(", {}", size);
    throw ConfigError(
        "model",
        fmt::format("'{}' does not take what its card says ({} [{}{}]): {}", options_.model,
                    card_->tensor.floating ? "float32" : "uint8", rows, shape, problem.what()));
  }
  if (classes != card_->labels.size()) {
    throw ConfigError("model", fmt::format("'{}' gives {} classes, but its card names {} labels",
                                           options_.model, classes, card_->labels.size()));
  }
}

void ModelTorch::process(Batch<Session>& in, Output<Verdict>& out) {
  if (in.items.empty()) return;
  auto storage = std::make_shared<Storage>();
  storage->card = card_;
  if (options_.probabilities) storage->probabilities.resize(in.items.size() * card_->labels.size());
  Batch<Verdict> verdicts{std::vector<Verdict>(in.items.size())};
  rows_.clear();
  row_verdicts_.clear();
  const std::size_t size = card_->features.bytes;
  for (std::size_t i = 0; i < in.items.size(); ++i) {
    const Session& session = in.items[i];
    if (session.layer > card_->features.layer) {
      throw std::runtime_error(
          "the sessions hold too little of their packets for this model: set the splitter's "
          "option 'keep' to the layer that the model's card names");
    }
    Verdict& verdict = verdicts.items[i];
    verdict.session = session.info;
    verdict.model = card_->name;
    verdict.model_version = card_->version;
    verdict.label = kUnknown;
    verdict.class_names = card_->labels;
    if (options_.probabilities) {
      verdict.probabilities =
          std::span(storage->probabilities).subspan(i * card_->labels.size(), card_->labels.size());
    }
    rows_.resize((row_verdicts_.size() + 1) * size);
    if (extract_features(session, card_->features, std::span(rows_).last(size)) == 0) {
      rows_.resize(row_verdicts_.size() * size);
      no_payload_->add();
      continue;
    }
    row_verdicts_.push_back(i);
    if (row_verdicts_.size() == options_.batch) infer(verdicts, *storage);
  }
  if (!row_verdicts_.empty()) infer(verdicts, *storage);
  verdicts.watermark = in.watermark;
  verdicts.storage = std::move(storage);
  verdicts.storage_bytes = verdicts.items.size() * card_->labels.size() * sizeof(float);
  out.push(std::move(verdicts));
}

void ModelTorch::infer(Batch<Verdict>& verdicts, Storage& storage) {
  const std::size_t classes = model_->run(rows_, row_verdicts_.size(), logits_);
  for (std::size_t row = 0; row < row_verdicts_.size(); ++row) {
    const std::size_t i = row_verdicts_[row];
    Verdict& verdict = verdicts.items[i];
    judge(verdict, std::span(logits_).subspan(row * classes, classes));
    if (options_.probabilities) {
      std::ranges::copy(probabilities_,
                        storage.probabilities.begin() + static_cast<std::ptrdiff_t>(i * classes));
    }
  }
  rows_.clear();
  row_verdicts_.clear();
}

void ModelTorch::judge(Verdict& verdict, std::span<const float> logits) {
  probabilities_.assign(logits.begin(), logits.end());
  const auto top = std::ranges::max_element(probabilities_);
  const float highest = *top;
  const auto best = static_cast<std::size_t>(top - probabilities_.begin());
  float sum = 0;
  for (float& value : probabilities_) {
    value = std::exp(value - highest);
    sum += value;
  }
  for (float& value : probabilities_) value /= sum;
  if (!std::isfinite(sum)) {
    not_a_number_->add();
    std::ranges::fill(probabilities_, 0.0F);
    return;
  }
  verdict.label_index = static_cast<std::int32_t>(best);
  verdict.confidence = probabilities_[best];
  if (static_cast<double>(verdict.confidence) >= min_confidence_)
    verdict.label = card_->labels[best];
}

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "model-torch", MILLRACE_VERSION,
    transform<ModelTorch, TorchOptions>(
        "model-torch", "Labels sessions with a TorchScript model, through libtorch",
        option<&TorchOptions::model>(
            "model",
            "the TorchScript file; looked for in the working folder, then in the "
            "installation's data folder")
            .required(),
        option<&TorchOptions::card>(
            "card", "the model's card; if not given, the file beside the model with .toml"),
        option<&TorchOptions::batch>("batch",
                                     "sessions that the model is asked about at once at most")
            .between(1, 4096),
        option<&TorchOptions::max_wait>("max_wait", "how long sessions wait for a batch to fill")
            .between(Duration(0), std::chrono::minutes(1)),
        option<&TorchOptions::threads>(
            "threads",
            "libtorch's threads for one operation, in the whole process; several "
            "workers with one thread each are faster")
            .between(1, 256),
        option<&TorchOptions::min_confidence>(
            "min_confidence",
            "a less probable answer is the label 'unknown'; if not "
            "given, what the card says")
            .between(0.0, 1.0),
        option<&TorchOptions::probabilities>("probabilities",
                                             "give the probabilities of all classes as well"))
        .checked(&check_torch_options))
