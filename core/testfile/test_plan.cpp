#include "testfile/test_plan.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "millrace/verdict.h"

#include "graph/secret_lines.h"
#include "testfile/part.h"
#include "testfile/selection.h"

namespace millrace::host {

namespace {

/// The built-in plugin that the stages standing in are of.
constexpr const char* kStandIns = "test";

PipelineSpec read_pipeline_of(const TestFile& file, const Test& test, Report& report) {
  Variables variables(test.variables);
  variables.set_config(test.config);
  variables.expect_config();
  if (!test.pipeline.empty()) {
    auto text = read_file(test.pipeline, "pipeline file", report);
    if (!text) return {};
    PipelineSpec spec = read_pipeline_text(test.pipeline.string(), std::move(*text), variables,
                                           test.settings, report);
    if (spec.config) forget_section(spec.config->at, spec, report);
    spec.config.reset();  // its values are the test's
    return spec;
  }
  TomlDocument document = read_toml(file.path.string(), file.text, variables, report);
  std::erase_if(document.root, [](const ConfigEntry& entry) { return entry.key != "stage"; });
  return read_pipeline_document(std::move(document), variables, test.settings, report);
}

class Builder {
 public:
  Builder(const Test& test, PipelineSpec spec, Registry& registry, Report& report)
      : test_(test), spec_(std::move(spec)), registry_(registry), report_(report) {}

  TestPlan build() {
    TestPlan made;
    made.stand_ins = std::make_unique<PluginBody>();
    if (spec_.syntax_errors || spec_.stages.empty()) {
      hide_lines_left_out(spec_, {}, std::nullopt, report_);
      return made;
    }
    auto kept = stages_under_test(test_, spec_, report_);
    if (!kept) return made;
    kept_ = std::move(*kept);
    PipelineSpec cut = spec_;
    cut.stages.clear();
    for (const StageSpec& stage : spec_.stages) {
      if (kept_.contains(stage.name)) cut.stages.push_back(stand(stage));
    }
    add_recorders(cut, made);
    made.stand_ins->stages = std::move(descriptors_);
    registry_.add({kStandIns, MILLRACE_VERSION, MILLRACE_VERSION, {}, made.stand_ins.get()});
    made.plan = make_plan(cut, registry_, report_);
    // That they read from nothing was said, in the words of the test.
    report_.remove_if([&](const Report::Entry& entry) {
      return std::ranges::find(orphans_, entry.at) != orphans_.end();
    });
    return made;
  }

 private:
  std::string add_descriptor(StageDescriptor descriptor) {
    std::string use = fmt::format("{}.{}", kStandIns, descriptor.name);
    descriptors_.push_back(std::move(descriptor));
    return use;
  }

  /// `stage` as it stands in the test.
  StageSpec stand(const StageSpec& original) {
    StageSpec stage = original;
    const StandIn* input = stand_in_for(test_.inputs, stage.name);
    if (stage.from.empty()) {
      if (input != nullptr) replace(stage, *input);
      return stage;
    }
    read_from(stage, input);
    if (const TestStub* stub = stand_in_for(test_.stubs, stage.name)) replace(stage, *stub);
    return stage;
  }

  /// A source in place of `stage`, or of what is before it.
  void replace(StageSpec& stage, const StandIn& input) {
    stage.at = input.at;
    stage.host = {};
    stage.options = input.options;
    stage.unused.clear();
    stage.use = input.use;
    stage.use_at = input.use_at;
    if (input.items) {
      stage.use = add_descriptor(items_source("input-" + stage.name, input.items));
      stage.use_at = input.at;
    }
  }

  void replace(StageSpec& stage, const TestStub& stub) {
    stage.at = stub.at;
    stage.options = stub.options;
    stage.unused.clear();
    stage.use = stub.use;
    stage.use_at = stub.use_at;
    if (stub.behaviour == nullptr || stage.from.empty()) return;
    const ItemType* in = gives(stage.from.front().name);
    if (in == nullptr) return;  // reported where it stands
    stage.use_at = stub.at;
    stage.use = add_descriptor(
        millrace::host::stub("stub-" + stage.name, *in, given_by(stub, *in), stub.behaviour));
  }

