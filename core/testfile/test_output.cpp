#include "testfile/test_output.h"

#include <sstream>

#include <fmt/format.h>

namespace millrace::host {

namespace {

using Outcome = TestResult::Outcome;

double seconds(const TestResult& result) {
  return static_cast<double>(result.duration.count()) / 1000;
}

std::string indented(const std::string& text, const std::string& by) {
  std::string out;
  std::stringstream lines(text);
  for (std::string line; std::getline(lines, line);) out += by + line + '\n';
  return out;
}

/// The problems, the log and where the files lie.
std::string details(const TestResult& result) {
  std::string out;
  for (const std::string& problem : result.problems) out += problem;
  if (!result.log.empty()) out += "what the pipeline said:\n" + indented(result.log, "  ");
  if (!result.folder.empty()) out += fmt::format("its files: {}\n", result.folder);
  return out;
}

class TextOutput final : public TestOutput {
 public:
  using TestOutput::TestOutput;

  void finish() override {
    out_ << fmt::format("{} passed, {} failed", counts().passed, counts().failed);
    if (counts().skipped != 0) out_ << fmt::format(", {} skipped", counts().skipped);
    out_ << std::endl;
  }

 protected:
  void tell(const std::string& file, const Test& test, const TestResult& result) override {
    if (file != file_) out_ << file << '\n';
    file_ = file;
    switch (result.outcome) {
      case Outcome::passed:
        out_ << fmt::format("  PASS  {} ({:.2f} s)\n", test.name, seconds(result));
        break;
      case Outcome::skipped:
        out_ << fmt::format("  SKIP  {}: {}\n", test.name, result.reason);
        break;
      case Outcome::failed:
        out_ << fmt::format("  FAIL  {} ({:.2f} s)\n", test.name, seconds(result))
             << indented(details(result), "        ");
        break;
    }
    out_.flush();
  }

 private:
  std::string file_;
};

class JsonOutput final : public TestOutput {
 public:
  using TestOutput::TestOutput;

  void finish() override {
    write(
        {{"passed", counts().passed}, {"failed", counts().failed}, {"skipped", counts().skipped}});
  }

 protected:
  void tell(const std::string& file, const Test& test, const TestResult& result) override {
    constexpr const char* kNames[] = {"passed", "failed", "skipped"};
    Json line = {{"file", file},
                 {"test", test.name},
                 {"outcome", kNames[static_cast<std::size_t>(result.outcome)]},
                 {"seconds", seconds(result)}};
    if (result.outcome == Outcome::skipped) line["reason"] = result.reason;
    if (result.outcome == Outcome::failed) {
      line["problems"] = result.problems;
      line["log"] = result.log;
    }
    write(line);
  }

 private:
  void write(const Json& line) {
    out_ << line.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
  }
};

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') {
      out += '?';  // XML 1.0 has no way to write it
    } else {
      out += c;
    }
  }
  return out;
}

/// The form that continuous integration reads; one suite.
class JunitOutput final : public TestOutput {
 public:
  using TestOutput::TestOutput;

  void finish() override {
    const TestCounts& sums = counts();
    out_ << "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
         << fmt::format(
                "<testsuite name=\"millrace\" tests=\"{}\" failures=\"{}\" skipped=\"{}\">\n",
                sums.passed + sums.failed + sums.skipped, sums.failed, sums.skipped)
         << cases_ << "</testsuite>" << std::endl;
  }

 protected:
  void tell(const std::string& file, const Test& test, const TestResult& result) override {
    cases_ += fmt::format("  <testcase classname=\"{}\" name=\"{}\" time=\"{:.3f}\">",
                          escaped(file), escaped(test.name), seconds(result));
    if (result.outcome == Outcome::skipped) {
      cases_ += fmt::format("<skipped message=\"{}\"/>", escaped(result.reason));
    } else if (result.outcome == Outcome::failed) {
      cases_ += fmt::format("<failure>{}</failure>", escaped(details(result)));
    }
    cases_ += "</testcase>\n";
  }

 private:
  std::string cases_;
};

}  // namespace

void TestOutput::add(const std::string& file, const Test& test, const TestResult& result) {
  ++(result.outcome == Outcome::passed   ? counts_.passed
     : result.outcome == Outcome::failed ? counts_.failed
                                         : counts_.skipped);
  tell(file, test, result);
}

std::unique_ptr<TestOutput> make_test_output(const std::string& format, std::ostream& out) {
  if (format == "text") return std::make_unique<TextOutput>(out);
  if (format == "json") return std::make_unique<JsonOutput>(out);
  if (format == "junit") return std::make_unique<JunitOutput>(out);
  return nullptr;
}

}  // namespace millrace::host
