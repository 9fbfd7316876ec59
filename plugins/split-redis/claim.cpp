#include "claim.h"

#include <algorithm>
#include <set>

#include <hiredis/hiredis.h>

#include "scripts.h"

namespace millrace {

namespace {

using std::string_view;

constexpr std::size_t kTokenBytes = 8;
constexpr Duration kSweep = std::chrono::seconds(1);
/// Batches that one sweep claims: the queue's tickets have their turn, too.
constexpr std::size_t kSweepRounds = 16;
/// Between two lines about overdue sessions.
constexpr Duration kQuiet = std::chrono::minutes(10);

std::uint64_t milliseconds(Duration duration) {
  return static_cast<std::uint64_t>(std::chrono::ceil<std::chrono::milliseconds>(duration).count());
}

}  // namespace

void check_claim_options(const ClaimOptions& options, Findings& findings) {
  try {
    (void)parse_redis_url(options.server, options.ca);
  } catch (const ConfigError& error) {
    findings.add(error.option(), error.what());
  }
}

void Claim::open(Context& context) {
  context_ = &context;
  come_back_ = &context.counter("come-back");
  overdue_ = &context.counter("overdue");
  lost_ = &context.counter("lost");
  for (std::uint32_t bucket = 0; bucket < options_.buckets; ++bucket) {
    names_.emplace_back(options_.prefix, bucket);
  }
  const RedisAddress address = parse_redis_url(options_.server, options_.ca);
  const RedisTimeouts timeouts{options_.connect_timeout, options_.timeout};
  connection_ =
      std::make_unique<RedisConnection>(address, timeouts, &context.counter("reconnects"));
  watch_ = std::make_unique<ServerWatch>(
      ServerWatch::Settings{.address = address,
                            .timeouts = timeouts,
                            .prefix = options_.prefix,
                            .names = names_,
                            .shared = {layout_setting(), buckets_setting(options_.buckets)},
                            .role = ServerWatch::Role::analyser},
      context);
  watch_->start();
  settler_ = std::make_unique<Settler>(address, timeouts, names_, context, *watch_);
}

void Claim::close() noexcept {
  if (settler_) settler_->stop(options_.timeout);
  settler_.reset();
  if (watch_) watch_->stop();
  watch_.reset();
  connection_.reset();
}

void Claim::process(Batch<Ticket>& in, Output<Session>& out) {
  watch_->require_settings();
  watermark_ = std::max(watermark_, in.watermark);
  if (!in.items.empty()) claim(in, out);
  sweep(out);
}

void Claim::claim(Batch<Ticket>& in, Output<Session>& out) {
  watch_->require_server();
  watch_->require_record();
  connection_->open();
  // Kept while the call has to be made again: what it may have leased without hearing of it is its
  // own then.
  if (token_.empty()) token_ = random_bytes(kTokenBytes);
  Drops drops;
  std::vector<Wanted> wanted = find(in, drops);
  std::ranges::stable_sort(wanted, {}, &Wanted::bucket);
  leased_for_ = {};
  bool given = false;
  for (std::size_t from = 0, to = 0; from < wanted.size(); from = to) {
    while (to < wanted.size() && to - from < options_.batch &&
           wanted[to].bucket == wanted[from].bucket) {
      ++to;
    }
    const auto slice = std::span(wanted).subspan(from, to - from);
    try {
      const RedisReply answer = lease(slice, token_);
      const std::vector<RedisReply> lists = fetch(slice, *answer);
      give(slice, *answer, lists, token_, in, out, drops);
    } catch (const Transient& error) {
      if (!given) throw;
      // Some sessions are on their way: the rest of the tickets come again by themselves.
      context_->warning(error.what());
      drops.leased += wanted.size() - from;
      leased_for_ = std::max(leased_for_, options_.retry);
      break;
    }
    given = true;
  }
  token_.clear();
  const auto report = [this](std::string_view reason, std::uint64_t n) {
    if (n != 0) context_->dropped(reason, n);
  };
  report("already-done", drops.done);
  report("unknown", drops.unknown);
  report("duplicate", drops.duplicate);
  report("damaged", drops.damaged);
  report("leased", drops.leased);
  report("lost", drops.lost);
  report_lost(drops);
  if (drops.leased == 0) return;
  come_back_->add(drops.leased);
  const Duration pause = std::min(leased_for_, options_.retry);
  settler_->desk()->hold_back(std::move(in.receipt), std::chrono::steady_clock::now() + pause);
}

/// Claims sessions whose tickets have not come: the queue was emptied or does not deliver, or has
/// more tickets than there are analysers for; those that come later find them done. So a session
/// waits for no longer than `overdue` because of its ticket.
void Claim::sweep(Output<Session>& out) {
  const Timestamp now = context_->clock().now();
  if (now < next_sweep_ && next_sweep_ - now <= kSweep) return;
  next_sweep_ = now + kSweep;
  if (!watch_->works()) return;
  std::uint64_t claimed = 0;
  try {
    connection_->open();
    for (std::uint32_t bucket = 0; bucket < options_.buckets; ++bucket) {
      for (std::size_t round = 0, found = options_.batch;
           round < kSweepRounds && found == options_.batch; ++round) {
        found = claim_overdue(bucket, out);
        claimed += found;
      }
    }
  } catch (const Transient& error) {
    // The watch reports a server that is out of reach. What was taken is overdue again later.
    context_->debug(error.what());
  }
  if (claimed == 0 || (now < next_word_ && next_word_ - now <= kQuiet)) return;
  next_word_ = now + kQuiet;
  context_->warning(std::to_string(claimed) +
                    " sessions or more were due for 'overdue' and have not been claimed: their "
                    "tickets are lost, or wait in the queue for longer. They are claimed without");
}

/// How many were taken.
std::size_t Claim::claim_overdue(std::uint32_t bucket, Output<Session>& out) {
  RedisCommand command;
  command.put(string_view("EVAL"), overdue_script(), string_view("1"),
              string_view(names_[bucket].index()), string_view(names_[bucket].tag()),
              milliseconds(options_.overdue), std::uint64_t{options_.batch});
  const RedisReply reply = connection_->call(command);
  if (is_error(*reply)) connection_->raise(*reply);
  Batch<Ticket> tickets;
  std::vector<Wanted> wanted;
  tickets.watermark = watermark_;
  tickets.items.reserve(reply->elements);
  for (std::size_t i = 0; i < reply->elements; ++i) {
    const string_view member = text_of(*reply->element[i]);
    watch_->report_set_aside(static_cast<std::uint64_t>(reply->element[i]->integer));
    const auto ticket = read_member(member);
    if (!ticket) continue;
    tickets.items.push_back(*ticket);
    const FlowKey flow = flow_key(ticket->key, ticket->agent);
    wanted.push_back({nullptr, bucket, std::string(view(flow)) += member});
  }
  for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i].ticket = &tickets.items[i];
  if (wanted.empty()) return reply->elements;
  Drops drops;
  const std::string token = random_bytes(kTokenBytes);
  const RedisReply answer = lease(wanted, token);
  give(wanted, *answer, fetch(wanted, *answer), token, tickets, out, drops);
  overdue_->add(wanted.size() - drops.done - drops.leased - drops.unknown - drops.lost);
  report_lost(drops);
  return reply->elements;
}

