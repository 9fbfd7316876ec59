#include "labeller.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "millrace/features.h"

namespace millrace {

namespace {

constexpr std::string_view kUnknown = "unknown";

std::string_view name_of(Layer layer) {
  return layer == Layer::l2 ? "l2" : layer == Layer::l4 ? "l4" : "l7";
}

}  // namespace

bool is_distribution(std::span<const float> values) {
  constexpr float kLeast = 1e-4F;
  double sum = 0;
  for (const float value : values) {
    if (!(value >= -kLeast)) return false;
    sum += static_cast<double>(value);
  }
  return std::abs(sum - 1) <= kSumTolerance;
}

/// Lives as long as the verdicts: their labels and names are views into the card.
struct Labeller::Storage {
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

Labeller::Labeller(Card card, std::optional<double> min_confidence, bool probabilities,
                   Context& context)
    : card_(std::make_shared<const Card>(std::move(card))),
      min_confidence_(min_confidence.value_or(card_->min_confidence)),
      probabilities_(probabilities),
      no_payload_(context.counter("no-payload")),
      not_a_number_(context.counter("not-a-number")) {}

void Labeller::begin(const Batch<Session>& in) {
  in_ = &in;
  next_ = 0;
  without_payload_ = 0;
  without_number_ = 0;
  storage_ = std::make_shared<Storage>();
  storage_->card = card_;
  if (probabilities_) storage_->probabilities.resize(in.items.size() * card_->labels.size());
  verdicts_ = Batch<Verdict>(std::vector<Verdict>(in.items.size()));
  for (std::size_t i = 0; i < in.items.size(); ++i) prepare(i);
}

void Labeller::prepare(std::size_t position) {
  const Session& session = in_->items[position];
  if (session.layer > card_->features.layer) holds_too_little(session);
  Verdict& verdict = verdicts_.items[position];
  verdict.session = session.info;
  verdict.session.agent = storage_->keep(session.info.agent);
  verdict.model = card_->name;
  verdict.model_version = card_->version;
  verdict.label = kUnknown;
  verdict.class_names = card_->labels;
  if (probabilities_) verdict.probabilities = probabilities_of(position);
}

void Labeller::holds_too_little(const Session& session) const {
  throw std::runtime_error(fmt::format(
      "the sessions hold their packets from {} on, and the model '{}' needs them from {} on: "
      "set the splitter's option keep = \"{}\"",
      name_of(session.layer), card_->name, name_of(card_->features.layer),
      name_of(card_->features.layer)));
}

std::size_t Labeller::next(std::size_t most) {
  const std::size_t size = card_->features.bytes;
  rows_.resize(most * size);
  positions_.clear();
  std::span<std::uint8_t> free(rows_);
  for (; next_ < in_->items.size() && positions_.size() < most; ++next_) {
    if (extract_features(in_->items[next_], card_->features, free.first(size)) == 0) {
      ++without_payload_;
      continue;
    }
    positions_.push_back(next_);
    free = free.subspan(size);
  }
  std::ranges::fill(free, std::uint8_t{0});
  return positions_.size();
}

std::span<const std::uint8_t> Labeller::features(std::size_t row) const {
  const std::size_t size = card_->features.bytes;
  return std::span(rows_).subspan(row * size, size);
}

std::span<float> Labeller::probabilities_of(std::size_t position) {
  const std::size_t classes = card_->labels.size();
  return std::span(storage_->probabilities).subspan(position * classes, classes);
}

void Labeller::outputs(std::size_t row, std::span<const float> values) {
  if (!card_->probabilities) return logits(row, values);
  if (!is_distribution(values)) return not_a_number();
  values_.assign(values.begin(), values.end());
  for (float& value : values_) value = std::clamp(value, 0.0F, 1.0F);
  probabilities(row, values_);
}

void Labeller::logits(std::size_t row, std::span<const float> values) {
  const auto best = static_cast<std::size_t>(std::ranges::max_element(values) - values.begin());
  values_.assign(values.begin(), values.end());
  float sum = 0;
  for (float& value : values_) {
    value = std::exp(value - values[best]);
    sum += value;
  }
  if (!std::isfinite(sum)) return not_a_number();
  for (float& value : values_) value /= sum;
  keep(row, values_, best);
}

void Labeller::probabilities(std::size_t row, std::span<const float> values) {
  keep(row, values, static_cast<std::size_t>(std::ranges::max_element(values) - values.begin()));
}

void Labeller::keep(std::size_t row, std::span<const float> probabilities, std::size_t best) {
  if (probabilities_) {
    std::ranges::copy(probabilities, probabilities_of(positions_[row]).begin());
  }
  label(row, best, probabilities[best]);
}

void Labeller::label(std::size_t row, std::size_t index, float confidence) {
  Verdict& verdict = verdicts_.items[positions_[row]];
  verdict.label_index = static_cast<std::int32_t>(index);
  verdict.confidence = confidence;
  if (static_cast<double>(confidence) >= min_confidence_) verdict.label = card_->labels[index];
}

Batch<Verdict> Labeller::finish() {
  no_payload_.add(without_payload_);
  not_a_number_.add(without_number_);
  verdicts_.watermark = in_->watermark;
  verdicts_.storage_bytes = storage_->probabilities.size() * sizeof(float);
  verdicts_.storage = std::move(storage_);
  in_ = nullptr;
  return std::move(verdicts_);
}

}  // namespace millrace
