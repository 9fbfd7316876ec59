#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "millrace/context.h"
#include "millrace/session.h"
#include "millrace/verdict.h"

#include "card.h"

namespace millrace {

/// So far may probabilities be from 1 together, and one from 0 or 1: models and services round.
inline constexpr double kSumTolerance = 0.01;
/// Whether they can be the probabilities of the classes.
[[nodiscard]] bool is_distribution(std::span<const float> values);

/// What all stages that ask a model have in common: sessions become rows of features, and what the
/// model says of the rows becomes verdicts. For a batch:
///
///   labeller.begin(in);
///   while (std::size_t rows = labeller.next(64)) { ... one answer for each of the rows ... }
///   out.push(labeller.finish());
///
/// After an exception on the way the batch can be begun again. Threads: one at a time.
class Labeller {
 public:
  /// Without `min_confidence` that of the card holds.
  Labeller(Card card, std::optional<double> min_confidence, bool probabilities, Context& context);

  [[nodiscard]] const Card& card() const { return *card_; }

  /// A verdict "unknown" for every session. `in` must stay as it is until `finish`.
  void begin(const Batch<Session>& in);
  /// Makes the rows of the next sessions that have a usable byte, `most` of them at most; how many
  /// there are, 0 at the end. Throws std::runtime_error if the sessions hold too little for the
  /// card.
  std::size_t next(std::size_t most);
  /// The rows behind each other; always `most`, those that are left over are zeros.
  [[nodiscard]] std::span<const std::uint8_t> features() const { return rows_; }
  [[nodiscard]] std::span<const std::uint8_t> features(std::size_t row) const;
  /// Where in the batch the session of a row is.
  [[nodiscard]] std::size_t position(std::size_t row) const { return positions_[row]; }

  /// What the model gives for a row: logits, or what the card says it is.
  void outputs(std::size_t row, std::span<const float> values);

  // What the model says of a row, by one of these; otherwise its session stays "unknown".
  /// One number for each label, of which the softmax is taken; as `not_a_number` if there is none.
  void logits(std::size_t row, std::span<const float> values);
  /// One number for each label.
  void probabilities(std::size_t row, std::span<const float> values);
  /// The most probable class; below the least confidence the label is "unknown".
  void label(std::size_t row, std::size_t index, float confidence);
  /// The model has no answer for one of the rows, which is counted.
  void not_a_number() { ++without_number_; }

  /// All verdicts, in the order of the sessions. The counters move only now.
  [[nodiscard]] Batch<Verdict> finish();

 private:
  struct Storage;

  void prepare(std::size_t position);
  void keep(std::size_t row, std::span<const float> probabilities, std::size_t best);
  [[nodiscard]] std::span<float> probabilities_of(std::size_t position);
  [[noreturn]] void holds_too_little(const Session& session) const;

  std::shared_ptr<const Card> card_;
  double min_confidence_;
  bool probabilities_;
  Counter& no_payload_;
  Counter& not_a_number_;

  const Batch<Session>* in_ = nullptr;
  std::size_t next_ = 0;  ///< in the batch
  std::shared_ptr<Storage> storage_;
  Batch<Verdict> verdicts_;
  std::vector<std::uint8_t> rows_;
  std::vector<std::size_t> positions_;  ///< of the rows' sessions
  std::vector<float> values_;
  std::uint64_t without_payload_ = 0;  ///< in this batch
  std::uint64_t without_number_ = 0;
};

}  // namespace millrace
