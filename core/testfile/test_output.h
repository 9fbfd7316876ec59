#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <ostream>
#include <string>

#include "testfile/test_run.h"

namespace millrace::host {

struct TestCounts {
  std::size_t passed = 0;
  std::size_t failed = 0;
  std::size_t skipped = 0;
};

/// Tells how tests went, one after the other.
class TestOutput {
 public:
  explicit TestOutput(std::ostream& out) : out_(out) {}
  TestOutput(const TestOutput&) = delete;
  TestOutput& operator=(const TestOutput&) = delete;
  virtual ~TestOutput() = default;

  void add(const std::string& file, const Test& test, const TestResult& result);
  virtual void finish() = 0;
  [[nodiscard]] const TestCounts& counts() const { return counts_; }

 protected:
  virtual void tell(const std::string& file, const Test& test, const TestResult& result) = 0;
  std::ostream& out_;

 private:
  TestCounts counts_;
};

/// "text", "json" (an object a line) or "junit" (XML); null for another name.
[[nodiscard]] std::unique_ptr<TestOutput> make_test_output(const std::string& format,
                                                           std::ostream& out);

}  // namespace millrace::host
