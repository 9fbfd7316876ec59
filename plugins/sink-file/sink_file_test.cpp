#include "sink_file.h"

#include <array>
#include <csignal>
#include <utility>

#include <fcntl.h>
#include <sys/resource.h>

#include "file_fixture.h"

namespace millrace {
namespace {

using testing::Driven;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

TEST_F(SinkFileTest, FileIsReplacedWhenTheFirstRowsAreWritten) {
  std::ofstream(path_) << "the result of an earlier run, longer than one of the lines that come\n"
                       << std::string(1000, 'x');
  {
    // A pipeline that fails to start closes the stage right after it was opened.
    Driven<SinkFile> sink(context_, with(RowFormat::csv));
  }
  EXPECT_THAT(content(), StartsWith("the result of an earlier run"));
  run(with(RowFormat::csv), {example()});
  EXPECT_THAT(content(), StartsWith("session,"));
  EXPECT_EQ(lines(content()).size(), 2U);
}

TEST_F(SinkFileTest, RunWithoutSessionsLeavesAFileWithoutRows) {
  std::ofstream(path_) << "old\n";
  run(with(RowFormat::csv), {});
  EXPECT_EQ(lines(content()).size(), 1U);
  run(with(RowFormat::jsonl), {});
  EXPECT_THAT(content(), IsEmpty());
}

TEST_F(SinkFileTest, AppendKeepsOneHeader) {
  run(with(RowFormat::csv, true), {example()});
  run(with(RowFormat::csv, true), {example()});
  const std::string text = content();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);
  EXPECT_EQ(text.find("session,"), text.rfind("session,"));
}

TEST_F(SinkFileTest, AppendDoesNotMixFormats) {
  run(with(RowFormat::jsonl), {example()});
  const std::string before = content();
  SinkFile sink(with(RowFormat::csv, true));
  try {
    sink.open(context_);
    FAIL() << "the file holds another format";
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.option(), "path");
    EXPECT_THAT(error.what(), HasSubstr("no header line of this stage: {\"session\""));
  }
  EXPECT_EQ(content(), before);
}

TEST_F(SinkFileTest, AppendGoesOnInANewLineAfterACutOne) {
  std::ofstream(path_) << "{\"session\":\"ab";
  run(with(RowFormat::jsonl, true), {example()});
  ASSERT_EQ(lines(content()).size(), 2U);
  EXPECT_THAT(lines(content())[1], StartsWith("{\"session\":\"abab"));
  ASSERT_EQ(context_.messages().size(), 1U);
  EXPECT_EQ(context_.messages()[0].first, LogLevel::warning);
}

TEST_F(SinkFileTest, ReceiptIsResolvedWhenTheLinesAreWritten) {
  Driven<SinkFile> sink(context_, with(RowFormat::jsonl));
  sink.write({example()});
  EXPECT_EQ(sink.receipts.pending(), 1);
  EXPECT_THAT(content(), IsEmpty());
  sink.advance();
  EXPECT_EQ(sink.receipts.done(), 1);
  EXPECT_EQ(lines(content()).size(), 1U);
}

TEST_F(SinkFileTest, FullBufferIsWrittenWithoutAHeartbeat) {
  Driven<SinkFile> sink(context_, with(RowFormat::jsonl));
  for (int i = 0; i < 2; ++i) {
    sink.write(std::vector<Verdict>(1000, example()));
  }
  EXPECT_EQ(sink.receipts.done(), 1);
  EXPECT_EQ(sink.receipts.pending(), 1);
  EXPECT_EQ(lines(content()).size(), 1000U);
}

TEST_F(SinkFileTest, WhatIsNotWrittenFails) {
  testing::WatchedReceipt receipts;
  {
    Driven<SinkFile> sink(context_, with(RowFormat::jsonl));
    sink.write({example()});
    receipts = sink.receipts;
  }
  EXPECT_EQ(receipts.failed(), 1);
}

TEST_F(SinkFileTest, FullDiskIsTransientAndLeavesTheBatchAsItWas) {
  FileOptions options;
  options.path = "/dev/full";
  Driven<SinkFile> sink(context_, options);
  sink.write(std::vector<Verdict>(1000, example()));
  try {
    sink.write({example()});
    FAIL() << "the disk is full";
  } catch (const Transient& error) {
    EXPECT_THAT(error.what(), HasSubstr("'/dev/full': No space left on device"));
  }
  EXPECT_THROW(sink.flush(), Transient);
  EXPECT_EQ(sink.receipts.pending(), 2);
}

/// Sets the largest size of a file for as long as it lives: a real write that is cut short.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST_F(SinkFileTest, LineThatDoesNotFitLeavesNoTornLine) {
  Driven<SinkFile> sink(context_, with(RowFormat::jsonl));
  sink.write(std::vector<Verdict>(10, example()));
  std::string line;
  append_row(RowFormat::jsonl, example(), line);
  std::string message;
  {
    const FileSizeLimit limit(3 * line.size() + line.size() / 2);
    try {
      sink.flush();
    } catch (const Transient&) {
      message = "transient";
    } catch (const std::runtime_error& error) {
      message = error.what();
    }
  }
  EXPECT_THAT(message, HasSubstr(path_.string() + "': File too large"));
  EXPECT_EQ(content(), line + line + line);
  EXPECT_EQ(sink.receipts.pending(), 1);
  // Where it stopped it goes on, each line once.
  sink.flush();
  EXPECT_EQ(content().size(), 10 * line.size());
  EXPECT_EQ(lines(content()).size(), 10U);
  EXPECT_EQ(sink.receipts.done(), 1);
}

