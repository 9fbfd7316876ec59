#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/error.h"
#include "millrace/session.h"

#include "card.h"

namespace millrace {

// What is said between this plugin and a service; README.md describes it for those who write one.

/// A session that a service is asked about.
struct Question {
  SessionId session{};
  std::span<const std::uint8_t> features;
};

/// The JSON of a request.
[[nodiscard]] std::string write_request(const Card& card, std::span<const Question> questions);

/// What a service says of one session.
struct Opinion {
  enum class Kind : std::uint8_t { none, logits, probabilities, label };
  Kind kind = Kind::none;
  std::vector<float> values{};  ///< logits or probabilities, one for each label
  std::size_t index = 0;        ///< of the label
  float confidence = 0;         ///< of the label
};

/// An answer that is not what was asked for. It says what was expected.
class MILLRACE_EXPORT BadAnswer : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class AnswerReader {
 public:
  /// With `all_classes` an answer must hold something about every class.
  AnswerReader(const Card& card, bool all_classes);

  /// One opinion for each of `count` questions. Throws BadAnswer.
  [[nodiscard]] std::vector<Opinion> read(std::string_view json, std::size_t count) const;

 private:
  class Reader;

  std::vector<std::string> labels_;
  std::map<std::string, std::size_t, std::less<>> index_;
  bool all_classes_;
};

}  // namespace millrace
