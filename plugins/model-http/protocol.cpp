#include "protocol.h"

#include <cmath>
#include <limits>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "millrace/json.h"
#include "millrace/option.h"

#include "labeller.h"

namespace millrace {

namespace {

using Json = nlohmann::json;

constexpr std::string_view kExpected = "; expected {\"verdicts\": [...]}";

/// The value for a message, cut off.
std::string shown(const Json& value) {
  constexpr std::size_t kMost = 60;
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > kMost) text = text.substr(0, kMost) + "...";
  return text;
}

Json parsed(std::string_view text) {
  // Ours has three levels. Far deeper ones would be too much for the stack when they are shown.
  constexpr int kDeepest = 16;
  const auto level = [](int depth, Json::parse_event_t, const Json&) {
    if (depth > kDeepest) throw BadAnswer("the answer is nested too deep" + std::string(kExpected));
    return true;
  };
  try {
    return Json::parse(text, level);
  } catch (const Json::exception& error) {
    std::string_view what = error.what();  // "[json.exception.parse_error.101] parse error at ..."
    what.remove_prefix(std::min(what.find(' ') + 1, what.size()));
    throw BadAnswer(fmt::format("the answer is no JSON: {}", what));
  }
}

}  // namespace

std::string write_request(const Card& card, std::span<const Question> questions) {
  std::string text;
  text.reserve(128 + questions.size() * (card.features.bytes / 3 * 4 + 80));
  json::Object request(text);
  request.member("model", card.name);
  request.member("version", card.version);
  std::string& list = request.key("sessions");
  list += '[';
  for (const Question& question : questions) {
    if (list.back() != '[') list += ',';
    json::Object object(list);
    object.member("session", to_hex(question.session));
    std::string& bytes = object.key("features");
    bytes += '"';
    json::append_base64(bytes, std::as_bytes(question.features));
    bytes += '"';
  }
  list += ']';
  return text;
}

AnswerReader::AnswerReader(const Card& card, bool all_classes)
    : labels_(card.labels), all_classes_(all_classes) {
  for (std::size_t i = 0; i < labels_.size(); ++i) index_.emplace(labels_[i], i);
}

/// Reads one verdict; `where` names it.
class AnswerReader::Reader {
 public:
  Reader(const AnswerReader& owner, const Json& verdict, std::size_t number)
      : owner_(owner), verdict_(verdict), where_(fmt::format("verdicts[{}]", number)) {}

  Opinion read() const {
    if (verdict_.is_null()) return {};
    if (!verdict_.is_object())
      wrong("", verdict_, "an object, or null where the model has no answer");
    const bool has_label = verdict_.contains("label");
    const bool has_logits = verdict_.contains("logits");
    const bool has_probabilities = verdict_.contains("probabilities");
    if (has_label + has_logits + has_probabilities != 1 || (has_label && owner_.all_classes_)) {
      wrong("", verdict_,
            owner_.all_classes_
                ? "'logits' or 'probabilities', because of the option 'probabilities'"
                : "one of 'label' (with 'confidence'), 'logits' and 'probabilities'");
    }
    if (has_logits) return {Opinion::Kind::logits, values("logits")};
    if (has_probabilities) return {Opinion::Kind::probabilities, probabilities()};
    return {Opinion::Kind::label, {}, label(), probability(".confidence", member("confidence"))};
  }

 private:
  [[noreturn]] void wrong(const std::string& part, const Json& value,
                          const std::string& expected) const {
    throw BadAnswer(fmt::format("{}{} is {}; expected {}", where_, part, shown(value), expected));
  }

  const Json& member(const char* name) const {
    static const Json kMissing;
    const auto found = verdict_.find(name);
    return found == verdict_.end() ? kMissing : *found;
  }

  std::size_t label() const {
    const Json& value = member("label");
    if (!value.is_string()) wrong(".label", value, "a label of the card, a text");
    const auto& name = value.get_ref<const std::string&>();
    const auto found = owner_.index_.find(name);
    if (found != owner_.index_.end()) return found->second;
    const std::string meant = nearest(name, owner_.labels_);
    wrong(".label", value,
          fmt::format("a label of the card{}",
                      meant.empty() ? "" : fmt::format("; did you mean '{}'?", meant)));
  }

  float number(const std::string& part, const Json& value) const {
    if (!value.is_number()) wrong(part, value, "a number");
    const auto read = value.get<double>();
    if (!(std::abs(read) <= static_cast<double>(std::numeric_limits<float>::max()))) {
      wrong(part, value, "a finite number of single precision");
    }
    return static_cast<float>(read);
  }

  float probability(const std::string& part, const Json& value) const {
    const float read = number(part, value);
    if (!(read >= 0 && read <= 1)) wrong(part, value, "a probability, 0 to 1");
    return read;
  }

  std::vector<float> values(const char* name) const {
    const Json& list = member(name);
    if (!list.is_array() || list.size() != owner_.labels_.size()) {
      wrong(fmt::format(".{}", name), list,
            fmt::format("a list of {} numbers, one for each label of the card{}",
                        owner_.labels_.size(),
                        list.is_array() ? fmt::format("; there are {}", list.size()) : ""));
    }
    std::vector<float> read;
    read.reserve(list.size());
    for (const Json& value : list) {
      read.push_back(number(fmt::format(".{}[{}]", name, read.size()), value));
    }
    return read;
  }

  std::vector<float> probabilities() const {
    std::vector<float> read = values("probabilities");
    const Json& list = member("probabilities");
    double sum = 0;
    for (std::size_t i = 0; i < read.size(); ++i) {
      sum += static_cast<double>(probability(fmt::format(".probabilities[{}]", i), list[i]));
    }
    if (std::abs(sum - 1) > kSumTolerance) {
      wrong(".probabilities", list,
            fmt::format("numbers that make 1 together; they make {:.3f}", sum));
    }
    return read;
  }

  const AnswerReader& owner_;
  const Json& verdict_;
  std::string where_;
};

std::vector<Opinion> AnswerReader::read(std::string_view text, std::size_t count) const {
  const Json answer = parsed(text);
  const auto list = answer.is_object() ? answer.find("verdicts") : answer.end();
  if (!answer.is_object() || list == answer.end() || !list->is_array()) {
    throw BadAnswer(fmt::format("the answer is {}{}", shown(answer), kExpected));
  }
  if (list->size() != count) {
    throw BadAnswer(fmt::format("the answer has {} verdicts; expected {}, one for each session",
                                list->size(), count));
  }
  std::vector<Opinion> opinions;
  opinions.reserve(count);
  for (const Json& verdict : *list) {
    opinions.push_back(Reader(*this, verdict, opinions.size()).read());
  }
  return opinions;
}

}  // namespace millrace