/// Standard output is a pipe for as long as it lives, or until the test closes its reading end.
class StandardOutputPipe {
 public:
  StandardOutputPipe() : before_(::dup(STDOUT_FILENO)) {
    std::fflush(stdout);
    EXPECT_EQ(::pipe(ends_.data()), 0);
    ::dup2(ends_[1], STDOUT_FILENO);
    ::close(ends_[1]);
  }
  StandardOutputPipe(const StandardOutputPipe&) = delete;
  StandardOutputPipe& operator=(const StandardOutputPipe&) = delete;
  ~StandardOutputPipe() {
    restore();
    close_reader();
  }
  void restore() {
    if (before_ < 0) return;
    std::fflush(stdout);
    ::dup2(before_, STDOUT_FILENO);
    ::close(std::exchange(before_, -1));
  }
  void close_reader() {
    if (ends_[0] >= 0) ::close(std::exchange(ends_[0], -1));
  }
  /// What is in the pipe now.
  std::string take() {
    ::fcntl(ends_[0], F_SETFL, O_NONBLOCK);
    std::string all;
    std::array<char, 4096> part{};
    ssize_t size = 0;
    while ((size = ::read(ends_[0], part.data(), part.size())) > 0) {
      all.append(part.data(), static_cast<std::size_t>(size));
    }
    return all;
  }

 private:
  int before_;
  std::array<int, 2> ends_{-1, -1};
};

TEST_F(SinkFileTest, DashIsStandardOutput) {
  StandardOutputPipe pipe;
  {
    FileOptions options;
    options.path = "-";
    Driven<SinkFile> sink(context_, options);
    pipe.restore();
    sink.write({example()});
    sink.flush();
  }
  EXPECT_EQ(lines(pipe.take()).size(), 1U);
  EXPECT_FALSE(fs::exists("-"));
}

TEST_F(SinkFileTest, ReaderThatHasGoneIsAnErrorThatSaysSo) {
  // The host ignores SIGPIPE as well.
  const auto handler = std::signal(SIGPIPE, SIG_IGN);
  StandardOutputPipe pipe;
  FileOptions options;
  options.path = "-";
  Driven<SinkFile> sink(context_, options);
  pipe.restore();
  pipe.close_reader();
  sink.write({example()});
  std::string message;
  try {
    sink.flush();
  } catch (const Transient&) {
    message = "transient";
  } catch (const std::runtime_error& error) {
    message = error.what();
  }
  std::signal(SIGPIPE, handler);
  EXPECT_EQ(message, "cannot write standard output: whoever read it has gone (Broken pipe)");
}

TEST_F(SinkFileTest, SlowReaderOfANonBlockingPipeLosesNothing) {
  StandardOutputPipe pipe;
  FileOptions options;
  options.path = "-";
  Driven<SinkFile> sink(context_, options);
  ::fcntl(STDOUT_FILENO, F_SETFL, O_NONBLOCK);
  pipe.restore();
  sink.write(std::vector<Verdict>(1000, example()));
  std::string all;
  int attempts = 0;
  for (bool written = false; !written; ++attempts) {
    try {
      sink.flush();
      written = true;
    } catch (const Transient&) {
      EXPECT_EQ(sink.receipts.pending(), 1);
      all += pipe.take();
    }
  }
  all += pipe.take();
  EXPECT_GT(attempts, 1);
  EXPECT_EQ(sink.receipts.done(), 1);
  const std::vector<std::string> rows = lines(all);
  ASSERT_EQ(rows.size(), 1000U);
  EXPECT_EQ(std::count(rows.begin(), rows.end(), rows[0]), 1000);
}

TEST_F(SinkFileTest, PlaceThatCannotBeWrittenIsAConfigurationError) {
  for (const std::string path : {"/nonexistent/folder/x", "/proc/x", "/"}) {
    FileOptions options;
    options.path = path;
    SinkFile sink(options);
    try {
      sink.open(context_);
      FAIL() << path;
    } catch (const ConfigError& error) {
      EXPECT_EQ(error.option(), "path");
      EXPECT_THAT(error.what(), HasSubstr("'" + path + "'"));
    }
  }
}

TEST(SinkFileCheck, FindsOptionsThatDoNotGoTogether) {
  Findings findings;
  SinkFile::check({.path = "-", .append = true}, findings);
  SinkFile::check({.path = ""}, findings);
  SinkFile::check({.path = "-"}, findings);
  ASSERT_EQ(findings.list().size(), 2U);
  EXPECT_EQ(findings.list()[0].option, "append");
  EXPECT_EQ(findings.list()[1].option, "path");
}

}  // namespace
}  // namespace millrace
