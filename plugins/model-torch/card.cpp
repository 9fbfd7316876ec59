#include "card.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <fstream>
#include <numeric>
#include <optional>
#include <set>
#include <sstream>

#include <fmt/format.h>

#define TOML_EXCEPTIONS 1
#include <toml++/toml.h>

#include "millrace/option.h"
#include "millrace/text_depth.h"

namespace millrace {

namespace {

class CardReader {
 public:
  explicit CardReader(const std::filesystem::path& file) : file_(file.string()) {}

  Card read() {
    toml::table root;
    std::ifstream in(file_, std::ios::binary);
    std::stringstream content;
    if (!in || !(content << in.rdbuf())) {
      throw std::runtime_error(fmt::format("cannot read '{}'", file_));
    }
    const std::string source = std::move(content).str();
    if (const auto fault = toml_fault(source)) {
      throw std::runtime_error(
          fmt::format("{}:{}:{}: {}", file_, fault->line, fault->column, fault->message));
    }
    try {
      root = toml::parse(source, file_);
    } catch (const toml::parse_error& error) {
      wrong(error.source(), std::string(error.description()));
      throw std::runtime_error(errors_);
    }
    // Tables beyond these are for people.
    know(root, "the card",
         {"name", "version", "about", "labels", "min_confidence", "output", "sha256", "input",
          "training", "accuracy", "calibration"});
    Card card;
    text(root, "name", card.name);
    text(root, "version", card.version);
    labels(root, card);
    if (auto value = number(root, "min_confidence", false)) {
      card.min_confidence = *value;
      if (!(*value >= 0 && *value <= 1))
        wrong(root["min_confidence"], "'min_confidence' is a probability, 0 to 1");
    }
    if (root.get("output") != nullptr) {
      card.probabilities = choice(root, "output", {"logits", "probabilities"}) == "probabilities";
    }
    if (root.get("sha256") != nullptr) checksum(root, card);
    if (const toml::table* input = root["input"].as_table()) {
      read_input(*input, card);
    } else {
      wrong(root.source(),
            "the section [input] is missing; expected bytes, layer, dtype and shape in it");
    }
    if (!errors_.empty()) throw std::runtime_error(errors_);
    return card;
  }

 private:
  static constexpr std::int64_t kMostBytes = 1 << 20;

  void read_input(const toml::table& input, Card& card) {
    know(input, "[input]",
         {"bytes", "layer", "dtype", "scale", "shape", "padding", "min_payload", "fragments"});
    card.features.bytes =
        static_cast<std::uint32_t>(whole(input, "bytes", 1, kMostBytes, std::nullopt));
    card.features.padding = static_cast<std::uint8_t>(whole(input, "padding", 0, 255, 0));
    card.features.min_payload =
        static_cast<std::uint32_t>(whole(input, "min_payload", 0, 65535, 1));
    const std::string layer = choice(input, "layer", {"l7", "l4", "l2"});
    card.features.layer = layer == "l2" ? Layer::l2 : layer == "l4" ? Layer::l4 : Layer::l7;
    card.tensor.floating = choice(input, "dtype", {"uint8", "float32"}) == "float32";
    if (const toml::node* fragments = input.get("fragments")) {
      if (!fragments->is_boolean()) wrong(*fragments, "'fragments' is true or false");
      card.features.fragments = fragments->value_or(true);
    }
    if (auto scale = number(input, "scale", false)) {
      card.tensor.scale = static_cast<float>(*scale);
      if (!std::isfinite(card.tensor.scale) || card.tensor.scale == 0) {
        wrong(input["scale"], "'scale' is a finite number other than 0");
      } else if (!card.tensor.floating && *scale != 1) {
        wrong(input["scale"], "'scale' is only for the dtype float32");
      }
    }
    shape(input, card);
  }

  void shape(const toml::table& input, Card& card) {
    const toml::array* list = input["shape"].as_array();
    if (list == nullptr) {
      wrong(input.get("shape") != nullptr ? *input.get("shape")
                                          : static_cast<const toml::node&>(input),
            "[input] needs 'shape', the dimensions of one session, such as [784] or [1, 28, 28]");
      return;
    }
    std::int64_t product = 1;
    for (const toml::node& size : *list) {
      card.tensor.shape.push_back(size.value_exact<std::int64_t>().value_or(0));
      if (card.tensor.shape.back() < 1)
        return wrong(size, "a dimension is an integer of at least 1");
      if (card.tensor.shape.back() > kMostBytes / product)
        return wrong(*list, fmt::format("'shape' has more than {} elements", kMostBytes));
      product *= card.tensor.shape.back();
    }
    if (product != card.features.bytes && card.features.bytes != 0) {
      wrong(*list, fmt::format("'shape' has {} elements, but 'bytes' is {}", product,
                               card.features.bytes));
    }
  }

