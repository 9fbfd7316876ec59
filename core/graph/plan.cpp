#include "graph/plan.h"

#include <algorithm>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "graph/secret_lines.h"
#include "plugin/thrown.h"

namespace millrace::host {

Position Plan::Stage::option_at(const std::string& option) const {
  if (option == "on_reject" && host.reject_at.line != 0) return host.reject_at;
  const ConfigEntry* entry = option.empty() ? nullptr : find(entries, option);
  return entry != nullptr ? entry->value.at : at;
}

std::string_view kind_name(StageKind kind) {
  switch (kind) {
    case StageKind::source:
      return "source";
    case StageKind::transform:
      return "transform";
    case StageKind::sink:
      return "sink";
    case StageKind::queue:
      return "queue";
    case StageKind::provider:
      return "config provider";
  }
  return "stage";
}

std::string_view short_name(const ItemType& type) {
  return type.name.substr(type.name.rfind('.') + 1);
}

namespace {

/// What messages call it.
std::string owner(const Plan::Stage& stage) {
  return stage.descriptor->kind == StageKind::provider
             ? fmt::format("[config] ({})", stage.use)
             : fmt::format("stage '{}' ({})", stage.name, stage.use);
}

/// Calls the plugin; false if it throws, which is reported at the stage's place.
template <class Call>
bool ask(const Plan::Stage& stage, std::string_view what, Report& report, Call call) {
  try {
    call();
    return true;
  } catch (...) {
    report.add(stage.at, fmt::format("{}: {} failed: {}", owner(stage), what, thrown_text()));
    return false;
  }
}

class Planner {
 public:
  Planner(const PipelineSpec& spec, Registry& registry, Report& report)
      : spec_(spec), registry_(registry), report_(report) {}

  Plan plan() {
    for (const StageSpec& stage : spec_.stages) {
      names_.push_back(stage.name);
      stages_.push_back(look_up(stage));
      const StageDescriptor*& descriptor = stages_.back().descriptor;
      if (descriptor == nullptr || descriptor->kind != StageKind::provider) continue;
      report_.add(stage.use_at, fmt::format("'{}' is a config provider, not a stage", stage.use),
                  fmt::format("[config] with use = \"{}\"", stage.use));
      descriptor = nullptr;
    }
    connect();
    check_dangling();
    Plan plan;
    plan.provider = provider();
    hide_lines_left_out(spec_, stages_, plan.provider, report_);
    plan.name = spec_.name;
    plan.about = spec_.about;
    if (const auto order = sorted()) plan.stages = reordered(*order);
    return plan;
  }

  std::optional<Plan::Stage> provider() {
    if (!spec_.config) return std::nullopt;
    Plan::Stage provider = look_up(*spec_.config);
    if (provider.descriptor == nullptr) return std::nullopt;
    if (provider.descriptor->kind == StageKind::provider) return provider;
    report_.add(spec_.config->use_at, fmt::format("'{}' is no config provider", provider.use),
                "config-zk, config-file or another plugin that gives values");
    return std::nullopt;
  }

 private:
  Plan::Stage look_up(const StageSpec& from) {
    Plan::Stage stage;
    stage.name = from.name;
    stage.use = from.use;
    stage.host = from.host;
    stage.at = from.at;
    stage.entries = from.options;
    bool guessed = false;
    stage.descriptor = descriptor(from, guessed);
    warn_of_unknown(from.unused);
    if (stage.descriptor == nullptr || guessed) {  // then nobody knows which of them are secret
      for (const ConfigEntry& entry : stage.entries) hide(entry.value, report_);
    }
    if (stage.descriptor != nullptr) {
      stage.kind = stage.descriptor->kind;
      check_options(from, stage, guessed);
    }
    // What it would give and take may not be what was meant.
    if (guessed) stage.descriptor = nullptr;
    return stage;
  }

