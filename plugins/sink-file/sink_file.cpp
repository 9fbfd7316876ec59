#include "sink_file.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "millrace/plugin.h"

namespace millrace {

namespace {
constexpr std::size_t kBuffer = std::size_t{64} * 1024;
}

SinkFile::~SinkFile() {
  if (fd_ >= 0) ::close(fd_);
}

void SinkFile::open(Context& /*context*/) {
  if (options_.path == "-") {
    fd_ = ::dup(STDOUT_FILENO);
  } else {
    constexpr mode_t kMode = 0644;
    fd_ = ::open(options_.path.c_str(),
                 O_WRONLY | O_CREAT | O_CLOEXEC | (options_.append ? O_APPEND : O_TRUNC), kMode);
  }
  if (fd_ < 0) {
    throw ConfigError("path",
                      fmt::format("cannot write '{}': {}", options_.path, std::strerror(errno)));
  }
  const bool begun = options_.append && options_.path != "-" && ::lseek(fd_, 0, SEEK_END) > 0;
  if (!begun) buffer_ = header_line(options_.format);
}

void SinkFile::write(Batch<Verdict>& in) {
  // A batch that comes again after a failed attempt has its lines in the buffer already; so the
  // buffer is emptied before anything is added.
  if (buffer_.size() >= kBuffer || in.items.empty()) write_out();
  for (const Verdict& verdict : in.items) {
    append_row(options_.format, verdict, buffer_);
    if (options_.format == RowFormat::table && options_.summary) summary_.add(verdict);
  }
  if (!in.items.empty()) receipts_.push_back(std::move(in.receipt));
}

void SinkFile::flush() {
  if (options_.format == RowFormat::table && options_.summary && !std::exchange(summed_up_, true)) {
    buffer_ += summary_.text();
  }
  write_out();
}

void SinkFile::write_out() {
  while (written_ < buffer_.size()) {
    const ssize_t done = ::write(fd_, buffer_.data() + written_, buffer_.size() - written_);
    if (done >= 0) {
      written_ += static_cast<std::size_t>(done);
    } else if (errno == ENOSPC || errno == EAGAIN || errno == EDQUOT) {
      throw Transient(fmt::format("cannot write '{}': {}", options_.path, std::strerror(errno)));
    } else if (errno != EINTR) {
      throw std::runtime_error(
          fmt::format("cannot write '{}': {}", options_.path, std::strerror(errno)));
    }
  }
  buffer_.clear();
  written_ = 0;
  for (Receipt& receipt : receipts_) receipt.done();
  receipts_.clear();
}

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "sink-file", MILLRACE_VERSION,
    sink<SinkFile, FileOptions>(
        "sink-file", "Writes sessions as lines of JSON or CSV, or as a table to read",
        option<&FileOptions::path>("path", "the file; \"-\" is standard output").required(),
        option<&FileOptions::format>("format",
                                     "jsonl: a JSON object a line; csv: RFC 4180 with a header "
                                     "line; table: aligned columns with a summary by label")
            .choices({{"jsonl", RowFormat::jsonl},
                      {"csv", RowFormat::csv},
                      {"table", RowFormat::table}}),
        option<&FileOptions::append>(
            "append", "add to a file that is there already, instead of replacing it"),
        option<&FileOptions::summary>(
            "summary", "with format table: end with the number of sessions by label"))
        .accepts<Session>(&unlabelled)
        .single("writes one file in order"))