  /// What a stub that is given `in` gives; null: nothing.
  const ItemType* given_by(const TestStub& stub, const ItemType& in) {
    switch (stub.behaviour->kind) {
      case StubBehaviour::Kind::give:
        return stub.behaviour->items ? stub.behaviour->items->type : nullptr;
      case StubBehaviour::Kind::pass:
        return &in;
      case StubBehaviour::Kind::label:
        if (in != item_type<Session>()) {
          report_.add(stub.at,
                      fmt::format("'{}' is given {} items; a label is for sessions", stub.stage,
                                  short_name(in)),
                      "pass = true, or a list of items");
        }
        return &item_type<Verdict>();
      case StubBehaviour::Kind::swallow:
        break;
    }
    const bool read_by_some = std::ranges::any_of(
        spec_.stages, [&](const StageSpec& reader) { return reads(reader, stub.stage); });
    if (!read_by_some) return nullptr;
    stub.behaviour->kind = StubBehaviour::Kind::pass;
    return &in;
  }

  /// Puts an input before the stage in place of everything that it reads from outside.
  void read_from(StageSpec& stage, const StandIn* input) {
    std::vector<StageSpec::From> inside;
    std::ranges::copy_if(stage.from, std::back_inserter(inside), [&](const StageSpec::From& from) {
      return kept_.contains(from.name) || stage_named(spec_, from.name) == nullptr;
    });
    const bool cut = inside.size() != stage.from.size();
    if (input == nullptr && cut) {
      const auto outside = std::ranges::find_if(
          stage.from, [&](const StageSpec::From& from) { return !kept_.contains(from.name); });
      report_.add(
          test_.stages_at,
          fmt::format("'{}' reads from '{}', which is not under test", stage.name, outside->name),
          fmt::format("[[test.input]] with at = \"{}\", or '{}' among the stages", stage.name,
                      outside->name));
      if (inside.empty()) orphans_.push_back(stage.at);
    } else if (input != nullptr && !cut) {
      report_.add(input->stage_at,
                  fmt::format("all that '{}' reads from is under test", stage.name),
                  "a source, or a stage before which the pipeline is cut");
    } else if (input != nullptr) {
      StageSpec source;
      source.name = "input of " + stage.name;
      replace(source, *input);
      inside.push_back({source.name, input->at});
      sources_.push_back(std::move(source));
    }
    stage.from = std::move(inside);
  }

  /// What the stage of that name gives in this test; null if that cannot be said.
  const ItemType* gives(const std::string& name, int depth = 0) {
    constexpr int kDeepest = 1000;  // a circle, which the planner reports
    if (depth > kDeepest) return nullptr;
    if (const auto source = std::ranges::find(sources_, name, &StageSpec::name);
        source != sources_.end()) {
      return output_of(source->use);
    }
    const StageSpec* original = stage_named(spec_, name);
    if (original == nullptr) return nullptr;
    const StandIn* input = stand_in_for(test_.inputs, name);
    if (original->from.empty() && input != nullptr) {
      return input->items ? input->items->type : output_of(input->use);
    }
    const TestStub* stub = stand_in_for(test_.stubs, name);
    if (stub == nullptr || stub->behaviour == nullptr) {
      return output_of(stub == nullptr ? original->use : stub->use);
    }
    if (stub->behaviour->kind == StubBehaviour::Kind::label) return &item_type<Verdict>();
    if (stub->behaviour->kind == StubBehaviour::Kind::give) {
      return stub->behaviour->items ? stub->behaviour->items->type : nullptr;
    }
    if (input != nullptr) return input->items ? input->items->type : output_of(input->use);
    return gives(original->from.front().name, depth + 1);
  }

  /// Of a plugin's stage, or of one of ours. What is wrong with it the planner says.
  const ItemType* output_of(const std::string& use) {
    const std::size_t dot = use.find('.');
    const std::string plugin = use.substr(0, dot);
    const std::string name = dot == std::string::npos ? plugin : use.substr(dot + 1);
    if (plugin == kStandIns) {
      const auto ours = std::ranges::find(descriptors_, name, &StageDescriptor::name);
      return ours == descriptors_.end() ? nullptr : ours->output;
    }
    try {
      if (!registry_.has(plugin)) return nullptr;
      const StageDescriptor* found = registry_.load(plugin).stage(name);
      return found == nullptr ? nullptr : found->output;
    } catch (const PluginError&) {
      return nullptr;
    }
  }