void Claim::report_lost(const Drops& drops) {
  const std::uint64_t lost = drops.lost + drops.damaged;
  if (lost == 0) return;
  lost_->add(lost);
  watch_->report_lost(
      std::to_string(lost_->value()) +
      " sessions are lost so far: they have not been analysed, and what was held of "
      "them in " +
      connection_->address().name() + " is gone or damaged");
}

/// Looks up which session of its five-tuple a ticket names: ids are made of what Redis holds, but
/// only here.
std::vector<Claim::Wanted> Claim::find(const Batch<Ticket>& in, Drops& drops) {
  // Of a state, up to the time of the first packet: see SessionHead.
  constexpr std::size_t kBegin = 19;
  std::vector<Wanted> wanted;
  std::set<SessionId> seen;
  RedisCommand command;
  for (const Ticket& ticket : in.items) {
    if (!seen.insert(ticket.id).second) {
      ++drops.duplicate;
      continue;
    }
    const FlowKey flow = flow_key(ticket.key, ticket.agent);
    Wanted& one = wanted.emplace_back();
    one.ticket = &ticket;
    one.bucket = bucket_of(flow, options_.buckets);
    one.session = view(flow);
    const KeyNames& names = names_[one.bucket];
    command.put(string_view("LINDEX"), string_view(names.open(flow)), std::uint64_t{0});
    command.put(string_view("LINDEX"), string_view(names.due(flow)), std::uint64_t{0});
    command.put(string_view("SMEMBERS"), string_view(names.older(flow)));
  }
  connection_->send(command.bytes());
  std::vector<RedisReply> replies;
  for (std::size_t i = 0; i < command.commands(); ++i) replies.push_back(connection_->read());
  std::size_t next = 0;
  std::erase_if(wanted, [&](Wanted& one) {
    const RedisReply& open = replies[next++];
    const RedisReply& due = replies[next++];
    const RedisReply& older = replies[next++];
    for (const RedisReply* reply : {&open, &due, &older}) {
      if (is_error(**reply) && !is_wrong_type(**reply)) connection_->raise(**reply);
    }
    const auto names_it = [&](std::string_view mark) {
      LayoutReader reader(mark);
      const auto epoch = reader.number<std::uint32_t>();
      const Timestamp first_seen = reader.time();
      if (!reader.good() || epoch != one.ticket->epoch ||
          session_id(one.ticket->key, first_seen, epoch, one.ticket->agent) != one.ticket->id) {
        return false;
      }
      one.session += mark;
      append_number(one.session,
                    static_cast<std::uint16_t>(kFiveTupleBytes + one.ticket->agent.size()));
      append_five_tuple(one.session, one.ticket->key);
      one.session += one.ticket->agent;
      return true;
    };
    for (const RedisReply* state : {&open, &due}) {
      if (is_error(**state)) continue;
      const std::string_view head = text_of(**state);
      if (head.size() >= kBegin &&
          names_it(std::string(head.substr(3, 4)) + std::string(head.substr(11, 8)))) {
        return false;
      }
    }
    for (std::size_t i = 0; i < older->elements; ++i) {
      if (names_it(text_of(*older->element[i]))) return false;
    }
    // A five-tuple that is known has all its sessions that are not done.
    const auto there = [](const redisReply& state) { return !is_nil(state) && !is_error(state); };
    if (there(*open) || there(*due)) {
      ++drops.done;
    } else {
      ++(watch_->remembers_all() ? drops.lost : drops.unknown);
    }
    return true;
  });
  return wanted;
}

