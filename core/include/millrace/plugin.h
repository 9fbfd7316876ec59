#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "millrace/abi.h"
#include "millrace/batch.h"
#include "millrace/context.h"
#include "millrace/option.h"
#include "millrace/provider.h"
#include "millrace/stage.h"

namespace millrace {

/// A queue is a hand-over from one part of a pipeline to the next, often through a broker: a sink
/// that takes items in and a source that gives them out again, under one name and with the same
/// options. A provider is no stage of a pipeline: `[config]` names it, and the supervisor runs it.
enum class StageKind : std::uint8_t { source, transform, sink, queue, provider };

/// What a stage's own check found wrong with options that are each valid alone. Used by `check` and
/// before every start, so nothing here may touch the network or need a secret.
class Findings {
 public:
  struct Finding {
    std::string option;  ///< empty: the stage as a whole
    std::string message;
  };
  Findings() = default;
  explicit Findings(std::filesystem::path data_folder) : data_folder_(std::move(data_folder)) {}

  /// For a probe: as Context::find_file.
  [[nodiscard]] std::filesystem::path find_file(const std::filesystem::path& path) const {
    return millrace::find_file(path, data_folder_);
  }
  void add(std::string option, std::string message) {
    list_.push_back({std::move(option), std::move(message)});
  }
  [[nodiscard]] const std::vector<Finding>& list() const noexcept { return list_; }

 private:
  std::vector<Finding> list_;
  std::filesystem::path data_folder_;
};

/// A further item type that a stage takes, and how a batch of it becomes one of the stage's own.
struct InputAdapter {
  const ItemType* from = nullptr;
  std::function<BoxedBatch(BatchBase&)> convert;
};

/// Everything the host knows of a stage. Made by `source`, `transform`, `sink`, `queue` and
/// `provider`.
struct StageDescriptor {
  std::string name;
  std::string help;
  StageKind kind = StageKind::source;
  const ItemType* input = nullptr;   ///< null for a source
  const ItemType* output = nullptr;  ///< null for a sink
  std::vector<InputAdapter> adapters;
  std::vector<OptionSpec> options;
  std::string single_reason;    ///< not empty: `workers` must be 1, because of this
  bool counts_handled = false;  ///< the stage reports Context::handled itself
  std::function<std::shared_ptr<void>()> new_options;
  using Create = std::function<std::unique_ptr<Stage>(const void* options)>;
  Create create;             ///< of a queue: the half that takes items in
  Create create_output;      ///< only of a queue: the half that gives items out
  std::string whole_reason;  ///< not empty: `--stages` must not cut this queue, because of this
  std::function<void(const void* options, Findings&)> check;
  std::function<void(const void* options, Findings&)> probe;
  std::function<std::unique_ptr<ConfigProvider>(const void* options)> create_provider;

