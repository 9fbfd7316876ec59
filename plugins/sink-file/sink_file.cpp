#include "sink_file.h"

#include <cstddef>
#include <utility>

#include <fmt/format.h>

namespace millrace {

namespace {
constexpr std::size_t kBuffer = std::size_t{64} * 1024;
}

void SinkFile::check(const FileOptions& options, Findings& findings) {
  if (options.path.empty()) findings.add("path", "expected a file name, or \"-\"");
  if (options.path == "-" && options.append) {
    findings.add("append", "standard output is always added to; leave 'append' out");
  }
}

void SinkFile::open(Context& context) {
  file_.open(options_.path, options_.append);
  begin_file(context);
}

/// Decides what stands before the first row.
void SinkFile::begin_file(Context& context) {
  const LineFile::Found found = options_.append ? file_.found() : LineFile::Found{};
  const bool begun = !found.first_line.empty() || found.ends_inside_line;
  if (begun && !continues(options_.format, found.first_line)) {
    throw ConfigError(
        "path", fmt::format("cannot append to '{}': its first line is no {} of this stage: {}",
                            options_.path,
                            options_.format == RowFormat::jsonl ? "JSON object" : "header line",
                            printable(found.first_line.substr(0, 60))));
  }
  std::string& text = file_.begin_line();
  if (found.ends_inside_line) {
    context.warning(
        fmt::format("the last line of '{}' was cut off; going on in a new line", options_.path));
    text += line_end(options_.format);
  }
  if (begun && options_.format == RowFormat::table) text += '\n';
  if (!begun || options_.format == RowFormat::table) text += header_line(options_.format);
  file_.end_line();
}

void SinkFile::write(Batch<Verdict>& in) {
  // The only thing that can fail comes first: a batch that is given again has left no lines behind.
  if (file_.waiting_bytes() >= kBuffer || in.items.empty()) write_out();
  if (in.items.empty()) return;
  for (const Verdict& verdict : in.items) {
    append_row(options_.format, verdict, file_.begin_line());
    file_.end_line();
    if (options_.format == RowFormat::table && options_.summary) summary_.add(verdict);
  }
  if (in.receipt) receipts_.push_back(std::move(in.receipt));
}

void SinkFile::flush() {
  if (options_.format == RowFormat::table && options_.summary && !std::exchange(summed_up_, true)) {
    file_.begin_line() += summary_.text();
    file_.end_line();
  }
  write_out();
}

void SinkFile::write_out() {
  file_.write_out();
  for (Receipt& receipt : receipts_) receipt.done();
  receipts_.clear();
}

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "sink-file", MILLRACE_VERSION,
    sink<SinkFile, FileOptions>(
        "sink-file", "Writes sessions as lines of JSON or CSV, or as a table to read",
        option<&FileOptions::path>(
            "path",
            "the file to write, made if it is not there (its folder must be); \"-\" is "
            "standard output")
            .required(),
        option<&FileOptions::format>(
            "format",
            "jsonl: one JSON object a line; csv: RFC 4180 with a header line; table: aligned "
            "columns for reading on a terminal")
            .choices({{"jsonl", RowFormat::jsonl},
                      {"csv", RowFormat::csv},
                      {"table", RowFormat::table}}),
        option<&FileOptions::append>(
            "append",
            "add to a file that is there already; its first line must be of the same format. "
            "false: its content is replaced when the first rows are written"),
        option<&FileOptions::summary>(
            "summary",
            "with format table: end with a line for each label, with its number of sessions, "
            "their share and the mean confidence; no effect on the other formats"))
        .accepts<Session>(&unlabelled)
        .checked(&SinkFile::check)
        .single("writes one file in order"))