  void labels(const toml::table& root, Card& card) {
    const toml::array* list = root["labels"].as_array();
    if (list == nullptr || list->empty()) {
      wrong(root.get("labels") != nullptr ? *root.get("labels")
                                          : static_cast<const toml::node&>(root),
            "'labels' must list the names of the classes, in the order of the model's output");
      return;
    }
    std::set<std::string> seen;
    for (const toml::node& label : *list) {
      const auto name = label.value<std::string>();
      if (!name || name->empty()) {
        wrong(label, "a label is a text that is not empty");
      } else if (!seen.insert(*name).second) {
        wrong(label, fmt::format("the label '{}' stands twice", *name));
      }
      card.labels.push_back(name.value_or(""));
    }
  }

  void checksum(const toml::table& root, Card& card) {
    text(root, "sha256", card.sha256);
    std::ranges::transform(card.sha256, card.sha256.begin(),
                           [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    constexpr std::size_t kDigits = 64;
    if (card.sha256.size() != kDigits ||
        card.sha256.find_first_not_of("0123456789abcdef") != std::string::npos) {
      wrong(root["sha256"],
            "'sha256' is the checksum of the model's file, 64 hexadecimal digits, as sha256sum "
            "prints it");
    }
  }

  void text(const toml::table& table, const char* key, std::string& to) {
    const toml::node* node = table.get(key);
    if (node == nullptr) {
      wrong(table, fmt::format("'{}' is missing", key));
    } else if (!node->is_string()) {
      wrong(*node, fmt::format("'{}' is a text in quotes", key));
    } else {
      to = node->value_or(std::string());
    }
  }

  std::optional<double> number(const toml::table& table, const char* key, bool required) {
    const toml::node* node = table.get(key);
    if (node == nullptr) {
      if (required) wrong(table, fmt::format("'{}' is missing", key));
      return std::nullopt;
    }
    if (!node->is_number()) {
      wrong(*node, fmt::format("'{}' is a number", key));
      return std::nullopt;
    }
    return node->value_or(0.0);
  }

  std::int64_t whole(const toml::table& table, const char* key, std::int64_t low, std::int64_t high,
                     std::optional<std::int64_t> otherwise) {
    const toml::node* node = table.get(key);
    if (node == nullptr) {
      if (!otherwise) wrong(table, fmt::format("'{}' is missing", key));
      return otherwise.value_or(0);
    }
    const auto value = node->value_exact<std::int64_t>();
    if (!value || *value < low || *value > high) {
      wrong(*node, fmt::format("'{}' is an integer from {} to {}", key, low, high));
      return 0;
    }
    return *value;
  }

  std::string choice(const toml::table& table, const char* key,
                     const std::vector<std::string>& names) {
    const toml::node* node = table.get(key);
    std::string value = node != nullptr ? node->value_or(std::string()) : std::string();
    if (std::ranges::find(names, value) != names.end()) return value;
    std::string list;
    for (const auto& name : names) list += (list.empty() ? "" : ", ") + name;
    const std::string meant = nearest(value, names);
    wrong(node != nullptr ? *node : static_cast<const toml::node&>(table),
          fmt::format("'{}' is one of {}{}", key, list,
                      meant.empty() ? "" : fmt::format("; did you mean '{}'?", meant)));
    return names.front();
  }

  void know(const toml::table& table, const char* owner, const std::vector<std::string>& names) {
    for (const auto& [key, node] : table) {
      const std::string name(key.str());
      if (std::ranges::find(names, name) != names.end()) continue;
      const std::string meant = nearest(name, names);
      wrong(key.source(),
            fmt::format("{} has no '{}'{}", owner, name,
                        meant.empty() ? "" : fmt::format("; did you mean '{}'?", meant)));
    }
  }

  void wrong(const toml::source_region& at, const std::string& message) {
    errors_ += fmt::format("{}{}:{}:{}: {}", errors_.empty() ? "" : "\n", file_, at.begin.line,
                           at.begin.column, message);
  }
  void wrong(const toml::node& at, const std::string& message) { wrong(at.source(), message); }
  void wrong(const toml::node_view<const toml::node>& at, const std::string& message) {
    wrong(*at.node(), message);
  }
  void wrong(const toml::node_view<toml::node>& at, const std::string& message) {
    wrong(*at.node(), message);
  }

  std::string file_;
  std::string errors_;
};

}  // namespace

Card read_card(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::exists(file, error)) {
    throw std::runtime_error(
        fmt::format("there is no card '{}'; a model's card lies beside it", file.string()));
  }
  return CardReader(file).read();
}

std::filesystem::path card_file(const std::filesystem::path& model, const std::string& card) {
  if (!card.empty()) return card;
  return std::filesystem::path(model).replace_extension(".toml");
}

std::string card_option(const std::string& card) { return card.empty() ? "model" : "card"; }

void check_card(const std::string& model, const std::string& card, Findings& findings) {
  try {
    (void)read_card(card_file(model, card));
  } catch (const std::exception& problem) {
    findings.add(card_option(card), problem.what());
  }
}

Card load_card(const std::filesystem::path& file, const std::string& option) {
  try {
    return read_card(file);
  } catch (const std::exception& problem) {
    throw ConfigError(option, problem.what());
  }
}

}  // namespace millrace