  /// The stage keeps state over all items, so one instance must see all of them.
  StageDescriptor&& single(std::string reason) && {
    single_reason = std::move(reason);
    return std::move(*this);
  }
  /// Several inputs go into one output, at another time: the stage calls Context::handled.
  StageDescriptor&& aggregates() && {
    counts_handled = true;
    return std::move(*this);
  }
  /// A queue that `--stages` cannot cut.
  StageDescriptor&& whole(std::string reason) && {
    whole_reason = std::move(reason);
    return std::move(*this);
  }
  /// `convert` moves the content of its argument into the batch it returns.
  template <class Other, class In>
  StageDescriptor&& accepts(Batch<In> (*convert)(Batch<Other>&)) && {
    adapters.push_back({&item_type<Other>(), [convert](BatchBase& from) {
                          return BoxedBatch(
                              new Batch<In>(convert(static_cast<Batch<Other>&>(from))));
                        }});
    return std::move(*this);
  }
  /// `check` looks at the options together; see Findings.
  template <class Options>
  StageDescriptor&& checked(void (*function)(const Options&, Findings&)) && {
    check = [function](const void* values, Findings& findings) {
      function(*static_cast<const Options*>(values), findings);
    };
    return std::move(*this);
  }
  /// `probe` looks whether the options can work on this machine at this moment (an interface that
  /// exists, a filter that compiles), beside an instance of the stage that may be running, and
  /// changes nothing. It runs only after `check` found nothing.
  template <class Options>
  StageDescriptor&& probed(void (*function)(const Options&, Findings&)) && {
    probe = [function](const void* values, Findings& findings) {
      function(*static_cast<const Options*>(values), findings);
    };
    return std::move(*this);
  }
};

/// What a plugin offers, behind its head.
struct PluginBody {
  std::vector<StageDescriptor> stages;
};

struct NoOptions {};

namespace detail {

template <class S, class Options>
StageDescriptor::Create creator() {
  return [](const void* values) -> std::unique_ptr<Stage> {
    if constexpr (std::constructible_from<S, const Options&>) {
      return std::make_unique<S>(*static_cast<const Options*>(values));
    } else {
      return std::make_unique<S>();
    }
  };
}

template <class S, class Options, class... Specs>
StageDescriptor describe_stage(StageKind kind, std::string name, std::string help,
                               Specs&&... options) {
  StageDescriptor stage;
  stage.name = std::move(name);
  stage.help = std::move(help);
  stage.kind = kind;
  if constexpr (requires { typename S::input_type; }) {
    stage.input = &item_type<typename S::input_type>();
  }
  if constexpr (requires { typename S::output_type; }) {
    stage.output = &item_type<typename S::output_type>();
  }
  stage.new_options = [] { return std::make_shared<Options>(); };
  stage.create = creator<S, Options>();
  (stage.options.push_back(OptionSpec(std::forward<Specs>(options))), ...);
  return stage;
}

}  // namespace detail

/// `S` is a Source, constructed from `const Options&` (or without arguments).
template <class S, class Options = NoOptions, class... Specs>
StageDescriptor source(std::string name, std::string help, Specs&&... options) {
  static_assert(std::derived_from<S, Source<typename S::output_type>>);
  return detail::describe_stage<S, Options>(StageKind::source, std::move(name), std::move(help),
                                            std::forward<Specs>(options)...);
}
template <class S, class Options = NoOptions, class... Specs>
StageDescriptor transform(std::string name, std::string help, Specs&&... options) {
  static_assert(std::derived_from<S, Transform<typename S::input_type, typename S::output_type>>);
  return detail::describe_stage<S, Options>(StageKind::transform, std::move(name), std::move(help),
                                            std::forward<Specs>(options)...);
}
template <class S, class Options = NoOptions, class... Specs>
StageDescriptor sink(std::string name, std::string help, Specs&&... options) {
  static_assert(std::derived_from<S, Sink<typename S::input_type>>);
  return detail::describe_stage<S, Options>(StageKind::sink, std::move(name), std::move(help),
                                            std::forward<Specs>(options)...);
}
/// `In` is a Sink and `Out` a Source of the same items, each with an instance of its own; in one
/// process they meet through Context::shared if they have to. The source must give on, or keep safe
/// beyond the process, everything that the sink has acknowledged. Where both are in one process,
/// `Out::run` is asked to stop together with the other sources, and `In::flush` may come after
/// that: a queue that keeps its items in memory goes on until both have happened.
template <class In, class Out, class Options = NoOptions, class... Specs>
StageDescriptor queue(std::string name, std::string help, Specs&&... options) {
  using Item = typename In::input_type;
  static_assert(std::derived_from<In, Sink<Item>>);
  static_assert(std::derived_from<Out, Source<Item>>);
  StageDescriptor stage = detail::describe_stage<In, Options>(
      StageKind::queue, std::move(name), std::move(help), std::forward<Specs>(options)...);
  stage.output = &item_type<Item>();
  stage.create_output = detail::creator<Out, Options>();
  return stage;
}

/// `P` is a ConfigProvider, constructed from `const Options&` (or without arguments).
template <class P, class Options = NoOptions, class... Specs>
StageDescriptor provider(std::string name, std::string help, Specs&&... options) {
  static_assert(std::derived_from<P, ConfigProvider>);
  StageDescriptor made;
  made.name = std::move(name);
  made.help = std::move(help);
  made.kind = StageKind::provider;
  made.new_options = [] { return std::make_shared<Options>(); };
  made.create_provider = [](const void* values) -> std::unique_ptr<ConfigProvider> {
    if constexpr (std::constructible_from<P, const Options&>) {
      return std::make_unique<P>(*static_cast<const Options*>(values));
    } else {
      return std::make_unique<P>();
    }
  };
  (made.options.push_back(OptionSpec(std::forward<Specs>(options))), ...);
  return made;
}

}  // namespace millrace

/// Once in a plugin: its name, its version, its stages. The first stage usually bears the plugin's
/// name. Exports `millrace_plugin`, see abi.h.
#define MILLRACE_PLUGIN(plugin_name, plugin_version, ...)                           \
  static const ::millrace::PluginBody& millrace_plugin_body();                      \
  extern "C" MILLRACE_EXPORT const ::millrace::PluginHead millrace_plugin;          \
  const ::millrace::PluginHead millrace_plugin = {                                  \
      MILLRACE_PLUGIN_MAGIC, sizeof(::millrace::PluginHead), ::millrace::kAbiMajor, \
      ::millrace::kAbiMinor, MILLRACE_FINGERPRINT,           plugin_name,           \
      plugin_version,        &millrace_plugin_body,          MILLRACE_VERSION};     \
  static const ::millrace::PluginBody& millrace_plugin_body() {                     \
    static const ::millrace::PluginBody body{{__VA_ARGS__}};                        \
    return body;                                                                    \
  }