  /// The plugin that was probably meant. One that is only not installed is no mistyped name of
  /// another: "source-canal" is not "source-pcap", so what is behind the kind must be near by
  /// itself.
  [[nodiscard]] std::string near_plugin(const std::string& name) const {
    std::string meant = nearest(name, registry_.names());
    const std::size_t kind = name.find('-') + 1;
    if (kind == 0 || meant.substr(0, kind) != name.substr(0, kind)) return meant;
    return nearest(name.substr(kind), {meant.substr(kind)}).empty() ? std::string() : meant;
  }

  /// No error: a file may have sections of plugins that are not installed on this machine.
  void warn_of_unknown(const std::vector<StageSpec::Section>& sections) {
    for (const StageSpec::Section& section : sections) {
      if (registry_.has(section.plugin)) continue;
      report_.warn(section.at,
                   fmt::format("there is no plugin '{}' here, so this section is not looked at",
                               section.plugin),
                   {}, near_plugin(section.plugin));
    }
  }

  /// `guessed`: of what was probably meant, so that the other mistakes of the stage show as well.
  const StageDescriptor* descriptor(const StageSpec& from, bool& guessed) {
    if (from.use.empty()) return nullptr;
    const std::size_t dot = from.use.find('.');
    std::string plugin_name = from.use.substr(0, dot);
    if (!registry_.has(plugin_name)) {
      const std::string meant = near_plugin(plugin_name);
      report_.add(from.use_at, fmt::format("there is no plugin '{}'", plugin_name), {}, meant);
      if (meant.empty()) return nullptr;
      guessed = true;
      plugin_name = meant;
    }
    try {
      const Plugin& plugin = registry_.load(plugin_name);
      const std::string stage_name =
          dot == std::string::npos ? plugin_name : from.use.substr(dot + 1);
      if (const StageDescriptor* found = plugin.stage(stage_name)) return found;
      std::vector<std::string> stages;
      std::string list;
      for (const StageDescriptor& known : plugin.body->stages) {
        stages.push_back(known.name);
        list += (list.empty() ? "" : ", ") + known.name;
      }
      const std::string meant = nearest(stage_name, stages);
      report_.add(from.use_at,
                  fmt::format("the plugin '{}' has no stage '{}'", plugin_name, stage_name),
                  "one of its stages: " + list, meant);
      guessed = true;
      return plugin.stage(meant);
    } catch (const PluginError& error) {
      if (!guessed) report_.add(from.use_at, error.what());
    }
    return nullptr;
  }

  void check_options(const StageSpec& from, Plan::Stage& stage, bool guessed) {
    const StageDescriptor& descriptor = *stage.descriptor;
    static const std::vector<std::string> kNoNames;
    const bool provides = descriptor.kind == StageKind::provider;
    const bool made = ask(stage, "making its options", report_,
                          [&] { stage.options = descriptor.new_options(); });
    if (!made) return;
    const bool good = bind_options(from.options, descriptor.options, stage.options.get(),
                                   owner(stage), from.at, provides ? kNoNames : host_key_names(),
                                   !spec_.syntax_errors && !guessed, report_);
    // What is in a section of the plugin that was meant is not among its options.
    if (guessed) return;
    if (from.host.workers > 1 && !descriptor.single_reason.empty()) {
      report_.add(from.workers_at,
                  fmt::format("'{}' cannot have {} workers: it {}", from.use, from.host.workers,
                              descriptor.single_reason),
                  "workers = 1");
    }
    if (from.host.workers > 1 && descriptor.kind == StageKind::source) {
      report_.add(from.workers_at, "a source cannot have several workers",
                  "one stage for each input, and 'from' naming them all");
    }
    if (from.host.workers > 1 && descriptor.kind == StageKind::queue) {
      report_.add(from.workers_at, "a queue stage cannot have several workers", "workers = 1");
    }
    if (!descriptor.check) return;
    Findings findings;
    ask(stage, "the check of its options", report_,
        [&] { descriptor.check(stage.options.get(), findings); });
    for (const auto& finding : findings.list()) {
      // Where an option could not be read, only what is said of one that could counts.
      const ConfigEntry* entry = find(stage.entries, finding.option);
      if (!good &&
          (entry == nullptr || reported(entry->value.at) || any_unresolved(entry->value))) {
        continue;
      }
      report_.add(stage.option_at(finding.option), finding.message);
    }
  }

