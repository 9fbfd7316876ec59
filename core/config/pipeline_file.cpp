#include "config/pipeline_file.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include <fmt/format.h>

#include "config/toml.h"

namespace millrace::host {

const std::vector<OptionSpec>& host_option_specs() {
  static const std::vector<OptionSpec> kSpecs = [] {
    std::vector<OptionSpec> list;
    list.push_back(option<&HostOptions::workers>(
                       "workers",
                       "instances of the stage that run beside each other, each in a "
                       "thread of its own; the order of items is kept")
                       .between(1, 256));
    list.push_back(option<&HostOptions::required>(
        "required",
        "whether an item counts as delivered only when this branch has taken it; false "
        "gives the branch a queue and lets the others go on when it fails"));
    list.push_back(option<&HostOptions::retry_for>(
                       "retry_for", "how long a call that fails for a passing reason is repeated")
                       .at_least(Duration(0)));
    return list;
  }();
  return kSpecs;
}

const std::vector<OptionSpec>& queue_option_specs() {
  static const std::vector<OptionSpec> kSpecs = [] {
    std::vector<OptionSpec> list;
    list.push_back(
        option<&QueueOptions::batches>("batches", "batches that may wait").between(1, 1U << 20U));
    list.push_back(option<&QueueOptions::bytes>("bytes",
                                                "bytes that the waiting batches may hold; a single "
                                                "larger batch still passes")
                       .at_least(ByteSize{1}));
    list.push_back(option<&QueueOptions::when_full>(
                       "when_full", "what happens to a batch that finds the queue full")
                       .choices({{"block", WhenFull::block},
                                 {"drop-newest", WhenFull::drop_newest},
                                 {"drop-oldest", WhenFull::drop_oldest}}));
    return list;
  }();
  return kSpecs;
}

const std::vector<std::string>& host_key_names() {
  static const std::vector<std::string> kKeys = {"use",      "from",      "workers",  "queue",
                                                 "required", "retry_for", "on_reject"};
  return kKeys;
}

namespace {

bool is_stage_name(std::string_view name) {
  return !name.empty() && std::ranges::all_of(name, [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '-';
  });
}

class Reader {
 public:
  explicit Reader(Report& report) : report_(report) {}

  PipelineSpec read(TomlDocument document) {
    pipeline_.syntax_errors = document.syntax_errors;
    pipeline_.left_out = std::move(document.left_out);
    for (ConfigEntry& entry : document.root) {
      if (entry.key == "pipeline") {
        read_head(entry);
      } else if (entry.key == "stage") {
        read_stages(entry);
      } else if (entry.key == "config") {
        read_config(entry);
      } else {
        report_.add(entry.key_at, fmt::format("'{}' has no meaning here", entry.key),
                    "[pipeline], [config] or [stage.NAME]",
                    nearest(entry.key, {"pipeline", "stage", "config"}));
      }
    }
    if (pipeline_.stages.empty() && !pipeline_.syntax_errors && !stages_failed_) {
      report_.add({}, "the file has no stages", "at least one [stage.NAME] section");
    }
    return std::move(pipeline_);
  }

 private:
  void read_head(const ConfigEntry& head) {
    const auto* table = head.value.table();
    if (table == nullptr) {
      report_.add(head.value.at, "'pipeline' is " + std::string(kind_of(head.value)),
                  "a section [pipeline]");
      return;
    }
    for (const ConfigEntry& entry : *table) {
      if (entry.key != "name" && entry.key != "about") {
        report_.add(entry.key_at, fmt::format("[pipeline] has no key '{}'", entry.key),
                    "name or about", nearest(entry.key, {"name", "about"}));
      } else if (entry.value.text() == nullptr) {
        report_.add(entry.value.at, fmt::format("'{}' is {}", entry.key, kind_of(entry.value)),
                    "a text in quotes");
      } else {
        (entry.key == "name" ? pipeline_.name : pipeline_.about) = *entry.value.text();
      }
    }
  }

  void read_config(ConfigEntry& entry) {
    auto* table = entry.value.table();
    if (table == nullptr) {
      report_.add(entry.value.at, "'config' is " + std::string(kind_of(entry.value)),
                  "a section [config]");
      return;
    }
    StageSpec config;
    config.name = "config";
    config.at = entry.key_at;
    for (ConfigEntry& key : *table) {
      if (key.key == "use") {
        read_use(key.value, config, R"("plugin" or "plugin.provider")");
      } else {
        config.options.push_back(std::move(key));
      }
    }
    if (find(*table, "use") == nullptr && !pipeline_.syntax_errors) {
      report_.add(config.at, "[config] does not say which plugin it uses",
                  R"(use = "config-zk" or another config provider)");
    }
    take_options_of_plugin(config);
    pipeline_.config = std::move(config);
  }

