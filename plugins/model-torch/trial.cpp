#include "trial.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

#include <fmt/format.h>

#include "labeller.h"

namespace millrace {

namespace {

/// So many made-up sessions at least, in one batch or in several.
constexpr std::size_t kLeastSessions = 16;
/// Answers that are further apart, as a share of the largest number in them, are different ones.
/// What comes from another order of additions is far smaller.
constexpr float kSame = 1e-3F;

constexpr std::string_view kInTraining =
    "save it after model.eval(), which torch.jit.trace needs as well";

/// Payload of several kinds: nothing, noise, text, a beginning and then padding. The same in every
/// run.
class MadeUpSessions {
 public:
  explicit MadeUpSessions(const FeatureSpec& features) : features_(features) {}

  std::vector<std::uint8_t> rows(std::size_t count) {
    std::vector<std::uint8_t> all(count * features_.bytes);
    for (std::size_t row = 0; row < count; ++row, ++number_) {
      fill(std::span(all).subspan(row * features_.bytes, features_.bytes));
    }
    return all;
  }

 private:
  void fill(std::span<std::uint8_t> row) {
    constexpr std::size_t kKinds = 6;
    const std::size_t kind = number_ % kKinds;
    const std::size_t used = kind < 3 ? row.size() : 1 + next() % row.size();
    for (std::size_t i = 0; i < row.size(); ++i) {
      row[i] = i >= used   ? features_.padding
               : kind == 0 ? std::uint8_t{0}
               : kind == 1 ? static_cast<std::uint8_t>(next())
               : kind == 2 ? static_cast<std::uint8_t>(' ' + next() % 95)
               : kind == 3 ? static_cast<std::uint8_t>(next())
               : kind == 4 ? static_cast<std::uint8_t>(next() % 8)
                           : static_cast<std::uint8_t>('a' + next() % 26);
    }
  }
  /// splitmix64
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15U);
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31U);
  }

  FeatureSpec features_;
  std::size_t number_ = 0;
  std::uint64_t state_ = 0;
};

class Trial {
 public:
  Trial(Model& model, const Card& card, std::size_t rows)
      : model_(model), card_(card), rows_(rows), classes_(card.labels.size()) {}

  std::vector<std::string> run() {
    MadeUpSessions sessions(card_.features);
    for (std::size_t asked = 0; asked < std::max(kLeastSessions, rows_); asked += rows_) {
      const std::vector<std::uint8_t> rows = sessions.rows(rows_);
      const std::vector<float> answers = ask(rows, rows_);
      note(answers);
      if (asked == 0 || rows_ == 1) ask_again(rows, answers);
      if (asked == 0) ask_beside_others(rows, answers);
    }
    judge();
    return std::move(warnings_);
  }

 private:
  std::vector<float> ask(std::vector<std::uint8_t> rows, std::size_t count) {
    // A copy: a model may write to its input.
    std::vector<float> answers;
    std::size_t classes = 0;
    try {
      classes = model_.run(rows, count, answers);
    } catch (const ModelError& problem) {
      const std::string what = problem.what();
      if (what.starts_with("the model ")) throw;  // it ran
      std::string shape;
      for (const std::int64_t size : card_.tensor.shape) shape += fmt::format(", {}", size);
      const bool about_type = what.find("Byte") != std::string::npos ||
                              what.find("dtype") != std::string::npos ||
                              what.find("unsigned char") != std::string::npos;
      throw ModelError(fmt::format(
          "it does not take what its card says ({} [sessions{}]): {}{}",
          card_.tensor.floating ? "float32" : "uint8", shape, what,
          about_type && !card_.tensor.floating && what.find("its weights") == std::string::npos
              ? "; a model that takes floats needs dtype = \"float32\" (and its scale) in the card"
              : ""));
    }
    if (classes != classes_) {
      throw ModelError(
          fmt::format("it gives {} classes, but its card names {} labels", classes, classes_));
    }
    return answers;
  }

  [[nodiscard]] std::span<const float> row_of(const std::vector<float>& answers,
                                              std::size_t row) const {
    return std::span(answers).subspan(row * classes_, classes_);
  }

  static bool same(std::span<const float> a, std::span<const float> b) {
    float largest = 0;
    for (const float value : a) {
      if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
    }
    for (std::size_t i = 0; i < a.size(); ++i) {
      if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
      if (!(std::abs(a[i] - b[i]) <= kSame * largest)) return false;
    }
    return true;
  }

  void ask_again(const std::vector<std::uint8_t>& rows, const std::vector<float>& answers) {
    for (int again = 0; again < 2; ++again) {
      const std::vector<float> other = ask(rows, rows_);
      for (std::size_t row = 0; row < rows_; ++row) {
        if (same(row_of(answers, row), row_of(other, row))) continue;
        throw ModelError(fmt::format(
            "it gives another answer each time it is asked about the same session, as a model does "
            "that was saved while training, with its dropout; {}",
            kInTraining));
      }
    }
  }

