// A plugin with one stage that does what `fault` says.

#include "millrace/packet.h"
#include "millrace/plugin.h"

namespace {

using namespace millrace;

enum class Fault : std::uint8_t { none, open, process, odd };

struct Options {
  Fault fault = Fault::none;
  std::uint32_t packets = 1;
};

class Good final : public Sink<Packet> {
 public:
  explicit Good(const Options& options) : fault_(options.fault) {}
  void open(Context& /*context*/) override {
    if (fault_ == Fault::open) throw std::runtime_error("open was told to throw");
  }
  void write(Batch<Packet>& /*in*/) override {
    if (fault_ == Fault::process) throw std::runtime_error("write was told to throw");
    if (fault_ == Fault::odd) throw 42;
  }
  void flush() override {
    if (fault_ == Fault::process) throw std::runtime_error("flush was told to throw");
  }

 private:
  Fault fault_;
};

}  // namespace

MILLRACE_PLUGIN("good", MILLRACE_VERSION,
                sink<Good, Options>("good", "Fails as it is told",
                                    option<&Options::fault>("fault", "where to throw")
                                        .choices({{"none", Fault::none},
                                                  {"open", Fault::open},
                                                  {"process", Fault::process},
                                                  {"odd", Fault::odd}})))
