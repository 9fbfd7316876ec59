#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "millrace/time.h"

namespace millrace {

/// A value as a pipeline file gives it, without the file's syntax.
struct OptionMember;
struct OptionValue {
  using List = std::vector<OptionValue>;
  using Table = std::vector<OptionMember>;
  std::variant<bool, std::int64_t, double, std::string, List, Table> value;
};
struct OptionMember {
  std::string name;
  OptionValue value;
};

/// Why a value cannot be taken.
struct OptionError {
  std::string expected;  ///< completes "expected ..."
  std::string meant;     ///< the nearest valid value, or empty
};

/// One option of a stage: what `check` validates, `millrace plugins NAME` prints and the plugin's
/// README lists. Made by `option`.
struct OptionSpec {
  std::string name;
  std::string help;
  std::string type;           ///< "integer", "text", "duration", "size", ...
  std::string default_value;  ///< in the pipeline file's syntax; empty if there is none
  std::string bounds;         ///< "1 to 65535", or empty
  std::vector<std::string> choices;
  bool required = false;
  bool secret = false;  ///< never printed
  /// Puts `value` into the options struct at `options`, or says why not.
  std::function<std::optional<OptionError>(void* options, const OptionValue& value)> assign;
};

/// The valid name nearest to `name`, or empty if none is near (Damerau-Levenshtein distance of at
/// most a third of the length) or it has less than three letters.
[[nodiscard]] std::string nearest(std::string_view name, const std::vector<std::string>& names);

namespace detail {

// Each overload reads one kind of member; `type` and `print` describe it.
std::optional<OptionError> read(const OptionValue& from, bool& to);
std::optional<OptionError> read(const OptionValue& from, double& to);
std::optional<OptionError> read(const OptionValue& from, std::string& to);
std::optional<OptionError> read(const OptionValue& from, Duration& to);
std::optional<OptionError> read(const OptionValue& from, ByteSize& to);
std::optional<OptionError> read(const OptionValue& from, std::vector<std::string>& to);
std::optional<OptionError> read(const OptionValue& from, std::map<std::string, std::string>& to);
std::optional<OptionError> read_integer(const OptionValue& from, std::int64_t low,
                                        std::uint64_t high, std::int64_t& to);

std::string print(bool value);
std::string print(double value);
std::string print(const std::string& value);
std::string print(Duration value);
std::string print(ByteSize value);
std::string print(const std::vector<std::string>& value);
std::string print(const std::map<std::string, std::string>& value);

template <class T>
concept PlainInteger = std::integral<T> && !std::same_as<T, bool>;

template <PlainInteger T>
std::optional<OptionError> read(const OptionValue& from, T& to) {
  std::int64_t value = 0;
  constexpr auto kHigh = static_cast<std::uint64_t>(std::numeric_limits<T>::max());
  auto error =
      read_integer(from, static_cast<std::int64_t>(std::numeric_limits<T>::min()), kHigh, value);
  if (!error) to = static_cast<T>(value);
  return error;
}
template <PlainInteger T>
std::string print(T value) {
  return std::to_string(value);
}

template <class T>
std::optional<OptionError> read(const OptionValue& from, std::optional<T>& to) {
  T value{};
  auto error = read(from, value);
  if (!error) to = std::move(value);
  return error;
}
template <class T>
std::string print(const std::optional<T>& value) {
  return value ? print(*value) : std::string();
}

template <class T>
constexpr std::string_view type_name() {
  if constexpr (std::same_as<T, bool>)
    return "true or false";
  else if constexpr (std::integral<T>)
    return "integer";
  else if constexpr (std::floating_point<T>)
    return "number";
  else if constexpr (std::same_as<T, std::string>)
    return "text";
  else if constexpr (std::same_as<T, Duration>)
    return "duration";
  else if constexpr (std::same_as<T, ByteSize>)
    return "size";
  else if constexpr (std::same_as<T, std::vector<std::string>>)
    return "text or list of texts";
  else if constexpr (std::same_as<T, std::map<std::string, std::string>>)
    return "table of texts";
  else if constexpr (std::is_enum_v<T>)
    return "one of";
  else
    return type_name<typename T::value_type>();  // std::optional
}

template <class Member>
struct MemberOf;
template <class S, class T>
struct MemberOf<T S::*> {
  using Struct = S;
  using Type = T;
};

template <class T>
struct Plain {
  using type = T;
};
template <class T>
struct Plain<std::optional<T>> {
  using type = T;
};

}  // namespace detail

/// Binds an option to the member `M` of an options struct; the struct's initialiser is the default.
/// Members may be bool, integers, double, std::string, Duration, ByteSize, an enumeration (with
/// `choices`), a vector or map of std::string, or std::optional of these (no default).
template <auto M>
class Option {
  using Struct = typename detail::MemberOf<decltype(M)>::Struct;
  using Type = typename detail::MemberOf<decltype(M)>::Type;
  using Plain = typename detail::Plain<Type>::type;

