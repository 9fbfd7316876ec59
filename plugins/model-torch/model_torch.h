#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "millrace/plugin.h"
#include "millrace/stage.h"
#include "millrace/verdict.h"

#include "backend.h"
#include "card.h"

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
  struct Storage;

  void load(Context& context);
  void try_out();
  /// Runs the model over the rows that wait and fills the verdicts they belong to.
  void infer(Batch<Verdict>& verdicts, Storage& storage);
  void judge(Verdict& verdict, std::span<const float> logits);

  TorchOptions options_;
  std::shared_ptr<const Card> card_;
  std::shared_ptr<Model> model_;
  double min_confidence_ = 0;
  Counter* no_payload_ = nullptr;
  Counter* not_a_number_ = nullptr;
  std::vector<std::uint8_t> rows_;         ///< features of the sessions that wait
  std::vector<std::size_t> row_verdicts_;  ///< which verdict each row is of
  std::vector<float> logits_;
  std::vector<float> probabilities_;
};

void check_torch_options(const TorchOptions& options, Findings& findings);

}  // namespace millrace
