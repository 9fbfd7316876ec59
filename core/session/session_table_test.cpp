#include "millrace/session_table.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/testing/items.h"

namespace millrace {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using testing::Packets;

/// Sessions as "port:packets:reason:epoch".
class Seen {
 public:
  SessionTable::Emit emit() {
    return [this](const Session& session, std::uint64_t born) {
      std::string text =
          std::to_string(std::min(session.info.key.low_port, session.info.key.high_port)) + ":" +
          std::to_string(session.packets.size()) + ":" + std::string(to_string(session.info.due));
      if (session.info.epoch != 0) text += ":" + std::to_string(session.info.epoch);
      sessions.push_back(text);
      ids.push_back(to_hex(session.info.id));
      EXPECT_EQ(session.info.packets, session.packets.size());
      last_born = born;
      last_bytes.clear();
      for (const SessionPacket& packet : session.packets) {
        last_bytes.append(reinterpret_cast<const char*>(packet.data), packet.size);
      }
    };
  }
  std::vector<std::string> sessions;
  std::vector<std::string> ids;
  std::string last_bytes;
  std::uint64_t last_born = 0;
};

void give(SessionTable& table, Seen& seen, const Packet& packet) {
  table.add(std::span(&packet, 1), 0, seen.emit());
}

TEST(SessionTableTest, FullAtExactlySoManyPackets) {
  SessionTable table({.packets = 3});
  Packets packets;
  Seen seen;
  for (int i = 0; i < 5; ++i) give(table, seen, packets.add({.dst_port = 80}));
  table.flush(seen.emit());
  EXPECT_THAT(seen.sessions, ElementsAre("80:3:full"));
  EXPECT_EQ(table.counts().after_due, 2U);
}

TEST(SessionTableTest, EqualPayloadsAreDifferentPackets) {
  SessionTable table({.packets = 24});
  Packets packets;
  Seen seen;
  for (int i = 0; i < 24; ++i) give(table, seen, packets.add({.payload = 2}));
  EXPECT_THAT(seen.sessions, ElementsAre("80:24:full"));
  EXPECT_EQ(seen.last_bytes, std::string(48, 'A'));
}

TEST(SessionTableTest, DueAfterDelayOnPacketTimeAndOnWatermark) {
  SessionTable table({.delay = 10s});
  Packets packets;
  Seen seen;
  give(table, seen, packets.add({.dst_port = 80}, 1s));
  give(table, seen, packets.add({.dst_port = 80}, 10999ms));
  give(table, seen, packets.add({.dst_port = 80}, 11s));
  EXPECT_THAT(seen.sessions, ElementsAre("80:2:timeout"));
  give(table, seen, packets.add({.dst_port = 81}, 11500ms));
  table.advance(Timestamp(21499ms), seen.emit());
  EXPECT_EQ(seen.sessions.size(), 1U);
  table.advance(Timestamp(21500ms), seen.emit());
  EXPECT_THAT(seen.sessions, ElementsAre("80:2:timeout", "81:1:timeout"));
  EXPECT_EQ(table.counts().after_due, 1U);
}

// Those of others that come meanwhile say that time has passed, and some that they do not.
TEST(SessionTableTest, SilentSessionIsDueByTheTimesOfOthers) {
  SessionTable table({.packets = 1000, .delay = 10s});
  Packets packets;
  Seen seen;
  give(table, seen, packets.add({.dst_port = 80}, 1s));
  for (int i = 0; i < 200; ++i) {
    give(table, seen, packets.add({.dst_port = 81}, 1s + i * 50ms));
    EXPECT_TRUE(seen.sessions.empty()) << i;
  }
  for (int i = 0; i < 40; ++i) give(table, seen, packets.add({.dst_port = 82}, 11s + i * 50ms));
  EXPECT_THAT(seen.sessions, ElementsAre("80:1:timeout", "81:200:timeout"));
}

TEST(SessionTableTest, NewEpochAfterIdleOrWithSyn) {
  SessionTable table({.packets = 1, .idle = 60s});
  Packets packets;
  Seen seen;
  give(table, seen, packets.add({.tcp = true}, 1s));
  give(table, seen, packets.add({.tcp = true}, 61s));  // not idle for longer than 60 s
  give(table, seen,
       packets.add({.tcp = true, .flags = kTcpSyn | kTcpAck}, 62s));  // an answer opens nothing
  give(table, seen, packets.add({.tcp = true, .flags = kTcpSyn}, 63s));
  give(table, seen, packets.add({.tcp = true}, 200s));
  EXPECT_THAT(seen.sessions, ElementsAre("80:1:full", "80:1:full:1", "80:1:full:2"));
  EXPECT_EQ(table.counts().after_due, 2U);
  EXPECT_NE(seen.ids[0], seen.ids[1]);
  EXPECT_NE(seen.ids[0], seen.ids[2]);
}

TEST(SessionTableTest, EpochsWithEqualTimesHaveDifferentIds) {
  SessionTable table({.packets = 1});
  Packets packets;
  Seen seen;
  for (int i = 0; i < 3; ++i) give(table, seen, packets.add({.tcp = true, .flags = kTcpSyn}));
  EXPECT_THAT(seen.sessions, ElementsAre("80:1:full", "80:1:full:1", "80:1:full:2"));
  EXPECT_EQ(std::set<std::string>(seen.ids.begin(), seen.ids.end()).size(), 3U);
}

TEST(SessionTableTest, FullTableForgetsDoneOnesFirstThenEvictsTheOldest) {
  SessionTable table({.packets = 2, .max_sessions = 2});
  Packets packets;
  Seen seen;
  give(table, seen, packets.add({.dst_port = 80}));
  give(table, seen, packets.add({.dst_port = 81}));
  give(table, seen, packets.add({.dst_port = 81}));  // done
  give(table, seen, packets.add({.dst_port = 82}));  // takes the place of 81
  EXPECT_THAT(seen.sessions, ElementsAre("81:2:full"));
  give(table, seen, packets.add({.dst_port = 83}));  // takes the place of 80
  EXPECT_THAT(seen.sessions, ElementsAre("81:2:full", "80:1:evicted"));
  EXPECT_EQ(table.size(), 2U);
  EXPECT_EQ(table.counts().forgotten, 2U);
}

TEST(SessionTableTest, BytesAreBounded) {
  constexpr std::uint64_t kBound = 64 * 1024;
  SessionTable table({.packets = 100, .max_bytes = kBound});
  Packets packets;
  Seen seen;
  for (std::uint16_t i = 0; i < 500; ++i) {
    give(table, seen,
         packets.add({.dst_port = static_cast<std::uint16_t>(1 + i % 90), .payload = 1000}));
    ASSERT_LE(table.bytes_held(), kBound);
  }
  table.flush(seen.emit());
  EXPECT_EQ(table.bytes_held(), 0U);
  EXPECT_THAT(seen.sessions, ::testing::Contains(::testing::HasSubstr("evicted")));
  EXPECT_EQ(table.counts().stored + table.counts().after_due, 500U);
}

/// A TCP segment in fragments of these sizes; the header has 20 bytes and `options`, the payload is
/// "PAYLOAD" and what follows.
std::vector<std::vector<std::uint8_t>> fragments_of_tcp(std::size_t options,
                                                        const std::vector<std::size_t>& sizes) {
  std::vector<std::uint8_t> ip = Packets::ipv4({.payload = 0, .tcp = true, .id = 9});
  ip.insert(ip.end(), options, std::uint8_t{1});
  ip[32] = static_cast<std::uint8_t>((20 + options) << 2U);
  for (const char c : std::string_view("PAYLOAD AND MORE OF IT")) {
    ip.push_back(static_cast<std::uint8_t>(c));
  }
  const std::vector<std::uint8_t> head(ip.begin(), ip.begin() + 20);
  std::vector<std::vector<std::uint8_t>> frames;
  std::size_t at = 20;
  for (const std::size_t size : sizes) {
    const std::size_t end = std::min(ip.size(), at + size);
    std::vector<std::uint8_t> part = head;
    part.insert(part.end(), ip.begin() + static_cast<std::ptrdiff_t>(at),
                ip.begin() + static_cast<std::ptrdiff_t>(end));
    Packets::put(part, 2, static_cast<std::uint16_t>(part.size()));
    Packets::put(part, 6,
                 static_cast<std::uint16_t>((at - 20) / 8 + (end == ip.size() ? 0 : 0x2000)));
    frames.push_back(Packets::ethernet(part));
    at = end;
  }
  return frames;
}

TEST(SessionTableTest, TheRestOfATransportHeaderIsNoPayload) {
  const std::vector<std::size_t> rest_in_second = {8, 1000};
  const std::vector<std::size_t> rest_in_many = {8, 8, 8, 8, 1000};
  const std::vector<std::size_t> header_known = {16, 8, 16, 1000};
  for (const std::size_t options : {0, 12, 40}) {
    for (const auto& sizes : {rest_in_second, rest_in_many, header_known}) {
      SessionTable table({.packets = 24});
      Packets packets;
      Seen seen;
      for (const auto& frame : fragments_of_tcp(options, sizes)) {
        give(table, seen, packets.raw(frame));
      }
      table.flush(seen.emit());
      EXPECT_EQ(seen.last_bytes, "PAYLOAD AND MORE OF IT") << options;
    }
  }
}

TEST(SessionTableTest, Ipv6FragmentsOfWhatBeginsWithOptionsJoin) {
  const auto fragment = [](std::uint8_t next, std::uint16_t offset, std::string_view data) {
    std::vector<std::uint8_t> ip(40);
    ip[0] = 0x60;
    Packets::put(ip, 4, static_cast<std::uint16_t>(8 + data.size()));
    ip[6] = 44;
    ip[23] = 1;
    ip[39] = 2;
    std::vector<std::uint8_t> part = {next, 0, 0, 0, 0, 0, 0, 7};
    Packets::put(part, 2, offset);
    for (const char c : data) part.push_back(static_cast<std::uint8_t>(c));
    return Packets::ethernet(Packets::behind(ip, part), 0x86DD);
  };
  SessionTable table({.packets = 24});
  Packets packets;
  Seen seen;
  using namespace std::string_view_literals;
  give(table, seen,
       packets.raw(fragment(60, 1, "\x11\0\0\0\0\0\0\0\3\xE8\0\x35\0\x18\0\0first..."sv)));
  // The next header of a later fragment means nothing.
  give(table, seen, packets.raw(fragment(60, 24 | 1, "second.."sv)));
  give(table, seen, packets.raw(fragment(17, 32, "third"sv)));
  table.flush(seen.emit());
  EXPECT_EQ(seen.last_bytes, "first...second..third");
  EXPECT_EQ(table.counts().joined_fragments, 2U);
}

TEST(SessionTableTest, FragmentsJoinTheSessionOfTheFirst) {
  SessionTable table({.packets = 3});
  Packets packets;
  Seen seen;
  give(table, seen, packets.add({.payload = 16, .fragment = 0x2000, .id = 7, .fill = 'a'}));
  give(table, seen, packets.add({.payload = 8, .fragment = 0x2003, .id = 7, .fill = 'b'}));
  give(table, seen, packets.add({.payload = 8, .fragment = 4, .id = 8}));  // of an unknown packet
  give(table, seen, packets.add({.payload = 4, .fragment = 4, .id = 7, .fill = 'c'}));
  EXPECT_THAT(seen.sessions, ElementsAre("80:3:full"));
  EXPECT_EQ(seen.last_bytes, std::string(16, 'a') + std::string(8, 'b') + std::string(4, 'c'));
  EXPECT_EQ(table.counts().joined_fragments, 2U);
  EXPECT_EQ(table.counts().lost_fragments, 1U);
}

TEST(SessionTableTest, ResultDoesNotDependOnBatchesOrSeed) {
  Packets packets;
  std::vector<Packet> all;
  std::uint32_t random = 1;
  for (int i = 0; i < 5000; ++i) {
    random = random * 1664525U + 1013904223U;
    const auto port = static_cast<std::uint16_t>(1 + (random >> 16U) % 200);
    const auto late = Duration((random >> 8U) % 3 == 0 ? 50ms : 0ms);  // out of order
    const std::uint8_t flags = (random >> 24U) % 16 == 0 ? kTcpSyn : kTcpAck;
    all.push_back(packets.add({.dst_port = port, .tcp = (random & 0x800U) != 0, .flags = flags},
                              Duration(20ms) * i + 1s - late));
  }
  std::vector<std::vector<std::string>> results;
  for (const std::size_t size : {std::size_t{1}, std::size_t{7}, std::size_t{5000}}) {
    SessionTable table({.packets = 5, .delay = 2s, .idle = 5s, .max_sessions = 100});
    Seen seen;
    for (std::size_t at = 0; at < all.size(); at += size) {
      table.add(std::span(all).subspan(at, std::min(size, all.size() - at)), 0, seen.emit());
    }
    table.flush(seen.emit());
    results.push_back(seen.ids);
  }
  EXPECT_GT(results[0].size(), 500U);
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

/// Ten five-tuples of three packets each every ten seconds for ten minutes, and among them `odd`
/// before the packets of these numbers. What comes of the ten.
std::vector<std::string> with_odd_packets(const std::map<int, std::vector<Duration>>& odd,
                                          bool decodable, std::size_t batch) {
  Packets packets;
  std::vector<Packet> all;
  int number = 0;
  for (int round = 0; round < 60; ++round) {
    for (int turn = 0; turn < 3; ++turn) {
      for (int port = 0; port < 10; ++port) {
        if (const auto found = odd.find(number); found != odd.end()) {
          for (const Duration time : found->second) {
            // A later fragment of which nothing is known belongs to no session.
            all.push_back(decodable ? packets.add({.dst_port = 9}, time)
                                    : packets.add({.dst_port = 9, .fragment = 4, .id = 9}, time));
          }
        }
        ++number;
        all.push_back(packets.add(
            {.dst_port = static_cast<std::uint16_t>(100 + port)},
            std::chrono::hours(24 * 365 * 40) + round * 10s + turn * 1500ms + port * 100ms));
      }
    }
  }
  SessionTable table({.packets = 4, .delay = 5s, .idle = 4s});
  std::vector<std::string> seen;
  const auto note = [&](const Session& session, std::uint64_t) {
    const SessionInfo& info = session.info;
    if (std::min(info.key.low_port, info.key.high_port) == 9) return;
    seen.push_back(to_hex(info.id) + " " + std::to_string(info.packets) + " " +
                   std::to_string(info.epoch) + " " + std::string(to_string(info.due)));
  };
  for (std::size_t at = 0; at < all.size(); at += batch) {
    table.add(std::span(all).subspan(at, std::min(batch, all.size() - at)), 0, note);
  }
  table.flush(note);
  std::ranges::sort(seen);
  return seen;
}

// Few packets, so that the clock needs some of them until it follows.
TEST(SessionTableTest, SilentSessionsOfThinTrafficAreNotDueTooEarly) {
  SessionTable table({.delay = 10s});
  Packets packets;
  Seen seen;
  for (int i = 0; i < 200; ++i) {
    const auto port = static_cast<std::uint16_t>(100 + i);
    give(table, seen, packets.add({.dst_port = port}, i * 1900ms));
    if (i >= 4) {
      const auto before = static_cast<std::uint16_t>(100 + i - 4);
      give(table, seen, packets.add({.dst_port = before}, i * 1900ms + 1ms));
    }
  }
  table.flush(seen.emit());
  EXPECT_EQ(seen.sessions.size(), 200U);
  EXPECT_EQ(table.counts().after_due, 0U);
}

TEST(SessionTableTest, WrongTimesOfSomePacketsChangeNoOtherSession) {
  const auto right = with_odd_packets({}, true, 64);
  EXPECT_EQ(right.size(), 600U);
  const Duration future = std::chrono::hours(24 * 365 * 136);
  const Duration now = std::chrono::hours(24 * 365 * 40);
  const std::vector<std::map<int, std::vector<Duration>>> cases = {
      {{0, {future}}},
      {{900, {future}}},
      {{1799, {future}}},
      {{0, {0s}}},
      {{901, {0s}}},
      {{902, {Timestamp::max().time_since_epoch()}}},
      {{903, {Timestamp::min().time_since_epoch()}}},
      {{904, {now + 7200s}}},
      {{905, {now + 340s}}},
      {{906, {now}}},
      {{0, std::vector<Duration>(5, future)}, {907, std::vector<Duration>(5, future)}},
      {{3, {future, 0s, future, 0s, future, 0s, future}}, {908, {0s, future, now, future}}},
      {{0, std::vector<Duration>(100, future)}},
      {{0, std::vector<Duration>(5, 0s)}}};
  for (std::size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(i);
    for (const bool decodable : {true, false}) {
      for (const std::size_t batch : {std::size_t{1}, std::size_t{64}, std::size_t{5000}}) {
        const auto got = with_odd_packets(cases[i], decodable, batch);
        std::vector<std::string> differ;
        std::ranges::set_symmetric_difference(got, right, std::back_inserter(differ));
        EXPECT_THAT(differ, ::testing::IsEmpty()) << decodable;
      }
    }
  }
}

TEST(SessionTableTest, ClockThatIsSetBackOrAheadLosesNothing) {
  for (const Duration jump : {Duration(-1h), Duration(24h), Duration(-24h), Duration(-90s)}) {
    SCOPED_TRACE(jump.count());
    SessionTable table({.packets = 24});
    Packets packets;
    Seen seen;
    for (int burst = 0; burst < 4; ++burst) {
      const Duration begin =
          48h + burst * 600s + (burst >= 1 ? jump : 0s) - (burst >= 3 ? jump : 0s);
      for (int i = 0; i < 24; ++i) give(table, seen, packets.add({}, begin + i * 10ms));
    }
    EXPECT_THAT(seen.sessions, ElementsAre("80:24:full", ::testing::StartsWith("80:24:full"),
                                           ::testing::StartsWith("80:24:full"),
                                           ::testing::StartsWith("80:24:full")));
    EXPECT_EQ(table.counts().after_due, 0U);
  }
}

TEST(SessionTableTest, SilentSessionsTimeOutAfterTheClockWasSetBack) {
  SessionTable table({});
  Packets packets;
  Seen seen;
  give(table, seen, packets.add({.dst_port = 80}, 10h));
  table.advance(Timestamp(10h), seen.emit());
  // As a quiet interface tells it, by the clock on the wall.
  for (int i = 0; i < 140; ++i) table.advance(Timestamp(9h + i * 100ms), seen.emit());
  EXPECT_THAT(seen.sessions, ElementsAre("80:1:timeout"));
  EXPECT_EQ(table.counts().clock_jumps, 1U);
  give(table, seen, packets.add({.dst_port = 81}, 9h + 14s));
  for (int i = 140; i < 280; ++i) table.advance(Timestamp(9h + i * 100ms), seen.emit());
  EXPECT_THAT(seen.sessions, ElementsAre("80:1:timeout", "81:1:timeout"));
}

// A device without a battery for its clock.
TEST(SessionTableTest, ClockThatBeginsIn1970AtEveryStartKeepsTiming) {
  SessionTable table({.packets = 1000});
  Packets packets;
  Seen seen;
  for (int start = 0; start < 20; ++start) {
    for (const Duration begin : {Duration(100s), Duration(std::chrono::hours(24 * 365 * 54))}) {
      for (int i = 0; i < 100; ++i) {
        give(table, seen, packets.add({.dst_port = 80}, begin + start * 1h + i * 100ms));
      }
    }
  }
  seen.sessions.clear();
  const Duration now = std::chrono::hours(24 * 365 * 54) + 20h;
  for (int i = 0; i < 200; ++i) {
    give(table, seen,
         packets.add({.dst_port = static_cast<std::uint16_t>(i == 0 ? 81 : 82)}, now + i * 100ms));
  }
  EXPECT_THAT(seen.sessions, ::testing::Contains("81:1:timeout"));
}

TEST(SessionTableTest, WrongTimeWithinAFiveTupleLosesNoPacket) {
  SessionTable table({.packets = 24});
  Packets packets;
  Seen seen;
  give(table, seen, packets.add({}, 10h));
  give(table, seen, packets.add({}, std::chrono::hours(24 * 365 * 100)));
  give(table, seen, packets.add({}, 10h + 1s));
  give(table, seen, packets.add({}, 0s));
  give(table, seen, packets.add({}, 10h + 2s));
  give(table, seen, packets.add({}, 10h + 1s));  // a little out of order
  table.flush(seen.emit());
  EXPECT_EQ(table.counts().stored, 6U);
  EXPECT_EQ(table.counts().after_due, 0U);
  EXPECT_EQ(std::set<std::string>(seen.ids.begin(), seen.ids.end()).size(), 5U);
}

TEST(SessionTableTest, WhatDoesNotContinueBeginsAnew) {
  SessionTable table({.packets = 2});
  Packets packets;
  Seen seen;
  for (int i = 0; i < 3; ++i) give(table, seen, packets.add({.dst_port = 80}, 100s));
  give(table, seen, packets.add({.dst_port = 81}, 101s));
  table.advance(kStreamEnds, seen.emit());
  EXPECT_EQ(table.size(), 0U);
  for (int i = 0; i < 2; ++i) give(table, seen, packets.add({.dst_port = 80}, 99s));
  EXPECT_THAT(seen.sessions, ElementsAre("80:2:full", "81:1:end", "80:2:full"));
}

TEST(SessionTableTest, BornIsTheTagOfTheFirstPacket) {
  SessionTable table({.packets = 2});
  Packets packets;
  Seen seen;
  const Packet packet = packets.add({});
  table.add(std::span(&packet, 1), 5, seen.emit());
  table.add(std::span(&packet, 1), 6, seen.emit());
  EXPECT_EQ(seen.last_born, 5U);
}

TEST(SessionBatchTest, OwnsItsBytes) {
  SessionTable table({.packets = 2});
  Packets packets;
  SessionBatch batch;
  const Packet packet = packets.add({.payload = 3, .fill = 'x'});
  for (int i = 0; i < 2; ++i) {
    table.add(std::span(&packet, 1), 0,
              [&](const Session& session, std::uint64_t) { batch.add(session); });
  }
  const Batch<Session> taken = batch.take();
  EXPECT_EQ(batch.size(), 0U);
  ASSERT_EQ(taken.items.size(), 1U);
  ASSERT_EQ(taken.items[0].packets.size(), 2U);
  EXPECT_EQ(std::memcmp(taken.items[0].packets[1].data, "xxx", 3), 0);
}

/// A packet of one five-tuple as `origin` has it.
Packet of(Packets& packets, const Origin* origin, Duration time = {}, std::uint8_t flags = 0x10) {
  Packet packet = packets.add({.tcp = true, .flags = flags}, time);
  packet.origin = origin;
  return packet;
}

TEST(SessionTableTest, AgentsHaveSessionsOfTheirOwn) {
  SessionTable table({.packets = 2});
  Packets packets;
  Seen seen;
  const Origin a{"a", {}};
  const Origin b{"b", {}};
  std::vector<std::string> agents;
  const auto note = [&](const Session& session, std::uint64_t born) {
    agents.emplace_back(session.info.agent);
    seen.emit()(session, born);
  };
  const std::vector<Packet> all = {of(packets, &a), of(packets, &b), of(packets, nullptr),
                                   of(packets, &b), of(packets, &a)};
  table.add(all, 0, note);
  table.flush(note);
  EXPECT_THAT(agents, ElementsAre("b", "a", ""));
  EXPECT_THAT(seen.sessions, ElementsAre("80:2:full", "80:2:full", "80:1:end"));
  EXPECT_EQ(std::set<std::string>(seen.ids.begin(), seen.ids.end()).size(), 3U);
}

TEST(SessionTableTest, NamesOfAgentsThatAreGoneAreForgottenAndDoNotMixUp) {
  SessionTable table({.packets = 24, .delay = 1s, .idle = 1s, .remember = 0s});
  Packets packets;
  std::vector<std::string> agents;
  const auto note = [&](const Session& session, std::uint64_t) {
    agents.emplace_back(session.info.agent);
  };
  for (int i = 0; i < 100; ++i) {
    const Origin origin{"agent " + std::to_string(i), {}};
    const Packet packet = of(packets, &origin, std::chrono::seconds(10 * i));
    table.advance(packet.time, note);
    table.add(std::span(&packet, 1), 0, note);
  }
  table.flush(note);
  ASSERT_EQ(agents.size(), 100U);
  for (std::size_t i = 0; i < agents.size(); ++i)
    EXPECT_EQ(agents[i], "agent " + std::to_string(i));
  EXPECT_LE(table.size(), 2U);
}

TEST(SessionTableTest, TellsWhatBeginsAndEndsItOnRequest) {
  std::vector<SessionInfo> begun;
  SessionTable table({.packets = 24},
                     [&](const SessionInfo& info, std::uint64_t) { begun.push_back(info); });
  Packets packets;
  Seen seen;
  const Packet packet = of(packets, nullptr, 5s);
  table.add(std::span(&packet, 1), 0, seen.emit());
  ASSERT_EQ(begun.size(), 1U);
  SessionId other = begun[0].id;
  other[0] ^= 1U;
  EXPECT_FALSE(table.expire(begun[0].key, {}, other, seen.emit()));
  EXPECT_FALSE(table.expire(begun[0].key, "nobody", begun[0].id, seen.emit()));
  EXPECT_TRUE(table.expire(begun[0].key, {}, begun[0].id, seen.emit()));
  EXPECT_FALSE(table.expire(begun[0].key, {}, begun[0].id, seen.emit()));
  EXPECT_THAT(seen.sessions, ElementsAre("80:1:timeout"));
  EXPECT_EQ(seen.ids[0], to_hex(begun[0].id));
}

// Whether the table has forgotten a five-tuple already must not show in its next session.
TEST(SessionTableTest, EpochsAreCountedForAsLongAsAFiveTupleIsRemembered) {
  SessionTable table({.packets = 1, .idle = 60s, .remember = 300s});
  Packets packets;
  Seen seen;
  give(table, seen, of(packets, nullptr, 0s));
  give(table, seen, of(packets, nullptr, 10s, 0x02));
  give(table, seen, of(packets, nullptr, 71s));
  give(table, seen, of(packets, nullptr, 431s));
  give(table, seen, of(packets, nullptr, 792s));
  EXPECT_THAT(seen.sessions,
              ElementsAre("80:1:full", "80:1:full:1", "80:1:full:2", "80:1:full:3", "80:1:full"));
}

}  // namespace
}  // namespace millrace
