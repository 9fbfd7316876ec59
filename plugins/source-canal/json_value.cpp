#include "json_value.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "millrace/json.h"

namespace millrace {

namespace {

constexpr std::size_t kDeepest = 64;

/// Builds the value. Its functions bear the names that the parser asks for, and return whether to
/// go on.
class Builder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return put(JsonValue()); }
  bool boolean(bool value) override {
    return put({JsonValue::Kind::boolean, value ? "true" : "false"});
  }
  bool number_integer(number_integer_t value) override {
    return put({JsonValue::Kind::number, fmt::format_int(value).str()});
  }
  bool number_unsigned(number_unsigned_t value) override {
    return put({JsonValue::Kind::number, fmt::format_int(value).str()});
  }
  // Also integers of more than 64 bits.
  bool number_float(number_float_t /*value*/, const string_t& text) override {
    return put({JsonValue::Kind::number, text});
  }
  bool string(string_t& value) override { return put({JsonValue::Kind::string, std::move(value)}); }
  bool binary(binary_t& /*value*/) override { return false; }
  bool start_object(std::size_t /*size*/) override { return begin(JsonValue::Kind::object); }
  bool start_array(std::size_t /*size*/) override { return begin(JsonValue::Kind::array); }
  bool end_object() override { return end(); }
  bool end_array() override { return end(); }
  bool key(string_t& name) override {
    open_.back().members.emplace_back(std::move(name), JsonValue());
    return true;
  }
  bool parse_error(std::size_t position, const std::string& /*last*/,
                   const nlohmann::detail::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error ...".
    const std::string_view text = error.what();
    const std::size_t reason = text.find(": ");
    problem_ = fmt::format("no JSON: at byte {}: {}", position,
                           text.substr(reason == std::string_view::npos ? 0 : reason + 2));
    return false;
  }

  JsonValue take() && { return std::move(root_); }
  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }

 private:
  bool put(JsonValue value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (open_.back().is(JsonValue::Kind::object)) {
      open_.back().members.back().second = std::move(value);
    } else {
      open_.back().elements.push_back(std::move(value));
    }
    return true;
  }
  bool begin(JsonValue::Kind kind) {
    if (open_.size() >= kDeepest) {
      problem_ = fmt::format("JSON is nested deeper than {} levels", kDeepest);
      return false;
    }
    open_.emplace_back(kind);
    return true;
  }
  bool end() {
    JsonValue value = std::move(open_.back());
    open_.pop_back();
    return put(std::move(value));
  }

  std::vector<JsonValue> open_;
  JsonValue root_;
  std::string problem_;
};

}  // namespace

std::string JsonValue::text() const {
  if (is(Kind::string) || is(Kind::number) || is(Kind::boolean)) return text_;
  std::string json;
  append(json);
  return json;
}

std::string_view JsonValue::string() const noexcept {
  return is(Kind::string) ? std::string_view(text_) : std::string_view();
}

const JsonValue& JsonValue::operator[](std::string_view name) const noexcept {
  static const JsonValue kNull;
  for (const auto& [member, value] : members) {
    if (member == name) return value;
  }
  return kNull;
}

void JsonValue::append(std::string& json) const {
  switch (kind_) {
    case Kind::null:
      json += "null";
      break;
    case Kind::boolean:
    case Kind::number:
      json += text_;
      break;
    case Kind::string:
      json::append_string(json, text_);
      break;
    case Kind::array:
      json += '[';
      for (const JsonValue& element : elements) {
        if (&element != &elements.front()) json += ',';
        element.append(json);
      }
      json += ']';
      break;
    case Kind::object: {
      json::Object object(json);
      for (const auto& [name, value] : members) value.append(object.key(name));
      break;
    }
  }
}

JsonValue parse_json(std::string_view text) {
  Builder builder;
  if (!nlohmann::json::sax_parse(text, &builder)) throw std::runtime_error(builder.problem());
  return std::move(builder).take();
}

}  // namespace millrace
