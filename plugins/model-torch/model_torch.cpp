#include "model_torch.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "model_file.h"
#include "patience.h"
#include "trial.h"

namespace millrace {

namespace {

/// Operators that models of today often have, and the PyTorch that brought them.
struct Operator {
  std::string_view name;
  std::string_view since;
};
constexpr std::array kOperators{
    Operator{"scaled_dot_product", "2.0"},
    Operator{"aten::_transformer_encoder_layer_fwd", "1.12"},
    Operator{"aten::_native_multi_head_attention", "1.12"},
    Operator{"aten::rms_norm", "2.4"},
    Operator{"aten::_safe_softmax", "2.5"},
};

/// Of a model that could not be loaded although its file is whole.
std::string versions(std::string_view problem, const std::string& written, const char* here) {
  const auto known = std::ranges::find_if(kOperators, [problem](const Operator& one) {
    return problem.find(one.name) != std::string_view::npos;
  });
  const std::string needs =
      known == kOperators.end() ? "" : fmt::format(", needs PyTorch {} or newer", known->since);
  return fmt::format(
      "the model was written by {}{}, and libtorch here is {}: save it with a "
      "PyTorch of this version, or without what is new in it",
      written, needs, here);
}

}  // namespace

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
  told_ = context.shared<std::atomic<bool>>(fmt::format("model-torch {}", context.stage()), [] {
    return std::make_shared<std::atomic<bool>>(false);
  });
  const TorchBackend& backend = torch_backend();
  const int threads = backend.use_threads(static_cast<int>(options_.threads));
  if (threads != static_cast<int>(options_.threads)) {
    throw ConfigError("threads", fmt::format("libtorch's threads are one number for the whole "
                                             "process, and another stage has set it to {}",
                                             threads));
  }
  try {
    std::vector<std::string> warnings = load(context, backend, file, card);
    const Patience patience(context, fmt::format("the first answers of '{}'", file.string()));
    for (std::string& text : try_model(*model_, labeller_->card(), options_.batch)) {
      warnings.push_back(fmt::format("'{}': {}", file.string(), text));
    }
    // Several workers have one model.
    if (told_->exchange(true)) return;
    for (const std::string& text : warnings) context.warning(text);
  } catch (const ModelError& problem) {
    throw ConfigError("model",
                      fmt::format("'{}' cannot be used: {}", file.string(), problem.what()));
  }
}

/// What is worth a warning.
std::vector<std::string> ModelTorch::load(Context& context, const TorchBackend& backend,
                                          const std::filesystem::path& file,
                                          const std::filesystem::path& card) {
  const ModelFile found = read_model_file(file);
  const std::string& expected = labeller_->card().sha256;
  if (!expected.empty() && found.sha256 != expected) {
    throw ModelError(
        fmt::format("it is not the file that its card '{}' was written for, or it is "
                    "damaged: its SHA-256 is {}, and the card says {}",
                    card.string(), found.sha256, expected));
  }
  const Patience patience(context, fmt::format("'{}' to be loaded", file.string()));
  try {
    model_ = backend.load(file, labeller_->card().tensor);
  } catch (const ModelError& problem) {
    throw ModelError(fmt::format("{}; {}", problem.what(),
                                 versions(problem.what(), found.written, backend.version)));
  }
  if (!expected.empty()) return {};
  return {
      fmt::format("the card '{}' has no checksum of its model, so that another file or damage "
                  "is not noticed; add this line: sha256 = \"{}\"",
                  card.string(), found.sha256)};
}

void ModelTorch::process(Batch<Session>& in, Output<Verdict>& out) {
  if (in.items.empty()) return;
  labeller_->begin(in);
  while (const std::size_t rows = labeller_->next(options_.batch)) {
    // Always as many rows: libtorch chooses its way by their number, and the last bits with it.
    const std::size_t classes = model_->run(labeller_->features(), options_.batch, logits_);
    for (std::size_t row = 0; row < rows; ++row) {
      labeller_->outputs(row, std::span(logits_).subspan(row * classes, classes));
    }
  }
  out.push(labeller_->finish());
}

void probe_torch_options(const TorchOptions& options, Findings& findings) {
  const std::filesystem::path model = findings.find_file(options.model);
  std::error_code error;
  if (!std::filesystem::exists(model, error)) {
    return findings.add("model",
                        fmt::format("there is no file '{}', neither in the working folder nor in "
                                    "the installation's data folder",
                                    options.model));
  }
  const std::filesystem::path card =
      options.card.empty() ? std::filesystem::path() : findings.find_file(options.card);
  check_card(model.string(), card.string(), findings);
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
        .checked(&check_torch_options)
        .probed(&probe_torch_options))
