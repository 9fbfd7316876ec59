#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "millrace/plugin.h"
#include "millrace/stage.h"
#include "millrace/verdict.h"

#include "backend.h"
#include "labeller.h"

namespace millrace {

struct TorchOptions {
  std::string model;
  std::string card;
  std::uint32_t batch = 64;
  Duration max_wait = std::chrono::milliseconds(20);
  std::uint32_t threads = 1;
  std::optional<double> min_confidence;
  bool probabilities = false;
};

/// Asks a TorchScript model what each session is.
class ModelTorch final : public Transform<Session, Verdict> {
 public:
  explicit ModelTorch(const TorchOptions& options) : options_(options) {}

  void open(Context& context) override;
  [[nodiscard]] Coalesce coalesce() const override { return {options_.batch, options_.max_wait}; }
  void process(Batch<Session>& in, Output<Verdict>& out) override;

 private:
  [[nodiscard]] std::vector<std::string> load(Context& context, const TorchBackend& backend,
                                              const std::filesystem::path& file,
                                              const std::filesystem::path& card);

  TorchOptions options_;
  std::shared_ptr<Model> model_;
  std::shared_ptr<std::atomic<bool>> told_;  ///< by one of the workers: what there is to warn of
  std::optional<Labeller> labeller_;
  std::vector<float> logits_;
};

void check_torch_options(const TorchOptions& options, Findings& findings);
/// Whether the model and its card are there and the card can be read; the model is not loaded.
void probe_torch_options(const TorchOptions& options, Findings& findings);

}  // namespace millrace
