#include "millrace/ticket.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/error.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

std::vector<Ticket> examples() {
  std::vector<Ticket> tickets(2);
  tickets[0].id.fill(0xAB);
  tickets[0].key.low.fill(1);
  tickets[0].key.high.fill(2);
  tickets[0].key.low_port = 0x1234;
  tickets[0].key.high_port = 443;
  tickets[0].key.protocol = 17;
  tickets[0].key.family = 6;
  tickets[0].epoch = 0x01020304;
  tickets[0].why = Due::timeout;
  tickets[0].agent = "site \xC3\xA9";
  return tickets;
}

TEST(TicketMessage, GivesBackWhatWasPutIn) {
  const std::vector<Ticket> tickets = examples();
  const std::string message = encode(tickets);
  const Batch<Ticket> back = decode_tickets(std::as_bytes(std::span(message)));
  ASSERT_EQ(back.items.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(back.items[i].id, tickets[i].id);
    EXPECT_EQ(back.items[i].key, tickets[i].key);
    EXPECT_EQ(back.items[i].epoch, tickets[i].epoch);
    EXPECT_EQ(back.items[i].why, tickets[i].why);
    EXPECT_EQ(back.items[i].agent, tickets[i].agent);
  }
  EXPECT_EQ(message.substr(4, 4), std::string("\0\0\0\x02", 4));
}

TEST(TicketMessage, EveryCutAndEveryAdditionIsRefused) {
  const std::string message = encode(examples());
  for (std::size_t size = 0; size < message.size(); ++size) {
    EXPECT_THROW((void)decode_tickets(std::as_bytes(std::span(message).first(size))), Rejected)
        << size;
  }
  const std::string longer = message + "x";
  EXPECT_THROW((void)decode_tickets(std::as_bytes(std::span(longer))), Rejected);
}

TEST(TicketMessage, SaysWhereItIsWrong) {
  const auto complaint = [](const std::string& message) -> std::string {
    try {
      (void)decode_tickets(std::as_bytes(std::span(message)));
    } catch (const Rejected& error) {
      return error.what();
    }
    return {};
  };
  EXPECT_THAT(complaint("{\"tickets\": []}"), HasSubstr("does not begin with MRT"));
  std::string many = encode(examples());
  many[4] = '\x7F';
  EXPECT_THAT(complaint(many), HasSubstr("tickets do not fit into"));
  std::string wrong = encode(examples());
  wrong[8 + 16 + 38 + 4] = '\x09';
  EXPECT_THAT(complaint(wrong), HasSubstr("byte 67 ends a ticket with a wrong reason"));
}

}  // namespace
}  // namespace millrace