RedisReply Claim::lease(std::span<const Wanted> wanted, const std::string& token) {
  const KeyNames& names = names_[wanted.front().bucket];
  RedisCommand command;
  command.begin(3 + 1 + 3 + wanted.size());
  command.add(string_view("EVAL"));
  command.add(claim_script());
  command.add(string_view("1"));
  command.add(string_view(names.outbox()));
  command.add(string_view(names.tag()));
  command.add(string_view(token));
  command.add(milliseconds(options_.lease));
  for (const Wanted& one : wanted) command.add(string_view(one.session));
  RedisReply reply = connection_->call(command);
  if (is_error(*reply)) connection_->raise(*reply);
  if (reply->elements != wanted.size() + 1) {
    throw std::runtime_error(connection_->address().name() + ": an answer of another size");
  }
  watch_->report_set_aside(static_cast<std::uint64_t>(reply->element[wanted.size()]->integer));
  return reply;
}

/// The lists of the sessions that are leased now: past the script, which would copy every byte
/// twice. Nobody changes the list of a session that is due.
std::vector<RedisReply> Claim::fetch(std::span<const Wanted> wanted, const redisReply& answer) {
  const KeyNames& names = names_[wanted.front().bucket];
  RedisCommand command;
  std::vector<RedisReply> lists(wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const std::string_view list = text_of(*answer.element[i]);
    if (!list.starts_with(names.tag())) continue;
    command.put(string_view("LRANGE"), list, std::uint64_t{0}, string_view("-1"));
  }
  if (command.commands() == 0) return lists;
  connection_->send(command.bytes());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (!text_of(*answer.element[i]).starts_with(names.tag())) continue;
    lists[i] = connection_->read();
  }
  for (const RedisReply& list : lists) {
    if (list && is_error(*list) && !is_wrong_type(*list)) connection_->raise(*list);
  }
  return lists;
}

