#include "model_torch.h"

#include <algorithm>
#include <cmath>
#include <deque>

#include <fmt/format.h>

namespace millrace {

namespace {

constexpr std::string_view kUnknown = "unknown";

/// The card that lies beside a model.
std::filesystem::path card_of(std::filesystem::path model) {
  return model.replace_extension(".toml");
}

std::string_view name_of(Layer layer) {
  return layer == Layer::l2 ? "l2" : layer == Layer::l4 ? "l4" : "l7";
}

}  // namespace

/// Lives as long as the verdicts: their labels and names are views into the card.
struct ModelTorch::Storage {
  std::shared_ptr<const Card> card;
  std::vector<float> probabilities;
  /// Names of agents; the sessions' own storage, with all their packets, does not go along.
  std::deque<std::string> agents;

  std::string_view keep(std::string_view agent) {
    if (agent.empty()) return {};
    if (agents.empty() || agents.back() != agent) agents.emplace_back(agent);
    return agents.back();
  }
};

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
  if (!card_here) return;
  try {
    (void)read_card(options.card.empty() ? card_of(model) : card);
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
  try {
    card_ = std::make_shared<const Card>(
        read_card(options_.card.empty() ? card_of(file) : context.find_file(options_.card)));
  } catch (const std::exception& problem) {
    throw ConfigError(options_.card.empty() ? "model" : "card", problem.what());
  }
  const TorchBackend& backend = torch_backend();
  const int threads = backend.use_threads(static_cast<int>(options_.threads));
  if (threads != static_cast<int>(options_.threads)) {
    throw ConfigError("threads", fmt::format("libtorch's threads are one number for the whole "
                                             "process, and another stage has set it to {}",
                                             threads));
  }
  try {
    model_ = backend.load(file, card_->tensor);
  } catch (const ModelError& problem) {
    throw ConfigError("model",
                      fmt::format("'{}' cannot be loaded: {}", file.string(), problem.what()));
  }
}

/// A run with zeros: everything that does not fit shows before the first packet.
void ModelTorch::try_out() {
  const std::size_t rows = options_.batch;
  const std::vector<std::uint8_t> zeros(rows * card_->features.bytes);
  std::size_t classes = 0;
  try {
    classes = model_->run(zeros, rows, logits_);
  } catch (const ModelError& problem) {
    std::string shape;
    for (const std::int64_t size : card_->tensor.shape) shape += fmt::format(", {}", size);
    throw ConfigError(
        "model",
        fmt::format("'{}' does not take what its card says ({} [sessions{}]): {}", options_.model,
                    card_->tensor.floating ? "float32" : "uint8", shape, problem.what()));
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
      throw std::runtime_error(fmt::format(
          "the sessions hold their packets from {} on, and the model '{}' needs them from {} on: "
          "set the splitter's option keep = \"{}\"",
          name_of(session.layer), card_->name, name_of(card_->features.layer),
          name_of(card_->features.layer)));
    }
    Verdict& verdict = verdicts.items[i];
    verdict.session = session.info;
    verdict.session.agent = storage->keep(session.info.agent);
    verdict.model = card_->name;
    verdict.model_version = card_->version;
    verdict.label = kUnknown;
    if (options_.probabilities) {
      verdict.class_names = card_->labels;
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
  verdicts.storage_bytes = storage->probabilities.size() * sizeof(float);
  verdicts.storage = std::move(storage);
  out.push(std::move(verdicts));
}

void ModelTorch::infer(Batch<Verdict>& verdicts, Storage& storage) {
  // Always as many rows: libtorch chooses its way by their number, and the last bits with it.
  rows_.resize(options_.batch * card_->features.bytes);
  const std::size_t classes = model_->run(rows_, options_.batch, logits_);
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
