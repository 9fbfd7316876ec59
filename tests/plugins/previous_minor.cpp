// A plugin as the headers of plugin ABI 1.0 made it: its head ends before `built_with`, and right
// behind it lies what is no pointer.

#include "millrace/packet.h"
#include "millrace/plugin.h"

namespace {

using namespace millrace;

/// The head of ABI 1.0, member for member. Never to be changed.
struct HeadOf10 {
  char magic[8];
  std::uint32_t size;
  std::uint16_t abi_major;
  std::uint16_t abi_minor;
  const char* fingerprint;
  const char* name;
  const char* version;
  const PluginBody& (*body)();
};
static_assert(sizeof(HeadOf10) == kFirstHeadSize);

/// What the linker may well put behind a shorter head.
struct HeadAndRest {
  HeadOf10 head;
  std::uintptr_t rest;
};

class Halve final : public Transform<Packet, Packet> {
 public:
  void process(Batch<Packet>& in, Output<Packet>& out) override {
    Batch<Packet> half(
        {in.items.begin(), in.items.begin() + static_cast<long>(in.items.size() / 2)});
    half.storage = in.storage;
    out.push(std::move(half));
  }
};

const PluginBody& body() {
  static const PluginBody offered{{transform<Halve>("previous-minor", "Gives on the first half")}};
  return offered;
}

}  // namespace

extern "C" MILLRACE_EXPORT const HeadAndRest millrace_plugin;
const HeadAndRest millrace_plugin = {{MILLRACE_PLUGIN_MAGIC, sizeof(HeadOf10), 1, 0,
                                      MILLRACE_FINGERPRINT, "previous-minor", "0.1", &body},
                                     1};