void Claim::give(std::span<const Wanted> wanted, const redisReply& answer,
                 const std::vector<RedisReply>& lists, const std::string& token,
                 const Batch<Ticket>& in, Output<Session>& out, Drops& drops) {
  Settlement given;
  Settlement damaged;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const redisReply& one = *answer.element[i];
    if (one.type == REDIS_REPLY_INTEGER) {
      ++drops.leased;
      leased_for_ = std::max<Duration>(leased_for_, std::chrono::milliseconds(one.integer));
    } else if (!lists[i]) {
      const string_view what = text_of(one);
      ++(what == "done"      ? drops.done
         : what == "lost"    ? drops.lost
         : what == "damaged" ? drops.damaged
                             : drops.unknown);
    } else if (add_session(*wanted[i].ticket, *lists[i])) {
      given.sessions.push_back(wanted[i].session);
    } else {
      ++drops.damaged;
      damaged.sessions.push_back(wanted[i].session);
    }
  }
  given.bucket = damaged.bucket = wanted.front().bucket;
  given.token = damaged.token = token;
  if (!damaged.sessions.empty()) {
    damaged.outcome = Outcome::done;
    damaged.ticket = in.receipt.fork();
    settler_->desk()->hand_in(std::move(damaged));
  }
  if (given.sessions.empty()) return;
  given.ticket = in.receipt.fork();
  Batch<Session> sessions = batch_.take();
  sessions.watermark = in.watermark;
  const Receipt::Deadline deadline = in.receipt.deadline();
  sessions.receipt = Receipt::make(
      [desk = settler_->desk(), given = std::move(given)](Outcome outcome) mutable noexcept {
        given.outcome = outcome;
        desk->hand_in(std::move(given));
      },
      deadline);
  out.push(std::move(sessions));
}

/// `answer` holds the state and the elements of the list. False if they do not belong together.
bool Claim::add_session(const Ticket& ticket, const redisReply& answer) {
  if (answer.type != REDIS_REPLY_ARRAY || answer.elements == 0) return false;
  const auto head = read_head(text_of(*answer.element[0]));
  if (!head) return false;
  records_.clear();
  for (std::size_t i = 1; i < answer.elements; ++i) {
    if (!read_records(text_of(*answer.element[i]), records_)) return false;
  }
  if (records_.size() != head->packets) return false;
  packets_.clear();
  for (Record& record : records_) {
    record.packet.from_src = ((record.flags & kSrcIsLow) != 0) == head->src_is_low;
    packets_.push_back(record.packet);
  }
  Session session;
  session.info.id = ticket.id;
  session.info.key = ticket.key;
  session.info.src_is_low = head->src_is_low;
  session.info.due = head->full ? Due::full : ticket.why;
  session.info.epoch = head->epoch;
  session.info.packets = head->packets;
  session.info.first_seen = head->first_seen;
  session.info.last_seen = head->last_seen;
  session.info.bytes = head->bytes;
  session.info.payload_bytes = head->payload_bytes;
  session.info.agent = ticket.agent;
  session.layer = head->layer;
  session.packets = packets_;
  batch_.add(session);
  return true;
}

}  // namespace millrace
