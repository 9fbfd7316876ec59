#include <fstream>
#include <stdexcept>
#include <string>

#include "millrace/change.h"
#include "millrace/plugin.h"

namespace millrace {

struct PrintOptions {
  std::string path;
};

/// Writes every change as a line of JSON, for the end-to-end test.
class PrintChanges final : public Sink<Change> {
 public:
  explicit PrintChanges(const PrintOptions& options) : file_(options.path, std::ios::app) {}

  void write(Batch<Change>& in) override {
    for (const Change& change : in.items) {
      std::string line;
      ItemTraits<Change>::describe(change, line);
      file_ << line << '\n';
    }
    if (!file_.flush()) throw std::runtime_error("cannot write the changes");
  }

 private:
  std::ofstream file_;
};

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN("print-changes", MILLRACE_VERSION,
                sink<PrintChanges, PrintOptions>(
                    "print-changes", "Writes changes as lines of JSON",
                    option<&PrintOptions::path>("path", "the file, added to").required()))
