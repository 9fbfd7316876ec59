// SplitRedis: from the answers to calls to tickets, and what is to be sent because of them.

#include <algorithm>
#include <chrono>

#include <hiredis/hiredis.h>

#include "scripts.h"
#include "split_redis.h"

namespace millrace {

namespace {

using std::string_view;

/// Announcements that one sweep gives out again.
constexpr std::uint64_t kSweepMost = 64;

}  // namespace

void SplitRedis::answer(Output<Ticket>& out) {
  auto [call, raw] = window_->pop();
  if (call.id.empty()) return answer_sweep(call, std::move(raw), out);
  for (const PacketGroup& group : call.kept.groups) {
    const auto count = thin_in_flight_.find(std::string(view(group.flow)));
    if (--count->second == 0) thin_in_flight_.erase(count);
  }
  const std::shared_ptr<redisReply> whole(raw.release(), FreeReply());
  const redisReply* reply = whole.get();
  if (!call.pushed.empty()) reply = reply->element[reply->elements - 1];
  // The answer to a call that was executed before is in brackets.
  const bool again = reply->type == REDIS_REPLY_ARRAY && reply->elements == 1;
  if (again) reply = reply->element[0];
  auto result = read_reply(text_of(*reply));
  if (!result) {
    // The answer has expired since: a sweep has its tickets.
    result.emplace();
    result->repeated = call.packets;
  }
  now_ = context_->clock().now();
  learn(call, *result);
  context_->handled(result->stored);
  if (result->after_due != 0) context_->dropped("after-due", result->after_due);
  if (result->repeated != 0) context_->dropped("repeated", result->repeated);
  taken_back_->add(result->taken_back);
  watch_->report_set_aside(result->wrong_type);
  sessions_->add(result->begun);
  if (!call.appended.empty()) check_appended(call, *whole, again);
  if (result->groups.find(kGroupRefused) != std::string_view::npos) {
    send_refused(call, result->groups);
  }

  const Announcements::Id id{call.bucket, call.id};
  if (result->tickets.empty()) {
    announcements_->settle(id);
    call.receipt.done();
    return;
  }
  announced_->add(result->tickets.size());
  Batch<Ticket> tickets(std::move(result->tickets));
  tickets.receipt = Announcements::announce(announcements_, id, std::move(call.receipt));
  tickets.storage_bytes = text_of(*reply).size();
  tickets.storage = whole;
  push(std::move(tickets), out);
}

/// Where a session was not as foretold when its packets were appended, its state is looked at:
/// somebody has to notice that it is full, and packets that came too late move its clock.
void SplitRedis::check_appended(Call& call, const redisReply& transaction, bool again) {
  struct Doubtful {
    const Call::Appended* appended;
    std::size_t head;
    bool late;
  };
  std::vector<Doubtful> doubtful;
  std::uint64_t stored = 0;
  std::size_t at = 0;
  for (std::size_t i = 0; i < call.appended.size(); ++i) {
    const Call::Appended& one = call.appended[i];
    const long long elements = transaction.element[one.place]->integer;
    // What was appended again was taken back, and how long the list was is not known.
    const bool late = elements == 0 && !again;
    if (again || elements != one.elements) doubtful.push_back({&one, at, late});
    if (!late) stored += one.group.packets;
    at += one.head_bytes;
  }
  context_->handled(stored);
  appended_->add(stored);
  if (doubtful.empty()) return;
  Call look = begin_call(call.bucket);
  RedisCommand command;
  begin_script(look, command, doubtful.size());
  for (const Doubtful& one : doubtful) {
    command.open_argument(one.appended->head_bytes);
    command.bytes().append(call.heads, one.head, one.appended->head_bytes);
    PacketGroups::set_flags(command.bytes(), one.appended->head_bytes,
                            one.late ? kGroupLate : kGroupLook);
    command.end();
    command.add(string_view());
    look.groups.push_back(one.appended->group);
    if (one.late) look.packets += one.appended->group.packets;
    ask_about(one.appended->group.flow, one.appended->group.latest);
  }
  look.bytes = std::move(command.bytes());
  send(std::move(look), call.receipt);
}

void SplitRedis::learn(const Call& call, const BatchReply& reply) {
  auto standing = reply.standings.begin();
  for (std::size_t i = 0; i < std::min(reply.groups.size(), call.groups.size()); ++i) {
    const Call::Group& group = call.groups[i];
    const char state = reply.groups[i];
    const Standing stands = state == kGroupOpen ? *standing++ : Call::as_begun(group);
    const KnownFlow* known = known_.find(group.flow);
    // What was foretold holds, or a later call will tell.
    if (known != nullptr && (known->call > call.sequence ||
                             (state == kGroupBegun && known->stand == KnownFlow::Stand::open))) {
      continue;
    }
    const Timestamp touched = touched_after(known, group.latest);
    if (state == kGroupDue) {
      known_.put(group.flow, KnownFlow::Stand::due, touched, now_);
    } else if (state == kGroupOpen || state == kGroupBegun) {
      note_open(group, stands, touched, call.sequence);
    }
  }
}

/// Another receiver has begun a session of a five-tuple that this one took for due, or a key was
/// not a list, and nothing could be pushed to it.
void SplitRedis::send_refused(Call& call, std::string_view states) {
  std::vector<const PacketGroup*> refused;
  for (std::size_t i = 0; i < call.kept.groups.size(); ++i) {
    if (states[call.kept.numbers[i]] == kGroupRefused) refused.push_back(&call.kept.groups[i]);
  }
  std::vector<const Call::Begun*> begun;
  for (const Call::Begun& one : call.begun) {
    if (states[one.number] == kGroupRefused) begun.push_back(&one);
  }
  RedisCommand command;
  Call again = begin_call(call.bucket);
  begin_script(again, command, refused.size() + begun.size());
  for (const Call::Begun* one : begun) {
    const Call::Group& group = call.groups[one->number];
    command.open_argument(one->head_bytes);
    command.bytes().append(call.bytes, one->head, one->head_bytes);
    PacketGroups::clear_flags(command.bytes(), one->head_bytes, kGroupBegins);
    command.end();
    command.add(string_view(call.bytes).substr(one->records, one->record_bytes));
    again.groups.push_back(group);
    again.packets += group.packets;
    ask_about(group.flow, group.latest);
  }
  for (const PacketGroup* group : refused) {
    add_group(again, command, call.kept.packets, *group, 0, nullptr);
    ask_about(group->flow, group->latest);
  }
  again.bytes = std::move(command.bytes());
  send(std::move(again), call.receipt);
}

void SplitRedis::answer_sweep(const Call& call, RedisReply raw, Output<Ticket>& out) {
  const std::shared_ptr<redisReply> reply(raw.release(), FreeReply());
  if (reply->elements % 2 == 1) {
    watch_->report_set_aside(
        static_cast<std::uint64_t>(reply->element[reply->elements - 1]->integer));
  }
  for (std::size_t i = 0; i + 1 < reply->elements; i += 2) {
    auto result = read_reply(text_of(*reply->element[i + 1]));
    if (!result) continue;
    swept_->add(result->tickets.size());
    Batch<Ticket> tickets(std::move(result->tickets));
    tickets.receipt = Announcements::announce(
        announcements_, {call.bucket, std::string(text_of(*reply->element[i]))}, Receipt());
    tickets.storage_bytes = text_of(*reply->element[i + 1]).size();
    tickets.storage = reply;
    push(std::move(tickets), out);
  }
}

void SplitRedis::push(Batch<Ticket> tickets, Output<Ticket>& out) {
  tickets.watermark = watermark_;
  out.push(std::move(tickets));
}

void SplitRedis::sweep(bool look) {
  const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(options_.sweep_after);
  const auto expire = std::chrono::duration_cast<std::chrono::seconds>(options_.expire);
  for (std::uint32_t bucket = 0; bucket < options_.buckets; ++bucket) {
    const std::string settled = announcements_->take_settled(bucket);
    if (!look && settled.empty()) continue;
    RedisCommand command;
    command.put(string_view("EVAL"), sweep_script(), string_view("1"),
                string_view(names_[bucket].outbox()), string_view(names_[bucket].tag()),
                static_cast<std::uint64_t>(age.count()), look ? kSweepMost : std::uint64_t{0},
                static_cast<std::uint64_t>(expire.count()), string_view(settled),
                string_view(look ? announcements_->open(bucket) : std::string()));
    Call call;
    call.bucket = bucket;
    call.bytes = std::move(command.bytes());
    window_->push(std::move(call));
  }
}

}  // namespace millrace
