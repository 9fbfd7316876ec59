#include "testfile/test_file.h"

#include <algorithm>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "testfile/test_keys.h"

namespace millrace::host {

namespace {

class Reader {
 public:
  Reader(const std::filesystem::path& path, Report& report)
      : folder_(path.parent_path()), report_(report) {}

  std::vector<Test> read(const ConfigValue::Table& root, bool syntax_errors) {
    Test common;
    const std::vector<std::string> inner = {"vars", "set", "config", "test", "stage"};
    const auto plain = read_common(root, inner, common);
    Keys keys;
    (void)bind_options(plain, common_specs(), &keys, "a test file", {}, inner, true, report_);
    take(keys, plain, common);
    const ConfigEntry* tests = find(root, "test");
    if (tests == nullptr) {
      if (!syntax_errors) report_.add({}, "the file has no tests", "at least one [[test]]");
      return {};
    }
    if (common.pipeline.empty()) common.pipeline_at = tests->key_at;
    has_stages_ = find(root, "stage") != nullptr;
    std::vector<Test> list;
    for_tables(*tests, [&](const ConfigValue::Table& table, Position at) {
      list.push_back(read_test(table, at, common));
    });
    return list;
  }

 private:
  /// Calls `function` for every table of a list of tables, or for a single table.
  template <class F>
  void for_tables(const ConfigEntry& entry, F function) {
    if (const auto* one = entry.value.table()) return function(*one, entry.key_at);
    const auto* list = entry.value.list();
    if (list == nullptr) {
      report_.add(entry.value.at, fmt::format("'{}' is {}", entry.key, kind_of(entry.value)),
                  fmt::format("sections [[{}]]", entry.key));
      return;
    }
    for (const ConfigValue& value : *list) {
      if (const auto* table = value.table()) {
        function(*table, value.at);
      } else {
        report_.add(value.at, fmt::format("'{}' holds {}", entry.key, kind_of(value)), "a table");
      }
    }
  }

  /// What stands above all tests or in one of them; returns the rest.
  ConfigValue::Table read_common(const ConfigValue::Table& table,
                                 const std::vector<std::string>& inner, Test& test) {
    for (const ConfigEntry& entry : table) {
      if (entry.key != "vars" && entry.key != "set" && entry.key != "config") continue;
      if (entry.value.table() == nullptr) {
        report_.add(entry.value.at, fmt::format("'{}' is {}", entry.key, kind_of(entry.value)),
                    "a table { name = value }");
        continue;
      }
      flatten(entry.value, {}, [&](const std::string& name, const ConfigValue& value) {
        if (entry.key == "set") {
          test.settings.push_back({name, value});
        } else {
          read_text(entry.key == "vars" ? test.variables : test.config, name, value);
        }
      });
    }
    return without(table, inner);
  }

  template <class F>
  void flatten(const ConfigValue& value, const std::string& prefix, F function) {
    for (const ConfigEntry& entry : *value.table()) {
      const std::string name = prefix.empty() ? entry.key : prefix + '.' + entry.key;
      if (entry.value.table() != nullptr) {
        flatten(entry.value, name, function);
      } else {
        function(name, entry.value);
      }
    }
  }

  void read_text(std::map<std::string, std::string>& to, const std::string& name,
                 const ConfigValue& value) {
    if (value.list() != nullptr) {
      report_.add(value.at, fmt::format("'{}' is a list", name), "a text, a number, true or false");
    } else {
      to[name] = value.text() != nullptr ? *value.text() : shown(value);
    }
  }

  static void take(const Keys& keys, const ConfigValue::Table& entries, Test& test,
                   const std::filesystem::path& folder) {
    if (const ConfigEntry* entry = find(entries, "pipeline")) {
      test.pipeline = (folder / keys.pipeline).lexically_normal();
      test.pipeline_at = entry->value.at;
    }
    test.needs.insert(test.needs.end(), keys.needs.begin(), keys.needs.end());
    if (find(entries, "timeout") != nullptr) test.timeout = keys.timeout;
  }
  void take(const Keys& keys, const ConfigValue::Table& entries, Test& test) {
    take(keys, entries, test, folder_);
  }