  void add_recorders(PipelineSpec& cut, TestPlan& made) {
    for (const StageSpec& source : sources_) cut.stages.push_back(source);
    for (const Expectation& expect : test_.expectations) {
      const bool looks = expect.where != Expectation::Where::file &&
                         (!expect.items.empty() || !expect.none.empty());
      made.recordings.push_back(looks ? std::make_shared<Recording>() : nullptr);
      if (expect.where == Expectation::Where::file) continue;
      const StageSpec* place = &*std::ranges::find(cut.stages, expect.stage, &StageSpec::name);
      const bool sink = is_sink(place->name);
      if (expect.where == Expectation::Where::after && sink && (looks || expect.count)) {
        report_.add(expect.stage_at, fmt::format("'{}' is a sink and gives nothing", expect.stage),
                    fmt::format("at = \"{}\" for what it takes", expect.stage));
        continue;
      }
      if (expect.where == Expectation::Where::at && place->from.empty() &&
          (looks || expect.count)) {
        report_.add(expect.stage_at,
                    fmt::format("'{}' is a source and takes nothing", expect.stage),
                    fmt::format("after = \"{}\" for what it gives", expect.stage));
        continue;
      }
      if (!looks) continue;
      std::vector<std::string> from;
      if (expect.where == Expectation::Where::after) from.push_back(expect.stage);
      if (expect.where == Expectation::Where::at) {
        for (const StageSpec::From& one : place->from) from.push_back(one.name);
      }
      for (const std::string& name : from) {
        record(cut, name, made.recordings.back(), &expect);
      }
    }
    for (std::size_t i = 0; i < cut.stages.size(); ++i) {
      const std::string name = cut.stages[i].name;
      const bool read = std::ranges::any_of(
          cut.stages, [&](const StageSpec& reader) { return reads(reader, name); });
      // What is read by nothing in the whole pipeline the planner complains of.
      if (!read && has_readers(name)) record(cut, name, nullptr, nullptr);
    }
  }

  [[nodiscard]] bool has_readers(const std::string& name) const {
    return std::ranges::any_of(spec_.stages,
                               [&](const StageSpec& reader) { return reads(reader, name); });
  }
  [[nodiscard]] bool is_sink(const std::string& name) const { return !has_readers(name); }

  void record(PipelineSpec& cut, const std::string& name, std::shared_ptr<Recording> recording,
              const Expectation* expect) {
    const ItemType* type = gives(name);
    if (type == nullptr) return;
    if (expect != nullptr) check_fields(*expect, *type);
    StageSpec stage;
    stage.name = fmt::format("after {} {}", name, cut.stages.size());
    stage.at = expect != nullptr ? expect->at : test_.at;
    stage.from.push_back({name, stage.at});
    stage.use = add_descriptor(
        recorder(fmt::format("record-{}", cut.stages.size()), *type, std::move(recording)));
    stage.use_at = stage.at;
    cut.stages.push_back(std::move(stage));
  }

  void check_fields(const Expectation& expect, const ItemType& type) {
    const std::vector<std::string> known = field_names(type);
    if (known.empty()) return;
    for (const ConfigValue::List* list : {&expect.items, &expect.none}) {
      for (const ConfigValue& item : *list) {
        if (item.table() == nullptr) continue;
        for (const ConfigEntry& field : *item.table()) {
          if (std::ranges::find(known, field.key) != known.end()) continue;
          const std::string meant = nearest(field.key, known);
          report_.add(field.key_at,
                      fmt::format("a {} has no field '{}'", short_name(type), field.key),
                      meant.empty() ? fmt::format("one of {}", fmt::join(known, ", ")) : "", meant);
        }
      }
    }
  }

  const Test& test_;
  const PipelineSpec spec_;
  Registry& registry_;
  Report& report_;
  std::set<std::string> kept_;
  std::vector<StageSpec> sources_;
  std::vector<StageDescriptor> descriptors_;
  std::vector<Position> orphans_;  ///< stages whose input is missing
};

}  // namespace

TestPlan make_test_plan(const TestFile& file, const Test& test, Registry& registry,
                        Report& report) {
  PipelineSpec spec = read_pipeline_of(file, test, report);
  return Builder(test, std::move(spec), registry, report).build();
}

std::string reason_to_skip(const Test& test, Registry& registry) {
  for (const std::string& plugin : test.needs) {
    if (!registry.has(plugin)) return fmt::format("there is no plugin '{}' here", plugin);
    try {
      (void)registry.load(plugin);
    } catch (const PluginError& error) {
      return error.what();
    }
  }
  return {};
}

}  // namespace millrace::host