  /// Sections named after a plugin ([stage.NAME.PLUGIN]) hold what only that plugin takes, so that
  /// `use` can be changed alone: those of the plugin in use become the stage's options, except
  /// where the stage says them itself; the others are left out. A plugin's name is told from an
  /// option's by its hyphen.
  void take_options_of_plugin(StageSpec& stage) {
    const std::string plugin = stage.use.substr(0, stage.use.find('.'));
    ConfigValue::Table own;
    ConfigValue::Table of_plugin;
    for (ConfigEntry& entry : stage.options) {
      ConfigValue::Table* section =
          entry.key.find('-') == std::string::npos ? nullptr : entry.value.table();
      if (section == nullptr) {
        own.push_back(std::move(entry));
      } else if (entry.key == plugin) {
        std::ranges::move(*section, std::back_inserter(of_plugin));
      } else {
        stage.unused.push_back({entry.key, entry.key_at});
        hide(entry.value, report_);  // which of its options are secret, nobody asks its plugin
      }
    }
    std::set<std::string> said;
    for (const ConfigEntry& entry : own) said.insert(entry.key);
    for (ConfigEntry& entry : of_plugin) {
      if (!said.contains(entry.key)) own.push_back(std::move(entry));
    }
    stage.options = std::move(own);
  }

  void read_use(const ConfigValue& value, StageSpec& stage, const char* expected) {
    stage.use_at = value.at;
    if (value.unresolved) return;
    if (value.text() == nullptr) {
      report_.add(value.at, fmt::format("'use' is {}", kind_of(value)), expected);
    } else {
      stage.use = *value.text();
    }
  }

  void read_stages(ConfigEntry& stages) {
    auto* table = stages.value.table();
    if (table == nullptr) {
      report_.add(stages.value.at, "'stage' is " + std::string(kind_of(stages.value)),
                  "sections [stage.NAME]");
      stages_failed_ = true;
      return;
    }
    for (ConfigEntry& entry : *table) {
      auto* keys = entry.value.table();
      if (keys == nullptr) {
        report_.add(entry.key_at, fmt::format("stage '{}' is {}", entry.key, kind_of(entry.value)),
                    fmt::format("a section [stage.{}]", entry.key));
        stages_failed_ = true;
      } else if (!is_stage_name(entry.key)) {
        report_.add(entry.key_at, fmt::format("'{}' cannot be a stage's name", entry.key),
                    "letters, digits, '-' and '_'");
        stages_failed_ = true;
      } else {
        read_stage(entry, *keys);
      }
    }
  }

  void read_stage(const ConfigEntry& entry, ConfigValue::Table& keys) {
    StageSpec stage;
    stage.name = entry.key;
    stage.at = entry.key_at;
    const std::string owner = fmt::format("stage '{}'", stage.name);
    ConfigValue::Table plain;
    for (ConfigEntry& key : keys) {
      if (key.key == "use") {
        read_use(key.value, stage, R"("plugin" or "plugin.stage")");
      } else if (key.key == "from") {
        read_from(key.value, stage);
      } else if (key.key == "queue") {
        read_queue(key, stage);
      } else if (key.key == "on_reject") {
        read_on_reject(key.value, stage);
      } else if (std::ranges::find(host_option_specs(), key.key, &OptionSpec::name) !=
                 host_option_specs().end()) {
        if (key.key == "workers") stage.workers_at = key.value.at;
        plain.push_back(key);
      } else {
        stage.options.push_back(std::move(key));
      }
    }
    bind_options(plain, host_option_specs(), &stage.host, owner, stage.at, {}, true, report_);
    if (find(keys, "use") == nullptr && !pipeline_.syntax_errors) {
      report_.add(stage.at, fmt::format("{} does not say which plugin it uses", owner),
                  R"(use = "plugin" or use = "plugin.stage")");
    }
    take_options_of_plugin(stage);
    pipeline_.stages.push_back(std::move(stage));
  }

  void read_from(const ConfigValue& value, StageSpec& stage) {
    const auto add = [&](const ConfigValue& name) {
      if (name.unresolved) return;
      if (name.text() == nullptr) {
        report_.add(name.at, fmt::format("'from' is {}", kind_of(name)),
                    "the name of a stage, or a list of names");
        return;
      }
      if (std::ranges::find(stage.from, *name.text(), &StageSpec::From::name) != stage.from.end()) {
        report_.add(name.at, fmt::format("'{}' stands twice in 'from'", *name.text()));
        return;
      }
      stage.from.push_back({*name.text(), name.at});
    };
    if (const auto* list = value.list()) {
      for (const ConfigValue& name : *list) add(name);
    } else {
      add(value);
    }
  }

  void read_queue(const ConfigEntry& key, StageSpec& stage) {
    const auto* table = key.value.table();
    if (table == nullptr) {
      report_.add(key.value.at, fmt::format("'queue' is {}", kind_of(key.value)),
                  R"(a table such as { batches = 16, bytes = "64MiB", when_full = "block" })");
      return;
    }
    QueueOptions queue;
    bind_options(*table, queue_option_specs(), &queue, "'queue'", key.key_at, {}, true, report_);
    stage.host.queue = queue;
  }