  Test read_test(const ConfigValue::Table& table, Position at, const Test& common) {
    const std::vector<std::string> inner = {"vars", "set", "config", "input", "stub", "expect"};
    Test test = common;
    test.at = at;
    const auto plain = read_common(table, inner, test);
    Keys keys;
    (void)bind_options(plain, test_specs(), &keys, "a test", at, inner, true, report_);
    take(keys, plain, test);
    test.name = keys.name;
    test.fails = keys.fails;
    test.stages = keys.stages;
    const ConfigEntry* stages = find(plain, "stages");
    test.stages_at = stages != nullptr ? stages->value.at : at;
    if (const ConfigEntry* name = find(plain, "name")) {
      if (!names_.insert(test.name).second) {
        report_.add(name->value.at, fmt::format("there are two tests '{}'", test.name),
                    "a name of its own");
      }
    }
    if (test.pipeline.empty() && !has_stages_) {
      report_.add(at, fmt::format("the test '{}' names no pipeline", test.name),
                  "pipeline = \"FILE\" here or above, or [stage.NAME] sections in this file");
    }
    for (const ConfigEntry& entry : table) {
      if (entry.key == "input") {
        for_tables(entry, [&](const auto& t, Position p) { read_input(t, p, test); });
      } else if (entry.key == "stub") {
        for_tables(entry, [&](const auto& t, Position p) { read_stub(t, p, test); });
      } else if (entry.key == "expect") {
        for_tables(entry, [&](const auto& t, Position p) {
          auto expect = read_expectation(t, p, folder_, report_);
          if (expect) test.expectations.push_back(std::move(*expect));
        });
      }
    }
    return test;
  }

  /// With `use` what is no key of ours is an option of the plugin's stage.
  ConfigValue::Table split_options(ConfigValue::Table& plain, const std::vector<OptionSpec>& specs,
                                   StandIn& to) {
    const ConfigEntry* use = find(plain, "use");
    if (use == nullptr) return plain;
    to.use_at = use->value.at;
    ConfigValue::Table own;
    const std::vector<std::string> names = names_of(specs);
    for (const ConfigEntry& entry : plain) {
      (among(entry.key, names) ? own : to.options).push_back(entry);
    }
    return own;
  }

  void read_place(const ConfigValue::Table& table, std::string_view key, std::string name,
                  StandIn& to) {
    to.stage = std::move(name);
    const ConfigEntry* entry = find(table, key);
    to.stage_at = entry != nullptr ? entry->value.at : to.at;
  }

  void read_input(const ConfigValue::Table& table, Position at, Test& test) {
    StandIn input;
    input.at = at;
    ConfigValue::Table plain = without(table, item_keys());
    plain = split_options(plain, InputKeys::specs(), input);
    InputKeys keys;
    (void)bind_options(plain, InputKeys::specs(), &keys, "an input", at, item_keys(), true,
                       report_);
    read_place(table, "at", keys.at, input);
    input.use = keys.use;
    int contents = input.use.empty() ? 0 : 1;
    if (const ConfigEntry* capture = find(plain, "capture")) {
      ++contents;
      read_capture(keys.capture, *capture, input);
    }
    for (const ConfigEntry& entry : table) {
      if (!among(entry.key, item_keys())) continue;
      ++contents;
      input.items = read_items(entry, keys.batch, report_);
    }
    if (contents != 1) {
      report_.add(at, contents == 0 ? "the input gives nothing" : "the input gives several things",
                  fmt::format("one of capture, use, {}", fmt::join(item_keys(), ", ")));
    }
    add(test.inputs, std::move(input));
  }

  void read_capture(const std::vector<std::string>& files, const ConfigEntry& entry,
                    StandIn& input) {
    ConfigValue::List list;
    for (const std::string& file : files) {
      ConfigValue value{entry.value.at, (folder_ / file).lexically_normal().string()};
      value.unresolved = any_unresolved(entry.value);
      list.push_back(std::move(value));
    }
    input.use = "source-pcap";
    input.use_at = entry.key_at;
    input.options.push_back({"file", entry.key_at, {entry.value.at, std::move(list)}});
  }

  template <class T>
  void add(std::vector<T>& list, T one) {
    const auto other = std::ranges::find(list, one.stage, &StandIn::stage);
    if (other != list.end() && !one.stage.empty()) {
      report_.add(one.stage_at, fmt::format("'{}' has one already", one.stage),
                  "one for each stage");
    }
    list.push_back(std::move(one));
  }

  void read_stub(const ConfigValue::Table& table, Position at, Test& test) {
    TestStub stub;
    stub.at = at;
    std::vector<std::string> inner = item_keys();
    for (const char* key : {"when", "reject"}) inner.emplace_back(key);
    const std::vector<std::string> label_keys = names_of(label_specs());
    inner.insert(inner.end(), label_keys.begin(), label_keys.end());
    const bool uses = find(table, "use") != nullptr;
    ConfigValue::Table plain = uses ? table : without(table, inner);
    plain = split_options(plain, StubKeys::specs(), stub);
    StubKeys keys;
    (void)bind_options(plain, StubKeys::specs(), &keys, "a stub", at, inner, true, report_);
    read_place(table, "stage", keys.stage, stub);
    stub.use = keys.use;
    if (!uses) read_behaviour(table, keys, label_keys, stub);
    if (uses && plain.size() > 2) {
      report_.add(at, "a stub that uses a plugin's stage does nothing beside it",
                  "stage, use, and the options of that stage");
    }
    add(test.stubs, std::move(stub));
  }

