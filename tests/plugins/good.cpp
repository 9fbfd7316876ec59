// A plugin with one stage that does what `fault` says.

#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "millrace/packet.h"
#include "millrace/plugin.h"

namespace {

using namespace millrace;

enum class Fault : std::uint8_t { none, open, process, odd, crash };

struct Options {
  Fault fault = Fault::none;
  bool thread = false;
};

class Good final : public Sink<Packet> {
 public:
  explicit Good(const Options& options) : fault_(options.fault), with_thread_(options.thread) {}
  void open(Context& /*context*/) override {
    if (fault_ == Fault::open) throw std::runtime_error("open was told to throw");
    if (!with_thread_) return;
    // As libraries do it: with the signal mask that it is given.
    thread_ = std::jthread([this](const std::stop_token& stop) {
      std::unique_lock lock(mutex_);
      std::condition_variable_any().wait(lock, stop, [] { return false; });
    });
  }
  void write(Batch<Packet>& /*in*/) override {
    if (fault_ == Fault::process) throw std::runtime_error("write was told to throw");
    if (fault_ == Fault::odd) throw 42;
    if (fault_ == Fault::crash) std::abort();
  }
  void flush() override {
    if (fault_ == Fault::process) throw std::runtime_error("flush was told to throw");
  }

 private:
  Fault fault_;
  bool with_thread_;
  std::mutex mutex_;
  std::jthread thread_;
};

}  // namespace

MILLRACE_PLUGIN("good", MILLRACE_VERSION,
                sink<Good, Options>("good", "Fails as it is told",
                                    option<&Options::thread>("thread", "have a thread"),
                                    option<&Options::fault>("fault", "where to throw")
                                        .choices({{"none", Fault::none},
                                                  {"open", Fault::open},
                                                  {"process", Fault::process},
                                                  {"odd", Fault::odd},
                                                  {"crash", Fault::crash}})))
