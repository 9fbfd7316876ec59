#include "row_format.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <vector>

#include <fmt/format.h>

namespace millrace {

namespace {

/// Four decimals and a point in every locale; `none` for what is no number.
void append_number(float value, std::string_view none, std::string& out) {
  if (std::isfinite(value)) {
    fmt::format_to(std::back_inserter(out), "{:.4f}", value);
  } else {
    out += none;
  }
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
  const auto to = std::back_inserter(out);
  fmt::format_to(to, "{},", to_hex(info.id));
  append_csv_field(info.agent, out);
  fmt::format_to(to, ",{},{},{},{},{},{},{},{},{},{},{},{},", protocol_name(info.key.protocol),
                 to_string(ends.src, info.key.family), ends.src_port,
                 to_string(ends.dst, info.key.family), ends.dst_port, info.epoch,
                 to_rfc3339(info.first_seen), to_rfc3339(info.last_seen), info.packets, info.bytes,
                 info.payload_bytes, to_string(info.due));
  append_csv_field(verdict.label, out);
  out += ',';
  append_number(verdict.confidence, "", out);
  out += ',';
  append_csv_field(verdict.model, out);
  out += "\r\n";
}

std::string endpoint(const Address& address, std::uint8_t family, std::uint16_t port) {
  return family == 6 ? fmt::format("[{}]:{}", to_string(address, family), port)
                     : fmt::format("{}:{}", to_string(address, family), port);
}

// Columns of the table, 105 wide before the label, so that a label of 15 letters ends at 120. An
// IPv4 endpoint always fits its column; the label comes last because it alone has no natural width.
constexpr int kTimeWidth = 19;
constexpr int kProtocolWidth = 5;
constexpr int kEndpointWidth = 21;
constexpr int kPacketsWidth = 6;
constexpr int kBytesWidth = 9;
constexpr int kReasonWidth = 7;
constexpr int kConfidenceWidth = 6;
constexpr int kBeforeSrc = kTimeWidth + 2 + kProtocolWidth + 1;
constexpr int kThroughDst = kBeforeSrc + kEndpointWidth + 1 + kEndpointWidth;

/// Endpoints that are too long for their columns (IPv6) stand one below the other. The lower one
/// begins where `src` does, or as far to the left of it as it needs.
void append_endpoints(const std::string& src, const std::string& dst, std::string& out) {
  const auto to = std::back_inserter(out);
  if (src.size() <= kEndpointWidth && dst.size() <= kEndpointWidth) {
    fmt::format_to(to, "{:<{}} {:<{}}", src, kEndpointWidth, dst, kEndpointWidth);
    return;
  }
  const int indent = std::min(kBeforeSrc, kThroughDst - static_cast<int>(dst.size()));
  fmt::format_to(to, "{}\n{:{}}{:<{}}", src, "", indent, dst, kThroughDst - indent);
}

/// Where the model was not sure enough for its most probable class, that one in brackets.
std::string shown_label(const Verdict& verdict) {
  if (verdict.label.empty()) return "-";
  std::string text = printable(verdict.label);
  const auto best = static_cast<std::size_t>(verdict.label_index);  // -1: beyond every class
  if (best < verdict.class_names.size() && verdict.class_names[best] != verdict.label) {
    text += fmt::format(" ({}?)", printable(verdict.class_names[best]));
  }
  return text;
}

void append_table(const Verdict& verdict, std::string& out) {
  const SessionInfo& info = verdict.session;
  const Endpoints ends = endpoints(info);
  fmt::format_to(std::back_inserter(out), "{:<{}}  {:<{}} ",
                 to_rfc3339(info.first_seen).substr(0, kTimeWidth).replace(10, 1, " "), kTimeWidth,
                 protocol_name(info.key.protocol), kProtocolWidth);
  append_endpoints(endpoint(ends.src, info.key.family, ends.src_port),
                   endpoint(ends.dst, info.key.family, ends.dst_port), out);
  std::string confidence;
  if (verdict.label.empty()) {
    confidence = "-";
  } else {
    append_number(verdict.confidence, "-", confidence);
  }
  fmt::format_to(std::back_inserter(out), " {:>{}} {:>{}}  {:<{}} {:>{}}  {}\n", info.packets,
                 kPacketsWidth, info.bytes, kBytesWidth, to_string(info.due), kReasonWidth,
                 confidence, kConfidenceWidth, shown_label(verdict));
}

}  // namespace

std::string header_line(RowFormat format) {
  switch (format) {
    case RowFormat::csv:
      return "session,agent,protocol,src,src_port,dst,dst_port,epoch,first_seen,last_seen,packets,"
             "bytes,payload_bytes,reason,label,confidence,model\r\n";
    case RowFormat::table:
      return fmt::format("{:<{}}  {:<{}} {:<{}} {:<{}} {:>{}} {:>{}}  {:<{}} {:>{}}  {}\n",
                         "first seen (UTC)", kTimeWidth, "proto", kProtocolWidth, "src",
                         kEndpointWidth, "dst", kEndpointWidth, "pkts", kPacketsWidth, "bytes",
                         kBytesWidth, "reason", kReasonWidth, "conf", kConfidenceWidth, "label");
    case RowFormat::jsonl:
      break;
  }
  return {};
}

std::string_view line_end(RowFormat format) { return format == RowFormat::csv ? "\r\n" : "\n"; }

bool continues(RowFormat format, std::string_view first_line) {
  if (format == RowFormat::jsonl) return first_line.starts_with('{');
  std::string header = header_line(format);
  header.resize(header.find_last_not_of("\r\n") + 1);
  return first_line == header;
}

std::string printable(std::string_view text) {
  std::string out(text);
  std::ranges::replace_if(
      out,
      [](char c) {
        const auto byte = static_cast<unsigned char>(c);
        return byte < 0x20 || byte == 0x7F;
      },
      '?');
  return out;
}

void append_row(RowFormat format, const Verdict& verdict, std::string& out) {
  switch (format) {
    case RowFormat::jsonl:
      ItemTraits<Verdict>::describe(verdict, out);
      out += '\n';
      return;
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
  ++sessions_;
  if (verdict.label.empty() || !std::isfinite(verdict.confidence)) return;
  ++line->second.sure;
  line->second.confidence += static_cast<double>(verdict.confidence);
}

std::string LabelSummary::text() const {
  std::vector<std::pair<std::string, Line>> sorted;
  std::size_t width = std::string_view("label").size();
  for (const auto& [label, line] : lines_) {
    sorted.emplace_back(label.empty() ? "-" : printable(label), line);
    width = std::max(width, sorted.back().first.size());
  }
  std::ranges::stable_sort(sorted, std::ranges::greater(),
                           [](const auto& entry) { return entry.second.sessions; });
  std::string out = fmt::format("\n{:<{}}  {:>10}  {:>6}  {:>15}\n", "label", width, "sessions",
                                "share", "mean confidence");
  for (const auto& [label, line] : sorted) {
    const std::string mean =
        line.sure == 0 ? "-"
                       : fmt::format("{:.4f}", line.confidence / static_cast<double>(line.sure));
    const double share = 100 * static_cast<double>(line.sessions) / static_cast<double>(sessions_);
    out += fmt::format("{:<{}}  {:>10}  {:>5.1f}%  {:>15}\n", label, width, line.sessions, share,
                       mean);
  }
  out += fmt::format("{:<{}}  {:>10}\n", "total", width, sessions_);
  return out;
}

}  // namespace millrace
