// Notices when what host and plugins have in common changes: sizes, places of members, and the
// order of virtual functions, compared with layout.txt beside this file.

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "millrace/change.h"
#include "millrace/features.h"
#include "millrace/packet.h"
#include "millrace/plugin.h"
#include "millrace/session.h"
#include "millrace/ticket.h"
#include "millrace/verdict.h"

namespace millrace {
namespace {

/// Which virtual function of its class this is. A pointer to one holds its offset in the table of
/// virtual functions, plus 1 (Itanium C++ ABI 2.3).
template <class F>
std::size_t place(F function) {
  std::size_t offset = 0;
  static_assert(sizeof function == 2 * sizeof offset);
  std::memcpy(&offset, &function, sizeof offset);
  return (offset - 1) / sizeof(void*);
}

/// Bytes before a member. Not offsetof, which is for types of standard layout.
template <class Type, class Member>
std::size_t place_of(Member Type::*member) {
  const Type object{};
  return static_cast<std::size_t>(reinterpret_cast<const char*>(&(object.*member)) -
                                  reinterpret_cast<const char*>(&object));
}

/// To get at what is protected.
struct OpenContext : Context {
  using Context::shared_erased;
};

#define SIZE(type) text += fmt::format("size {} {}\n", #type, sizeof(type))
#define MEMBER(type, member) \
  text += fmt::format("member {}::{} {}\n", #type, #member, place_of(&type::member))
#define VIRTUAL(type, function) \
  text += fmt::format("virtual {}::{} {}\n", #type, #function, place(&type::function))

std::string layout() {
  std::string text = fmt::format("revision {}\n", MILLRACE_SDK_REVISION);
  SIZE(Receipt);
  SIZE(ReceiptWindow);
  SIZE(ReceiptLedger);
  SIZE(BatchBase);
  SIZE(Batch<Packet>);
  SIZE(ItemType);
  MEMBER(ItemType, name);
  MEMBER(ItemType, destroy);
  MEMBER(ItemType, empty);
  MEMBER(ItemType, box);
  MEMBER(ItemType, clone);
  MEMBER(ItemType, count);
  MEMBER(ItemType, extract);
  MEMBER(ItemType, append);
  MEMBER(ItemType, describe);

  SIZE(Packet);
  MEMBER(Packet, data);
  MEMBER(Packet, captured);
  MEMBER(Packet, link);
  MEMBER(Packet, origin);
  SIZE(Origin);
  SIZE(FiveTuple);
  SIZE(SessionInfo);
  MEMBER(SessionInfo, key);
  MEMBER(SessionInfo, epoch);
  MEMBER(SessionInfo, first_seen);
  MEMBER(SessionInfo, bytes);
  MEMBER(SessionInfo, agent);
  SIZE(SessionPacket);
  SIZE(Session);
  MEMBER(Session, packets);
  SIZE(Verdict);
  MEMBER(Verdict, label);
  MEMBER(Verdict, confidence);
  MEMBER(Verdict, probabilities);
  SIZE(Ticket);
  MEMBER(Ticket, why);
  SIZE(Change);
  MEMBER(Change, before);

  SIZE(OptionValue);
  SIZE(OptionError);
  SIZE(OptionSpec);
  MEMBER(OptionSpec, assign);
  SIZE(Findings);
  SIZE(InputAdapter);
  SIZE(StageDescriptor);
  MEMBER(StageDescriptor, input);
  MEMBER(StageDescriptor, options);
  MEMBER(StageDescriptor, create);
  MEMBER(StageDescriptor, check);
  MEMBER(StageDescriptor, create_provider);
  SIZE(PluginBody);
  SIZE(ConfigValues);
  SIZE(ConfigStatus);
  SIZE(Counter);
  SIZE(Coalesce);

  SIZE(Downstream);
  VIRTUAL(Downstream, push);
  SIZE(Stage);
  VIRTUAL(Stage, open);
  VIRTUAL(Stage, close);
  VIRTUAL(Stage, coalesce);
  VIRTUAL(Stage, run_erased);
  VIRTUAL(Stage, process_erased);
  VIRTUAL(Stage, flush_erased);
  VIRTUAL(Source<Packet>, run);
  using PacketTransform = Transform<Packet, Packet>;
  VIRTUAL(PacketTransform, process);
  VIRTUAL(PacketTransform, flush);
  VIRTUAL(Sink<Packet>, write);
  VIRTUAL(Sink<Packet>, flush);
  VIRTUAL(Clock, now);
  VIRTUAL(Condition, fails);
  VIRTUAL(Condition, holds);
  VIRTUAL(Context, stage);
  VIRTUAL(Context, clock);
  VIRTUAL(Context, log);
  VIRTUAL(Context, counter);
  VIRTUAL(Context, dropped);
  VIRTUAL(Context, handled);
  VIRTUAL(Context, progress);
  VIRTUAL(Context, condition);
  VIRTUAL(Context, not_ready);
  VIRTUAL(Context, incomplete);
  VIRTUAL(Context, find_file);
  VIRTUAL(OpenContext, shared_erased);
  VIRTUAL(ConfigListener, changed);
  VIRTUAL(ConfigListener, unreadable);
  VIRTUAL(ConfigProvider, open);
  VIRTUAL(ConfigProvider, run);
  VIRTUAL(ConfigProvider, report);
  VIRTUAL(ConfigProvider, close);
  return text;
}

TEST(SdkLayoutTest, IsThatOfItsRevision) {
#if defined(_GLIBCXX_DEBUG)
  GTEST_SKIP() << "debug containers have another layout, and a fingerprint of their own";
#endif
  const std::string path = MILLRACE_LAYOUT;
  if (std::getenv("MILLRACE_WRITE_LAYOUT") != nullptr) std::ofstream(path) << layout();
  std::stringstream written;
  written << std::ifstream(path).rdbuf();
  EXPECT_EQ(layout(), written.str())
      << "A header of the SDK has changed so that plugins must be built again.\nIf a release has "
         "had "
         "this MILLRACE_SDK_REVISION, raise it (core/include/millrace/abi.h). Then write the new "
         "layout down:\n  MILLRACE_WRITE_LAYOUT=1 core-test --gtest_filter='SdkLayoutTest.*'\nand "
         "commit "
      << path << " with the change.";
}

}  // namespace
}  // namespace millrace
