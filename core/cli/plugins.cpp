#include <algorithm>
#include <iostream>

#include <fmt/format.h>

#include "millrace/json.h"

#include "cli/arguments.h"
#include "cli/commands.h"
#include "graph/plan.h"
#include "run/pipeline.h"

namespace millrace::host {

namespace {

std::string takes(const StageDescriptor& stage) {
  if (stage.input == nullptr) return {};
  std::string text(short_name(*stage.input));
  for (const InputAdapter& adapter : stage.adapters) {
    text += " or ";
    text += short_name(*adapter.from);
  }
  return text;
}

std::string items(const StageDescriptor& stage) {
  std::string text;
  if (stage.input != nullptr) text += "takes " + takes(stage);
  if (stage.output != nullptr) {
    text += fmt::format("{}gives {}", text.empty() ? "" : ", ", short_name(*stage.output));
  }
  return text;
}

bool is_provider(const StageDescriptor& stage) { return stage.kind == StageKind::provider; }

/// The section of a pipeline file that names it, where that is not [stage.NAME].
std::string section_of(const StageDescriptor& stage) {
  return is_provider(stage) ? "[config] " : "";
}

std::string kind_and_items(const StageDescriptor& stage) {
  const std::string text = items(stage);
  return fmt::format("{}{}{}", kind_name(stage.kind), text.empty() ? "" : ", ", text);
}

std::string use_name(const Plugin& plugin, const StageDescriptor& stage) {
  return stage.name == plugin.name ? plugin.name : plugin.name + "." + stage.name;
}

/// type, bounds, choices, and whether it is secret, in one phrase
std::string type_text(const OptionSpec& option) {
  std::string text = option.type;
  std::string choices;
  for (const std::string& choice : option.choices) {
    choices += fmt::format("{}\"{}\"", choices.empty() ? "" : ", ", choice);
  }
  if (!choices.empty()) text += " " + choices;
  if (!option.bounds.empty()) text += ", " + option.bounds;
  if (option.secret) text += ", secret";
  return text;
}

std::string default_text(const OptionSpec& option) {
  if (option.required) return "required";
  return option.default_value.empty() ? "none" : option.default_value;
}

void print_options(const std::vector<OptionSpec>& options) {
  for (const OptionSpec& option : options) {
    std::cout << fmt::format("    {:<16} {} (default: {})\n", option.name, type_text(option),
                             default_text(option));
    // Help is wrapped to 76 columns behind its indent.
    std::string line;
    std::size_t at = 0;
    while (at < option.help.size()) {
      const std::size_t end = std::min(option.help.find(' ', at), option.help.size());
      const std::string word = option.help.substr(at, end - at);
      if (line.size() + word.size() + 1 > 76) {
        std::cout << "        " << line << '\n';
        line.clear();
      }
      line += (line.empty() ? "" : " ") + word;
      at = end + 1;
    }
    std::cout << "        " << line << '\n';
  }
}

std::vector<OptionSpec> all_host_options() {
  std::vector<OptionSpec> options = host_option_specs();
  OptionSpec queue;
  queue.name = "queue";
  queue.type = "table";
  queue.help =
      "gives the stage a queue of its own with these bounds; stages with workers, several "
      "inputs, required = false or batching have one with the defaults anyway";
  for (const OptionSpec& option : queue_option_specs()) {
    queue.default_value += fmt::format("{}{} = {}", queue.default_value.empty() ? "{ " : ", ",
                                       option.name, option.default_value);
  }
  queue.default_value += " }";
  options.push_back(std::move(queue));
  OptionSpec reject;
  reject.name = "on_reject";
  reject.type = R"("count", "stop" or { file = "PATH" })";
  reject.default_value = "\"count\"";
  reject.help =
      "what becomes of items that the stage can never handle: count them, end the "
      "pipeline, or append them to a file, one JSON object a line";
  options.push_back(std::move(reject));
  return options;
}

void print_plugin(const Plugin& plugin) {
  std::cout << fmt::format("{} {} ({}), built with {}\n", plugin.name, plugin.version,
                           plugin.file.string(),
                           plugin.built_with.empty() ? "the headers of plugin ABI 1.0"
                                                     : "Millrace " + plugin.built_with);
  for (const StageDescriptor& stage : plugin.body->stages) {
    std::cout << fmt::format("\n{}use = \"{}\": {}\n  {}\n", section_of(stage),
                             use_name(plugin, stage), kind_and_items(stage), stage.help);
    if (!stage.options.empty()) std::cout << "  Options:\n";
    print_options(stage.options);
    if (!stage.single_reason.empty()) {
      std::cout << fmt::format("  workers must be 1: it {}\n", stage.single_reason);
    }
  }
  if (std::ranges::all_of(plugin.body->stages, is_provider)) return;
  std::cout << "\nOptions of every stage:\n";
  if (std::ranges::any_of(plugin.body->stages, [](const StageDescriptor& stage) {
        return stage.kind != StageKind::source && !is_provider(stage);
      })) {
    std::cout << "    from             name of a stage, or a list of names\n"
                 "        where the items come from\n";
  }
  print_options(all_host_options());
}

void markdown_options(const std::vector<OptionSpec>& options) {
  const auto cell = [](std::string text) {
    for (std::size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) {
      text.insert(at, "\\");
    }
    return text;
  };
  std::cout << "| option | type | default | meaning |\n| --- | --- | --- | --- |\n";
  for (const OptionSpec& option : options) {
    const std::string value = default_text(option);
    const bool word = option.required || option.default_value.empty();
    std::cout << fmt::format("| `{}` | {} | {} | {} |\n", option.name, cell(type_text(option)),
                             word ? value : "`" + value + "`", cell(option.help));
  }
}

void print_markdown(const Plugin& plugin) {
  bool first = true;
  for (const StageDescriptor& stage : plugin.body->stages) {
    if (!std::exchange(first, false)) std::cout << '\n';
    std::cout << fmt::format("`{}use = \"{}\"`: {}. {}.\n", section_of(stage),
                             use_name(plugin, stage), kind_and_items(stage), stage.help);
    if (!stage.single_reason.empty()) {
      std::cout << fmt::format("`workers` must be 1: it {}.\n", stage.single_reason);
    }
    if (stage.options.empty()) continue;
    std::cout << '\n';
    markdown_options(stage.options);
  }
}

void json_options(const std::vector<OptionSpec>& options, std::string& out) {
  out += '[';
  for (const OptionSpec& option : options) {
    if (!out.ends_with('[')) out += ',';
    json::Object object(out);
    object.member("name", option.name);
    object.member("type", option.type);
    object.member("default", option.default_value);
    object.member("bounds", option.bounds);
    object.member("required", option.required);
    object.member("secret", option.secret);
    object.member("help", option.help);
    std::string& choices = object.key("choices");
    choices += '[';
    for (const std::string& choice : option.choices) {
      if (!choices.ends_with('[')) choices += ',';
      json::append_string(choices, choice);
    }
    choices += ']';
  }
  out += ']';
}

void json_plugin(const Plugin& plugin, std::string& out) {
  json::Object object(out);
  object.member("name", plugin.name);
  object.member("version", plugin.version);
  object.member("built_with", plugin.built_with);
  object.member("file", plugin.file.string());
  std::string& stages = object.key("stages");
  stages += '[';
  for (const StageDescriptor& stage : plugin.body->stages) {
    if (!stages.ends_with('[')) stages += ',';
    json::Object one(stages);
    one.member("use", use_name(plugin, stage));
    one.member("kind", kind_name(stage.kind));
    one.member("takes", takes(stage));
    one.member("gives", stage.output == nullptr ? std::string_view() : short_name(*stage.output));
    one.member("help", stage.help);
    json_options(stage.options, one.key("options"));
  }
  stages += ']';
}

}  // namespace

int plugins_command(const std::vector<std::string>& arguments) {
  po::options_description options("millrace plugins [NAME]");
  options.add_options()("help,h", "show this")("json", "for programs")(
      "markdown", "the option tables of a plugin's README")(
      "plugins", po::value<std::vector<std::string>>()->value_name("FOLDER"),
      "look for plugins here first (repeatable)");
  const po::variables_map map = parse(arguments, options, "name");
  if (map.count("help") != 0) {
    std::cout << options;
    return 0;
  }
  Registry registry = registry_from(map);
  std::vector<std::string> names;
  const bool all = map.count("name") == 0;
  if (!all) names = map["name"].as<std::vector<std::string>>();
  for (std::string& name : names) {
    name = name.substr(0, name.find('.'));
    if (registry.has(name)) continue;
    const std::string meant = nearest(name, registry.names());
    std::cerr << fmt::format("millrace: there is no plugin '{}'{}\n", name,
                             meant.empty() ? "" : fmt::format("; did you mean '{}'?", meant));
    return static_cast<int>(Exit::usage);
  }
  int exit = 0;
  std::string json = "[";
  for (const std::string& name : all ? registry.names() : names) {
    try {
      const Plugin& plugin = registry.load(name);
      if (map.count("json") != 0) {
        if (json.size() > 1) json += ',';
        json_plugin(plugin, json);
      } else if (map.count("markdown") != 0) {
        print_markdown(plugin);
      } else if (all) {
        for (const StageDescriptor& stage : plugin.body->stages) {
          std::cout << fmt::format("{:<20} {:<10} {:<36} {}\n", use_name(plugin, stage),
                                   kind_name(stage.kind), items(stage), stage.help);
        }
      } else {
        print_plugin(plugin);
      }
    } catch (const PluginError& error) {
      std::cerr << fmt::format("millrace: {}\n", error.what());
      exit = static_cast<int>(Exit::usage);
    }
  }
  if (map.count("json") != 0) std::cout << json << "]\n";
  return exit;
}

}  // namespace millrace::host
