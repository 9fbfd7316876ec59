#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace millrace {

/// Gives the names of agents numbers, for as long as something in a table bears them. The empty
/// name is 0 for ever.
class Agents {
 public:
  Agents() { names_.emplace_back(); }

  /// Stays valid until `drop_unused`, and beyond it while it is used.
  std::uint32_t number(std::string_view name) {
    if (name.empty()) return 0;
    const auto [place, fresh] = numbers_.try_emplace(std::string(name), 0);
    if (fresh) {
      if (free_.empty()) {
        free_.push_back(static_cast<std::uint32_t>(names_.size()));
        names_.emplace_back();
      }
      place->second = free_.back();
      free_.pop_back();
      names_[place->second] = {&place->first, 0};
      fresh_.push_back(place->second);
    }
    return place->second;
  }
  [[nodiscard]] std::string_view name(std::uint32_t number) const {
    return number == 0 ? std::string_view() : *names_[number].text;
  }
  void use(std::uint32_t number) { ++names_[number].uses; }
  void unuse(std::uint32_t number) {
    if (--names_[number].uses == 0) fresh_.push_back(number);
  }
  void drop_unused() {
    for (const std::uint32_t number : fresh_) {
      Name& name = names_[number];
      if (number == 0 || name.uses != 0 || name.text == nullptr) continue;
      numbers_.erase(numbers_.find(*name.text));
      name.text = nullptr;
      free_.push_back(number);
    }
    fresh_.clear();
  }
  [[nodiscard]] std::size_t size() const { return numbers_.size(); }

 private:
  struct Name {
    const std::string* text = nullptr;  ///< the key in `numbers_`
    std::uint64_t uses = 0;
  };

  std::unordered_map<std::string, std::uint32_t> numbers_;
  std::vector<Name> names_;
  std::vector<std::uint32_t> free_;
  std::vector<std::uint32_t> fresh_;  ///< may be unused
};

}  // namespace millrace