  [[nodiscard]] bool reported(Position at) const {
    return std::ranges::find(report_.entries(), at, &Report::Entry::at) != report_.entries().end();
  }

  void connect() {
    for (std::size_t i = 0; i < spec_.stages.size(); ++i) {
      const StageSpec& from = spec_.stages[i];
      const StageDescriptor* descriptor = stages_[i].descriptor;
      if (descriptor != nullptr) {
        if (descriptor->kind == StageKind::source && !from.from.empty()) {
          report_.add(from.from.front().at,
                      fmt::format("'{}' is a source and reads from no stage", from.use),
                      "no 'from'");
          continue;
        }
        if (descriptor->kind != StageKind::source && from.from.empty() && !spec_.syntax_errors &&
            !has_broken_from(from)) {
          report_.add(from.at, fmt::format("stage '{}' does not say what it reads from", from.name),
                      fmt::format("from = \"STAGE\" with a stage that gives {}",
                                  short_name(*descriptor->input)));
        }
      }
      for (const StageSpec::From& name : from.from) connect(i, name);
    }
  }

  /// Names that could not be read were reported where they stand.
  [[nodiscard]] bool has_broken_from(const StageSpec& from) const {
    return std::ranges::any_of(report_.entries(), [&](const Report::Entry& entry) {
      return entry.at > from.at && entry.message.starts_with("'from'");
    });
  }

  void connect(std::size_t to, const StageSpec::From& name) {
    const auto found = std::ranges::find(names_, name.name);
    if (found == names_.end()) {
      report_.add(name.at, fmt::format("there is no stage '{}'", name.name), {},
                  nearest(name.name, names_));
      return;
    }
    const auto from = static_cast<std::size_t>(found - names_.begin());
    Plan::Edge edge{to};
    read_.push_back(from);
    const StageDescriptor* upstream = stages_[from].descriptor;
    const StageDescriptor* downstream = stages_[to].descriptor;
    if (upstream != nullptr && downstream != nullptr && downstream->input != nullptr) {
      if (upstream->output == nullptr) {
        report_.add(name.at, fmt::format("'{}' is a sink and gives nothing", name.name),
                    "a source or a transform");
        return;
      }
      if (*upstream->output != *downstream->input) {
        const auto adapter = std::ranges::find_if(
            downstream->adapters,
            [&](const InputAdapter& candidate) { return *candidate.from == *upstream->output; });
        if (adapter == downstream->adapters.end()) {
          report_.add(name.at, type_mismatch(name.name, to, *upstream, *downstream));
          return;
        }
        edge.adapter = &*adapter;
      }
    }
    stages_[to].from.push_back(from);
    stages_[from].to.push_back(edge);
  }

  std::string type_mismatch(const std::string& from, std::size_t to,
                            const StageDescriptor& upstream, const StageDescriptor& downstream) {
    std::string takes(short_name(*downstream.input));
    for (const InputAdapter& adapter : downstream.adapters) {
      takes += " or ";
      takes += short_name(*adapter.from);
    }
    if (upstream.output->name == downstream.input->name) {
      return fmt::format(
          "'{}' gives {} of {} bytes and '{}' takes {} of {} bytes: the two plugins "
          "were built against different definitions",
          from, upstream.output->name, upstream.output->size, names_[to], downstream.input->name,
          downstream.input->size);
    }
    return fmt::format("'{}' gives {}, but '{}' takes {}", from, short_name(*upstream.output),
                       names_[to], takes);
  }

  void check_dangling() {
    if (spec_.syntax_errors) return;
    for (std::size_t i = 0; i < stages_.size(); ++i) {
      const StageDescriptor* descriptor = stages_[i].descriptor;
      if (descriptor == nullptr || descriptor->kind == StageKind::sink) continue;
      if (std::ranges::find(read_, i) == read_.end()) {
        report_.add(stages_[i].at,
                    fmt::format("nothing reads from stage '{}', so its {} items would be lost",
                                names_[i], short_name(*descriptor->output)),
                    fmt::format("a stage with from = \"{}\"", names_[i]));
      }
    }
  }

