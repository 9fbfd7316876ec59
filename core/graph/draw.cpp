
#include <fmt/format.h>

#include "graph/plan.h"

namespace millrace::host {

namespace {

std::string edge_type(const Plan::Stage& from) {
  return std::string(short_name(*from.descriptor->output));
}

std::string draw_text(const Plan& plan) {
  std::string out = fmt::format("{}{}{}\n", plan.name, plan.about.empty() ? "" : ": ", plan.about);
  for (const Plan::Stage& stage : plan.stages) {
    out += fmt::format("  {:<16} {:<10} {:<20}", stage.name, kind_name(stage.kind), stage.use);
    if (stage.host.workers > 1) out += fmt::format(" x{}", stage.host.workers);
    for (std::size_t i = 0; i < stage.to.size(); ++i) {
      out += fmt::format("{}{}", i == 0 ? " --" + edge_type(stage) + "--> " : ", ",
                         plan.stages[stage.to[i].to].name);
    }
    while (out.ends_with(' ')) out.pop_back();
    out += '\n';
  }
  return out;
}

std::string draw_dot(const Plan& plan) {
  std::string out = "digraph pipeline {\n  rankdir=LR;\n  node [shape=box];\n";
  for (const Plan::Stage& stage : plan.stages) {
    out += fmt::format("  \"{}\" [label=\"{}\\n{}\"];\n", stage.name, stage.name, stage.use);
  }
  for (const Plan::Stage& stage : plan.stages) {
    for (const Plan::Edge& edge : stage.to) {
      out += fmt::format("  \"{}\" -> \"{}\" [label=\"{}\"];\n", stage.name,
                         plan.stages[edge.to].name, edge_type(stage));
    }
  }
  return out + "}\n";
}

std::string draw_mermaid(const Plan& plan) {
  std::string out = "flowchart LR\n";
  for (const Plan::Stage& stage : plan.stages) {
    out += fmt::format("  {}[\"{}<br>{}\"]\n", stage.name, stage.name, stage.use);
  }
  for (const Plan::Stage& stage : plan.stages) {
    for (const Plan::Edge& edge : stage.to) {
      out += fmt::format("  {} -- {} --> {}\n", stage.name, edge_type(stage),
                         plan.stages[edge.to].name);
    }
  }
  return out;
}

}  // namespace

std::string draw(const Plan& plan, GraphFormat format) {
  switch (format) {
    case GraphFormat::dot:
      return draw_dot(plan);
    case GraphFormat::mermaid:
      return draw_mermaid(plan);
    case GraphFormat::text:
      break;
  }
  return draw_text(plan);
}

}  // namespace millrace::host