  void read_behaviour(const ConfigValue::Table& table, const StubKeys& keys,
                      const std::vector<std::string>& label_keys, TestStub& stub) {
    auto behaviour = std::make_shared<StubBehaviour>();
    behaviour->error = keys.error;
    behaviour->fail = keys.fail;
    int contents = keys.pass ? 1 : 0;
    if (keys.pass) behaviour->kind = StubBehaviour::Kind::pass;
    ConfigValue::Table label;
    for (const ConfigEntry& entry : table) {
      if (among(entry.key, label_keys)) label.push_back(entry);
      if (entry.key == "reject") {
        check_expected(entry.value, report_);
        behaviour->reject = entry.value;
      } else if (entry.key == "when") {
        report_.add(entry.key_at, "'when' belongs to one of several verdicts",
                    R"(verdicts = [{ when = { dst_port = 80 }, label = "web" }])");
      } else if (entry.key == "verdicts") {
        ++contents;
        read_rules(entry, *behaviour);
      } else if (among(entry.key, item_keys())) {
        ++contents;
        behaviour->kind = StubBehaviour::Kind::give;
        constexpr std::size_t kBatch = 256;
        stub.items = behaviour->items = read_items(entry, kBatch, report_);
      }
    }
    if (!label.empty()) {
      ++contents;
      read_rule(label, {}, stub.at, *behaviour);
    }
    stub.says_what = contents > 0;
    if (contents > 1) {
      report_.add(stub.at, "the stub gives several things",
                  "pass, a label, verdicts, or a list of items");
    }
    stub.behaviour = std::move(behaviour);
  }

  void read_rules(const ConfigEntry& entry, StubBehaviour& behaviour) {
    for_tables(entry, [&](const ConfigValue::Table& table, Position at) {
      ConfigValue::Table when;
      if (const ConfigEntry* condition = find(table, "when")) {
        if (const auto* fields = condition->value.table()) when = *fields;
        check_expected(condition->value, report_);
      }
      read_rule(without(table, {"when"}), std::move(when), at, behaviour);
    });
  }

  void read_rule(const ConfigValue::Table& entries, ConfigValue::Table when, Position at,
                 StubBehaviour& behaviour) {
    behaviour.kind = StubBehaviour::Kind::label;
    StubBehaviour::Rule rule{std::move(when), {}};
    (void)bind_options(entries, label_specs(), &rule.label, "a verdict", at, {"when"}, true,
                       report_);
    behaviour.rules.push_back(std::move(rule));
  }

  std::filesystem::path folder_;
  Report& report_;
  std::set<std::string> names_;
  bool has_stages_ = false;
};

}  // namespace

TestFile read_test_file(const std::filesystem::path& path, const TestSurroundings& surroundings,
                        Report& report) {
  TestFile file;
  file.path = path;
  auto text = read_file(path, "test file", report);
  if (!text) return file;
  file.text = std::move(*text);

  auto names = surroundings.given;
  names["HERE"] = std::filesystem::absolute(path).lexically_normal().parent_path().string();
  names["TMP"] = surroundings.folder.string();
  // The file's own variables are known first, then everything that may name them.
  Variables open(names);
  open.leave_open();
  Report aside;
  const TomlDocument first = read_toml(path.string(), file.text, open, aside);
  if (const ConfigEntry* vars = find(first.root, "vars")) {
    if (const auto* table = vars->value.table()) {
      for (const ConfigEntry& entry : *table) {
        if (entry.value.text() != nullptr) names.try_emplace(entry.key, *entry.value.text());
      }
    }
  }
  const TomlDocument document = read_toml(path.string(), file.text, Variables(names), report);
  if (const ConfigEntry* stages = find(document.root, "stage")) {
    // They are read again for each test, with its variables.
    const auto end = std::ranges::find_if(document.root, [&](const ConfigEntry& entry) {
      return entry.key_at.line > stages->key_at.line;
    });
    report.remove_if([&](const Report::Entry& entry) {
      return report.line(entry.at).find("${") != std::string_view::npos &&
             entry.at.line >= stages->key_at.line &&
             (end == document.root.end() || entry.at.line < end->key_at.line);
    });
  }
  file.tests = Reader(path, report).read(document.root, document.syntax_errors);
  for (Test& test : file.tests) {
    for (const auto& [name, value] : names) {
      if (surroundings.given.contains(name) || name == "HERE" || name == "TMP") {
        test.variables[name] = value;
      }
    }
    test.settings.insert(test.settings.end(), surroundings.settings.begin(),
                         surroundings.settings.end());
  }
  return file;
}

}  // namespace millrace::host