  void read_on_reject(const ConfigValue& value, StageSpec& stage) {
    constexpr std::string_view kExpected = R"("count", "stop" or { file = "dead-letters.jsonl" })";
    stage.host.reject_at = value.at;
    if (any_unresolved(value)) return;
    if (const auto* table = value.table()) {
      const ConfigEntry* file = find(*table, "file");
      if (file == nullptr || file->value.text() == nullptr || table->size() != 1) {
        report_.add(value.at, "'on_reject' is not understood", std::string(kExpected));
        return;
      }
      stage.host.on_reject = OnReject::file;
      stage.host.reject_file = *file->value.text();
      return;
    }
    const std::string* text = value.text();
    if (text != nullptr && *text == "count") {
      stage.host.on_reject = OnReject::count;
    } else if (text != nullptr && *text == "stop") {
      stage.host.on_reject = OnReject::stop;
    } else {
      report_.add(value.at, fmt::format("{} cannot be 'on_reject'", to_text(value)),
                  std::string(kExpected),
                  text == nullptr ? std::string() : nearest(*text, {"count", "stop"}));
    }
  }

  Report& report_;
  PipelineSpec pipeline_;
  bool stages_failed_ = false;
};

}  // namespace

PipelineSpec read_pipeline_document(TomlDocument document, const Variables& variables,
                                    const std::vector<Setting>& settings, Report& report) {
  Variables known = variables;
  if (find(document.root, "config") != nullptr) known.expect_config();
  for (const Setting& setting : settings) apply(setting, known, document, report);
  return Reader(report).read(std::move(document));
}

PipelineSpec read_pipeline_text(const std::string& name, std::string text,
                                const Variables& variables, const std::vector<Setting>& settings,
                                Report& report) {
  TomlDocument document = read_toml(name, std::move(text), variables, report);
  return read_pipeline_document(std::move(document), variables, settings, report);
}

namespace {

/// What a file that is no text begins with. People give the file that they want to look at in place
/// of a pipeline file.
struct Content {
  std::string what;
  std::string variable;  ///< of the pipelines, or empty
};
std::optional<Content> not_text(std::string_view text) {
  using namespace std::string_view_literals;
  const auto begins = [&](std::initializer_list<std::string_view> magics) {
    return std::ranges::any_of(magics,
                               [&](std::string_view magic) { return text.starts_with(magic); });
  };
  if (begins({"\xd4\xc3\xb2\xa1"sv, "\xa1\xb2\xc3\xd4"sv, "\x4d\x3c\xb2\xa1"sv,
              "\xa1\xb2\x3c\x4d"sv, "\x0a\x0d\x0d\x0a"sv})) {
    return Content{"a capture", "CAPTURE"};
  }
  if (begins(
          {"\x1f\x8b"sv, "\x28\xb5\x2f\xfd"sv, "\xfd\x37zXZ"sv, "BZh"sv, "\x04\x22\x4d\x18"sv})) {
    return Content{"a compressed file, perhaps a capture", "CAPTURE"};
  }
  if (begins({"PK\x03\x04"sv})) return Content{"a ZIP file, perhaps a model", "MODEL"};
  constexpr std::size_t kLooked = 4096;
  if (text.substr(0, kLooked).find('\0') != std::string_view::npos) return Content{"no text", ""};
  return std::nullopt;
}

}  // namespace

std::optional<std::string> read_file(const std::filesystem::path& path, const std::string& what,
                                     Report& report) {
  constexpr std::streamsize kFirstLook = 4096;
  std::error_code error;
  const bool folder = std::filesystem::is_directory(path, error);
  std::ifstream file;
  if (!folder) file.open(path, std::ios::binary);
  if (folder || !file) {
    const std::string reason = folder ? "it is a folder" : std::strerror(errno);
    report.add({report.add_source(path.string(), {}), 0, 0, 1},
               fmt::format("cannot read the {}: {}", what, reason));
    return std::nullopt;
  }
  std::string text(kFirstLook, '\0');
  file.read(text.data(), kFirstLook);
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (const auto content = not_text(text)) {
    report.add({report.add_source(path.string(), {}), 0, 0, 1},
               fmt::format("this is {}, not a {}", content->what, what), {},
               content->variable.empty()
                   ? std::string()
                   : fmt::format("millrace run pipelines/standalone.toml --var {}={}",
                                 content->variable, path.string()));
    return std::nullopt;
  }
  std::stringstream rest;
  if (file) rest << file.rdbuf();
  return text + std::move(rest).str();
}

PipelineSpec read_pipeline(const std::filesystem::path& path, const Variables& variables,
                           const std::vector<Setting>& settings, Report& report) {
  auto text = read_file(path, "pipeline file", report);
  if (!text) return {};
  return read_pipeline_text(path.string(), std::move(*text), variables, settings, report);
}

}  // namespace millrace::host
