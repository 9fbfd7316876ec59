#pragma once

#include <string_view>

namespace millrace {

// What is executed inside Redis, each in one atomic step. They are sent as text with EVAL: with a
// batch of packets behind it the text costs nothing, and there is no moment at which a server that
// has forgotten its scripts could refuse one command and take the next.

/// Applies the packets of a batch to their sessions.
/// KEYS: outbox. ARGV: tag, run, number of the call in its run, "1" if nothing before it is
/// unanswered, id, settings, ids to clear, count of agents, for each element that the transaction
/// has pushed before the script its list's flow, {head, records}... Answers what
/// read_reply reads, in an array of one if the call was applied before.
[[nodiscard]] std::string_view batch_script();
/// Clears what is announced, and gives out again what nobody has.
/// KEYS: outbox. ARGV: tag, age in ms, most, expiry in s, ids to clear, ids that are not to be
/// given out yet. Answers {id, reply, id, reply, ...}, and
/// last, if any, how many keys were set aside.
[[nodiscard]] std::string_view sweep_script();
/// Takes sessions that are overdue: nobody else is given them for as long again. KEYS: index. ARGV:
/// tag, how long after they were due in ms, most. Answers their members of the index,
/// and last, if any, how many keys were set aside.
[[nodiscard]] std::string_view overdue_script();
/// Leases sessions. KEYS: outbox. ARGV: tag, token, lease in ms, {flow, member of the index}...
/// Answers for each: "unknown", "done", "lost" (it was in the index), "damaged" (it is put aside
/// now), the ms that another's lease has to go, or the key of the list that holds its state and its
/// packets; then how many keys were set aside.
[[nodiscard]] std::string_view claim_script();
/// Ends leases. KEYS: outbox. ARGV: tag, token, "1" if the sessions are done, {flow, member
/// of the index}...
/// Answers how many were no longer leased to the token, and how many keys were set aside.
[[nodiscard]] std::string_view settle_script();

}  // namespace millrace