 public:
  Option(std::string name, std::string help) {
    spec_.name = std::move(name);
    spec_.help = std::move(help);
    spec_.type = std::string(detail::type_name<Type>());
    if constexpr (!std::is_enum_v<Plain>) {
      spec_.default_value = detail::print(Struct{}.*M);
      spec_.assign = [](void* options, const OptionValue& value) {
        return detail::read(value, static_cast<Struct*>(options)->*M);
      };
    }
  }

  Option&& required() && {
    spec_.required = true;
    spec_.default_value.clear();
    return std::move(*this);
  }
  /// Its value is never printed.
  Option&& secret() && {
    spec_.secret = true;
    return std::move(*this);
  }
  Option&& between(Plain low, Plain high) && {
    return std::move(*this).bounded(detail::print(low) + " to " + detail::print(high),
                                    [=](const Plain& v) { return low <= v && v <= high; });
  }
  Option&& at_least(Plain low) && {
    return std::move(*this).bounded("at least " + detail::print(low),
                                    [=](const Plain& v) { return low <= v; });
  }

  /// The names of an enumeration's values.
  Option&& choices(std::vector<std::pair<std::string, Plain>> values) && requires
      std::is_enum_v<Plain> {
    for (const auto& [name, value] : values) {
      spec_.choices.push_back(name);
      if (Struct{}.*M == value) spec_.default_value = detail::print(name);
    }
    spec_.assign = [values = std::move(values), names = spec_.choices](
                       void* options, const OptionValue& from) -> std::optional<OptionError> {
      std::string name;
      std::string expected;
      for (const auto& choice : names)
        expected += (expected.empty() ? "\"" : ", \"") + choice + '"';
      if (detail::read(from, name)) return OptionError{"one of " + expected, ""};
      for (const auto& [known, value] : values) {
        if (known != name) continue;
        static_cast<Struct*>(options)->*M = value;
        return std::nullopt;
      }
      return OptionError{"one of " + expected, nearest(name, names)};
    };
    return std::move(*this);
  }

  // NOLINTNEXTLINE(google-explicit-constructor): lets a stage list its options without ceremony
  operator OptionSpec() && { return std::move(spec_); }

 private:
  Option&& bounded(std::string bounds, std::function<bool(const Plain&)> holds) && {
    spec_.bounds = bounds;
    spec_.assign = [inner = std::move(spec_.assign), bounds = std::move(bounds),
                    holds = std::move(holds)](
                       void* options, const OptionValue& value) -> std::optional<OptionError> {
      Struct trial = *static_cast<Struct*>(options);
      if (auto error = inner(&trial, value)) {
        error->expected += ", " + bounds;
        return error;
      }
      Plain read{};
      if constexpr (std::same_as<Type, Plain>)
        read = trial.*M;
      else
        read = *(trial.*M);
      if (!holds(read)) return OptionError{bounds, ""};
      static_cast<Struct*>(options)->*M = trial.*M;
      return std::nullopt;
    };
    return std::move(*this);
  }

  OptionSpec spec_;
};

template <auto M>
[[nodiscard]] Option<M> option(std::string name, std::string help) {
  return Option<M>(std::move(name), std::move(help));
}

}  // namespace millrace
