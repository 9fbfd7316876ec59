#include "testfile/items.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/decode.h"
#include "millrace/session.h"
#include "millrace/ticket.h"
#include "millrace/verdict.h"

#include "config/toml.h"
#include "testfile/packet_bytes.h"

namespace millrace::host {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ItemsTest : public ::testing::Test {
 protected:
  std::shared_ptr<const ItemList> read(const std::string& text, std::size_t batch = 256) {
    report_ = {};
    const TomlDocument document = read_toml("t.toml", text, Variables(), report_);
    return read_items(document.root.at(0), batch, report_);
  }
  template <class T>
  const Batch<T>& batch(const ItemList& list, std::size_t number = 0) {
    EXPECT_EQ(*list.type, item_type<T>()) << report_.text();
    return static_cast<const Batch<T>&>(*list.batches.at(number));
  }

  Report report_;
};

/// Sums to 0xFFFF if the checksum in it is right (RFC 1071).
std::uint32_t sum_of(std::span<const std::byte> bytes, std::uint32_t sum = 0) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    sum += std::to_integer<std::uint32_t>(bytes[i]) << (i % 2 == 0 ? 8U : 0U);
  }
  while (sum >> 16U != 0) sum = (sum & 0xFFFFU) + (sum >> 16U);
  return sum;
}

TEST_F(ItemsTest, PacketsAreWholeFramesThatDecode) {
  const auto list = read(R"(packets = [
    { tcp = "10.0.0.1:1234 > 10.0.0.2:80", flags = "PA", payload = "GET", time = "2s" },
    { udp = "[fd00::1]:5353 > [fd00::2]:53", hex = "00 ff", agent = "probe" },
  ])");
  ASSERT_TRUE(report_.empty()) << report_.text();
  const auto& packets = batch<Packet>(*list).items;
  ASSERT_EQ(packets.size(), 2U);
  Decoded first;
  ASSERT_EQ(decode(packets[0], first), Decode::transport);
  EXPECT_EQ(to_string(first.key.low, 4), "10.0.0.1");
  EXPECT_EQ(first.key.high_port, 80);
  EXPECT_EQ(first.tcp_flags, 0x18);
  EXPECT_EQ(first.l7_size, 3U);
  EXPECT_EQ(packets[0].time, kTestBegin + 2s);
  Decoded second;
  ASSERT_EQ(decode(packets[1], second), Decode::transport);
  EXPECT_EQ(second.key.protocol, 17);
  EXPECT_EQ(second.key.family, 6);
  EXPECT_EQ(second.l7_size, 2U);
  EXPECT_EQ(packets[1].time, packets[0].time) << "as the one before";
  EXPECT_EQ(packets[1].origin->agent, "probe");
  EXPECT_EQ(list->batches[0]->watermark, kTestBegin + 2s);
}

TEST_F(ItemsTest, ChecksumsAreRight) {
  const auto list = read(R"(packets = [
    { tcp = "10.0.0.1:1234 > 10.0.0.2:80", payload = "odd" },
    { udp = "10.0.0.1:1234 > 10.0.0.2:80", payload = "even" },
  ])");
  for (const Packet& packet : batch<Packet>(*list).items) {
    const auto ip = packet.bytes().subspan(14);
    EXPECT_EQ(sum_of(ip.first(20)), 0xFFFFU);
    const auto transport = ip.subspan(20);
    const auto pseudo = static_cast<std::uint32_t>(transport.size()) +
                        std::to_integer<std::uint32_t>(ip[9]) + sum_of(ip.subspan(12, 8));
    EXPECT_EQ(sum_of(transport, pseudo), 0xFFFFU);
  }
}

TEST_F(ItemsTest, RepetitionsBatchesAndTimeAlone) {
  const auto list = read(R"(packets = [
    { udp = "10.0.0.1:1 > 10.0.0.2:2", repeat = 5, every = "1s" },
    { time = "60s" },
  ])",
                         2);
  ASSERT_TRUE(report_.empty()) << report_.text();
  ASSERT_EQ(list->batches.size(), 4U);
  EXPECT_EQ(batch<Packet>(*list, 1).items.at(1).time, kTestBegin + 3s);
  EXPECT_EQ(batch<Packet>(*list, 2).items.at(0).number, 4U);
  EXPECT_TRUE(batch<Packet>(*list, 3).items.empty());
  EXPECT_EQ(list->batches[3]->watermark, kTestBegin + 60s);
}

TEST_F(ItemsTest, SessionsVerdictsAndTicketsOfOneFlowHaveOneId) {
  const std::string flow = R"(src = "10.0.0.9", dst = "10.0.0.2", src_port = 1, dst_port = 80)";
  const auto sessions =
      read("sessions = [{ " + flow + R"(, payloads = ["GET /", "x"], reason = "timeout" }])");
  const Session& session = batch<Session>(*sessions).items.at(0);
  EXPECT_EQ(session.info.packets, 2U);
  EXPECT_EQ(session.info.payload_bytes, 6U);
  EXPECT_EQ(session.info.due, Due::timeout);
  EXPECT_EQ(endpoints(session.info).dst_port, 80);
  EXPECT_EQ(session.packets[0].from(Layer::l7).size(), 5U);
  const auto verdicts = read("verdicts = [{ " + flow + R"(, label = "web", confidence = 0.5 }])");
  const Verdict& verdict = batch<Verdict>(*verdicts).items.at(0);
  EXPECT_EQ(verdict.session.id, session.info.id);
  EXPECT_EQ(verdict.label, "web");
  const auto tickets = read("tickets = [{ " + flow + R"(, why = "full" }])");
  EXPECT_EQ(batch<Ticket>(*tickets).items.at(0).id, session.info.id);
}

TEST_F(ItemsTest, EveryMistakeIsToldAtItsPlace) {
  (void)read(R"(packets = [
    { tcp = "10.0.0.1:1 > fd00::2:2" },
    { udp = "10.0.0.1:1 > 10.0.0.2:2", flags = "S" },
    { udp = "10.0.0.1:1 > 10.0.0.2:70000" },
    { frame = "0g" },
    { paylaod = "x" },
    { tcp = "10.0.0.1:1 > 10.0.0.2:2", payload = "x", hex = "00" },
    { payload = "x", time = "1s" },
    7,
  ])");
  EXPECT_EQ(report_.size(), 8U) << report_.text();
  EXPECT_THAT(report_.text(), AllOf(HasSubstr("t.toml:2:13: error: these are no two endpoints"),
                                    HasSubstr("t.toml:3:48: error: UDP has no flags"),
                                    HasSubstr("did you mean 'payload'?"),
                                    HasSubstr("t.toml:9:5: error: this item is an integer")));
  (void)read(R"(sessions = [{ src = "10.0.0", dst = "fd00::1", protocol = "icmp" }])");
  EXPECT_EQ(report_.size(), 2U) << report_.text();
  (void)read(R"(changes = [{ kind = "updated", table = "t" }])");
  EXPECT_THAT(report_.text(), HasSubstr("did you mean 'update'?"));
}

TEST(FieldNamesTest, AreThoseOfTheDescription) {
  EXPECT_THAT(field_names(item_type<Verdict>()), ::testing::IsSupersetOf({"dst_port", "label"}));
  EXPECT_THAT(field_names(item_type<Packet>()),
              ElementsAre("time", "link_type", "length", "bytes"));
}

}  // namespace
}  // namespace millrace::host