  void ask_beside_others(const std::vector<std::uint8_t>& rows, const std::vector<float>& answers) {
    std::vector<std::uint8_t> others = rows;
    const std::size_t bytes = card_.features.bytes;
    for (std::size_t row = 1; row < rows_; row += 2) {
      std::fill_n(others.begin() + static_cast<std::ptrdiff_t>(row * bytes), bytes,
                  static_cast<std::uint8_t>(row * 31));
    }
    if (rows_ > 1) compare(answers, ask(others, rows_), rows_, 2);
    // A model may be made for one number of rows, which is the one that counts.
    const std::size_t more = 2 * rows_;
    constexpr std::uint8_t kOther = 0x5A;
    for (const std::uint8_t byte : rows) others.push_back(byte ^ kOther);
    std::vector<float> all;
    try {
      if (model_.run(others, more, all) != classes_) return;
    } catch (const ModelError&) {
      return;
    }
    compare(answers, all, rows_, 2);
  }

  /// Every `step`-th of the first `count` rows was the same.
  void compare(const std::vector<float>& a, const std::vector<float>& b, std::size_t count,
               std::size_t step) const {
    for (std::size_t row = 0; row < count; row += step) {
      if (same(row_of(a, row), row_of(b, row))) continue;
      throw ModelError(fmt::format(
          "its answer for a session depends on the other sessions of the batch, as with a batch "
          "norm that was saved while training; {}",
          kInTraining));
    }
  }

  void note(const std::vector<float>& answers) {
    for (std::size_t i = 0; i < rows_; ++i) {
      const std::span<const float> row = row_of(answers, i);
      ++asked_;
      const auto [least, most] = std::ranges::minmax(row);
      const bool nan = std::ranges::any_of(row, [](float value) { return std::isnan(value); });
      if (nan || !std::isfinite(most)) {
        ++without_number_;
        continue;
      }
      if (is_distribution(row)) {
        ++distributions_;
      } else {
        odd_.assign(row.begin(), row.end());
      }
      double sum = 0;
      for (const float value : row) sum += std::exp(static_cast<double>(value));
      if (most <= 0 && std::abs(sum - 1) <= kSumTolerance) ++logarithms_;
      if (least >= 0 && most <= 1) ++shares_;
    }
  }

  void judge() {
    const std::size_t answered = asked_ - without_number_;
    if (answered == 0) {
      throw ModelError(fmt::format(
          "it gives no number (NaN or infinity) for any of {} made-up sessions", asked_));
    }
    if (without_number_ > 0) {
      warnings_.push_back(
          fmt::format("it gives no number (NaN or infinity) for {} of {} made-up sessions; such "
                      "sessions are 'unknown', and counted under not-a-number",
                      without_number_, asked_));
    }
    if (card_.probabilities) {
      if (distributions_ == answered) return;
      throw ModelError(fmt::format(
          "the card says output = \"probabilities\", but what it gives for a made-up session ({}) "
          "is none: expected numbers from 0 to 1 that make 1 together{}",
          shown(odd_),
          logarithms_ == answered
              ? "; these are logarithms of probabilities, for which output = \"logits\" is right"
              : ""));
    }
    if (classes_ < 2) return;
    if (distributions_ == answered) {
      throw ModelError(
          "what it gives is never negative and makes 1 together, so these are probabilities (there "
          "is a softmax in the model) and no logits; write output = \"probabilities\" into its "
          "card. (A softmax of them would never be sure)");
    }
    if (shares_ == answered) {
      const auto n = static_cast<double>(classes_);
      warnings_.push_back(fmt::format(
          "all that it gives is between 0 and 1, as of a sigmoid in the model. The card takes it "
          "for logits, with which no confidence can be above {:.3f}; expected logits, or with "
          "output = \"probabilities\" in the card numbers that make 1 together",
          std::exp(1.0) / (std::exp(1.0) + n - 1)));
    }
  }

  static std::string shown(std::span<const float> values) {
    constexpr std::size_t kMost = 4;
    std::string text;
    for (const float value : values.first(std::min(values.size(), kMost))) {
      text += fmt::format("{}{:.4g}", text.empty() ? "" : ", ", value);
    }
    return values.size() > kMost ? text + ", ..." : text;
  }

  Model& model_;
  const Card& card_;
  std::size_t rows_;
  std::size_t classes_;
  std::vector<std::string> warnings_;
  std::vector<float> odd_;  ///< an answer that is no distribution
  // Of the made-up sessions: how many there were, and how many of their answers are what.
  std::size_t asked_ = 0;
  std::size_t without_number_ = 0;
  std::size_t distributions_ = 0;
  std::size_t logarithms_ = 0;
  std::size_t shares_ = 0;
};

}  // namespace

std::vector<std::string> try_model(Model& model, const Card& card, std::size_t rows) {
  return Trial(model, card, rows).run();
}

}  // namespace millrace
