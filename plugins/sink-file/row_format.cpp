#include "row_format.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include <fmt/format.h>

#include "millrace/json.h"

namespace millrace {

namespace {

void append_json(const Verdict& verdict, std::string& out) {
  out += '{';
  describe(verdict.session, out);
  out += ",\"label\":";
  json::append_string(out, verdict.label);
  fmt::format_to(std::back_inserter(out), ",\"confidence\":{:.4f},\"model\":", verdict.confidence);
  json::append_string(out, verdict.model);
  if (!verdict.probabilities.empty()) {
    out += ",\"probabilities\":{";
    for (std::size_t i = 0; i < verdict.probabilities.size(); ++i) {
      if (i != 0) out += ',';
      json::append_string(out, i < verdict.class_names.size()
                                   ? std::string_view(verdict.class_names[i])
                                   : std::string_view());
      fmt::format_to(std::back_inserter(out), ":{:.4f}", verdict.probabilities[i]);
    }
    out += '}';
  }
  out += "}\n";
}

/// RFC 4180: a field with a separator, a quote or a line end stands in quotes.
void append_csv_field(std::string_view field, std::string& out) {
  if (field.find_first_of(",\"\r\n") == std::string_view::npos) {
    out += field;
    return;
  }
  out += '"';
  for (const char c : field) {
    if (c == '"') out += '"';
    out += c;
  }
  out += '"';
}

void append_csv(const Verdict& verdict, std::string& out) {
  const SessionInfo& info = verdict.session;
  const Endpoints ends = endpoints(info);
  fmt::format_to(std::back_inserter(out), "{},{},{},{},{},{},{},{},{},{},{},{},", to_hex(info.id),
                 protocol_name(info.key.protocol), to_string(ends.src, info.key.family),
                 ends.src_port, to_string(ends.dst, info.key.family), ends.dst_port,
                 to_rfc3339(info.first_seen), to_rfc3339(info.last_seen), info.packets, info.bytes,
                 info.payload_bytes, to_string(info.due));
  append_csv_field(verdict.label, out);
  fmt::format_to(std::back_inserter(out), ",{:.4f},", verdict.confidence);
  append_csv_field(verdict.model, out);
  out += "\r\n";
}

std::string endpoint(const Address& address, std::uint8_t family, std::uint16_t port) {
  return family == 6 ? fmt::format("[{}]:{}", to_string(address, family), port)
                     : fmt::format("{}:{}", to_string(address, family), port);
}

void append_table(const Verdict& verdict, std::string& out) {
  const SessionInfo& info = verdict.session;
  const Endpoints ends = endpoints(info);
  // The first eight digits name a session well enough for an eye; the other formats have all.
  fmt::format_to(
      std::back_inserter(out), "{:<8}  {:<19}  {:<4}  {:<21}  {:<21}  {:>7}  {:>9}  {:<7}  {:<16}",
      to_hex(info.id).substr(0, 8), to_rfc3339(info.first_seen).substr(0, 19).replace(10, 1, " "),
      protocol_name(info.key.protocol), endpoint(ends.src, info.key.family, ends.src_port),
      endpoint(ends.dst, info.key.family, ends.dst_port), info.packets, info.bytes,
      to_string(info.due), verdict.label.empty() ? "-" : verdict.label);
  if (!verdict.model.empty())
    fmt::format_to(std::back_inserter(out), "  {:.4f}", verdict.confidence);
  while (out.ends_with(' ')) out.pop_back();
  out += '\n';
}

}  // namespace

std::string header_line(RowFormat format) {
  switch (format) {
    case RowFormat::csv:
      return "session,protocol,src,src_port,dst,dst_port,first_seen,last_seen,packets,bytes,"
             "payload_bytes,reason,label,confidence,model\r\n";
    case RowFormat::table:
      return fmt::format("{:<8}  {:<19}  {:<4}  {:<21}  {:<21}  {:>7}  {:>9}  {:<7}  {:<16}  {}\n",
                         "session", "first seen (UTC)", "prot", "src", "dst", "packets", "bytes",
                         "reason", "label", "confidence");
    case RowFormat::jsonl:
      break;
  }
  return {};
}

void append_row(RowFormat format, const Verdict& verdict, std::string& out) {
  switch (format) {
    case RowFormat::jsonl:
      return append_json(verdict, out);
    case RowFormat::csv:
      return append_csv(verdict, out);
    case RowFormat::table:
      return append_table(verdict, out);
  }
}

void LabelSummary::add(const Verdict& verdict) {
  auto line = lines_.find(verdict.label);
  if (line == lines_.end()) line = lines_.emplace(verdict.label, Line{}).first;
  ++line->second.sessions;
  line->second.confidence += static_cast<double>(verdict.confidence);
  ++sessions_;
}

std::string LabelSummary::text() const {
  std::vector<std::pair<std::string, Line>> sorted(lines_.begin(), lines_.end());
  std::ranges::stable_sort(sorted, std::ranges::greater(),
                           [](const auto& entry) { return entry.second.sessions; });
  std::string out =
      fmt::format("\n{:<16}  {:>9}  {:>6}  {}\n", "label", "sessions", "share", "mean confidence");
  for (const auto& [label, line] : sorted) {
    const auto count = static_cast<double>(line.sessions);
    out += fmt::format("{:<16}  {:>9}  {:>5.1f}%  {:.4f}\n", label.empty() ? "-" : label,
                       line.sessions, 100 * count / static_cast<double>(sessions_),
                       line.confidence / count);
  }
  out += fmt::format("{:<16}  {:>9}\n", "all", sessions_);
  return out;
}

}  // namespace millrace