  /// Every stage after those it reads from; nothing if they run in a circle.
  std::optional<std::vector<std::size_t>> sorted() {
    std::vector<std::size_t> order;
    std::vector<std::size_t> waits(stages_.size());
    for (std::size_t i = 0; i < stages_.size(); ++i) waits[i] = stages_[i].from.size();
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t i = 0; i < stages_.size(); ++i) {
        if (waits[i] != 0) continue;
        waits[i] = SIZE_MAX;
        order.push_back(i);
        for (const Plan::Edge& edge : stages_[i].to) --waits[edge.to];
        moved = true;
      }
    }
    if (order.size() == stages_.size()) return order;
    report_circle(waits);
    return std::nullopt;
  }

  void report_circle(const std::vector<std::size_t>& waits) {
    // Walking upstream among the stages that still wait must come round.
    std::size_t at = 0;
    while (waits[at] == SIZE_MAX) ++at;
    std::vector<std::size_t> path;
    while (std::ranges::find(path, at) == path.end()) {
      path.push_back(at);
      at = *std::ranges::find_if(stages_[at].from,
                                 [&](std::size_t up) { return waits[up] != SIZE_MAX; });
    }
    path.erase(path.begin(), std::ranges::find(path, at));
    std::string circle = names_[at];
    for (auto it = path.rbegin(); it != path.rend(); ++it) circle += " -> " + names_[*it];
    report_.add(stages_[at].at, fmt::format("the stages run in a circle: {}", circle));
  }

  /// In this order, and every queue stage as two: what is before it gives to the first of them, and
  /// what is behind it reads from the second.
  std::vector<Plan::Stage> reordered(const std::vector<std::size_t>& order) {
    std::vector<std::size_t> takes(order.size());
    std::vector<std::size_t> gives(order.size());
    std::size_t next = 0;
    for (const std::size_t index : order) {
      takes[index] = next++;
      gives[index] = stages_[index].kind == StageKind::queue ? next++ : takes[index];
    }
    std::vector<Plan::Stage> out;
    for (const std::size_t index : order) {
      Plan::Stage& stage = out.emplace_back(std::move(stages_[index]));
      for (std::size_t& from : stage.from) from = gives[from];
      for (Plan::Edge& edge : stage.to) edge.to = takes[edge.to];
      if (stage.kind == StageKind::queue) split_queue(out);
    }
    return out;
  }

  static void split_queue(std::vector<Plan::Stage>& stages) {
    Plan::Stage giving = stages.back();
    Plan::Stage& taking = stages.back();
    taking.kind = StageKind::sink;
    taking.to.clear();
    giving.kind = StageKind::source;
    giving.gives_out = true;
    giving.from.clear();
    giving.host.queue.reset();
    taking.name += ".in";
    giving.name += ".out";
    stages.push_back(std::move(giving));
  }

  const PipelineSpec& spec_;
  Registry& registry_;
  Report& report_;
  std::vector<std::string> names_;
  std::vector<Plan::Stage> stages_;
  std::vector<std::size_t> read_;
};

}  // namespace

Plan make_plan(const PipelineSpec& spec, Registry& registry, Report& report) {
  return Planner(spec, registry, report).plan();
}

void probe(const Plan& plan, const std::filesystem::path& data_folder, Report& report) {
  for (const Plan::Stage& stage : plan.stages) {
    if (!stage.descriptor->probe) continue;
    Findings findings(data_folder);
    ask(stage, "looking whether it can work here", report,
        [&] { stage.descriptor->probe(stage.options.get(), findings); });
    for (const auto& finding : findings.list()) {
      report.add(stage.option_at(finding.option), finding.message);
    }
  }
}

std::optional<Plan::Stage> make_provider_plan(const PipelineSpec& spec, Registry& registry,
                                              Report& report) {
  return Planner(spec, registry, report).provider();
}

}  // namespace millrace::host
