// SplitRedis: from groups to script calls, and from their answers to tickets.

#include <algorithm>
#include <bit>
#include <span>

#include <hiredis/hiredis.h>

#include "scripts.h"
#include "split_redis.h"

namespace millrace {

namespace {

using std::string_view;

/// A first fragment is remembered for so many seconds: twice what FragmentCache allows packets to
/// be apart.
constexpr std::uint64_t kFragmentSeconds = 60;
/// Five-tuples of one call: Redis serves nobody else while it executes one, about 20 ms.
constexpr std::size_t kCallGroups = 2048;
/// Announcements that one sweep gives out again.
constexpr std::uint64_t kSweepMost = 64;

}  // namespace

Call SplitRedis::begin_call(std::uint32_t bucket, RedisCommand& command, std::size_t groups,
                            bool with_agents) {
  Call call;
  call.bucket = bucket;
  const std::uint64_t number = next_number_[bucket]++;
  call.id = run_;
  append_number(call.id, number);
  const std::size_t agents = with_agents ? batch_agents_.size() : 0;
  command.begin(3 + 1 + 8 + 2 * agents + 2 * groups);
  command.add(string_view("EVAL"));
  command.add(batch_script());
  command.add(string_view("1"));
  command.add(string_view(names_[bucket].outbox()));
  command.add(string_view(names_[bucket].tag()));
  command.add(string_view(run_));
  command.add(number);
  command.add(string_view("0"));
  call.first_mark = command.bytes().size() - 3;
  command.add(string_view(call.id));
  command.add(string_view(settings_));
  command.add(string_view(announcements_->take_settled(bucket)));
  command.add(std::uint64_t{agents});
  for (std::size_t i = 0; i < agents; ++i) {
    std::string clock;
    append_time(clock, batch_agents_[i].clock);
    command.add(batch_agents_[i].name);
    command.add(string_view(clock));
  }
  return call;
}

void SplitRedis::add_group(Call& call, RedisCommand& command,
                           const std::vector<DecodedPacket>& packets, const PacketGroup& group,
                           bool thin) const {
  command.open_argument(PacketGroups::head_bytes(group));
  groups_.append_head(command.bytes(), packets, group, thin);
  command.end();
  command.open_argument(thin ? 0 : group.record_bytes);
  if (!thin) groups_.append_records(command.bytes(), packets, group);
  command.end();
  call.groups.push_back({group.flow, packets[group.last].clock});
  call.packets += group.count;
}

/// The packets of a group that was sent without them, should they be needed after all.
void SplitRedis::keep_thin(Call& call, const PacketGroup& group) {
  Call::Kept& kept = call.kept;
  kept.numbers.push_back(static_cast<std::uint32_t>(call.groups.size() - 1));
  PacketGroup& copy = kept.groups.emplace_back(group);
  copy.first = static_cast<std::uint32_t>(kept.packets.size());
  for (std::uint32_t index = group.first, left = group.count; left != 0; --left) {
    kept.packets.push_back(packets_[index]);
    index = kept.packets.back().next;
    kept.packets.back().next = static_cast<std::uint32_t>(kept.packets.size());
  }
  copy.last = static_cast<std::uint32_t>(kept.packets.size() - 1);
  ++thin_in_flight_[std::string(view(group.flow))];
  due_.put(group.flow, packets_[group.last].clock, context_->clock().now());
  thin_packets_->add(group.count);
}

/// From here on the batch is the window's. Nothing may fail that can be tried again.
void SplitRedis::take(Batch<Packet>& in) {
  std::vector<std::vector<std::uint32_t>> by_bucket(options_.buckets);
  const auto& groups = groups_.groups();
  for (std::uint32_t i = 0; i < groups.size(); ++i) by_bucket[groups[i].bucket].push_back(i);

  RedisCommand command;
  for (const auto& [id, index] : first_fragments_) {
    std::string value;
    append_five_tuple(value, packets_[index].decoded.key);
    append_number(value, std::uint8_t{packets_[index].decoded.src_is_low});
    append_time(value, packets_[index].packet.time);
    const KeyNames& names = names_[bucket_of(id, options_.buckets)];
    command.put(string_view("SETEX"), string_view(names.fragment(view(id))), kFragmentSeconds,
                string_view(value));
  }
  bool any = false;
  for (std::uint32_t bucket = 0; bucket < options_.buckets; ++bucket) {
    const auto& mine = by_bucket[bucket];
    // Packets that belong to no session move the clock too.
    if (mine.empty() && (bucket != 0 || !groups.empty())) continue;
    std::span<const std::uint32_t> left(mine);
    do {
      const auto now = left.first(std::min(left.size(), kCallGroups));
      left = left.subspan(now.size());
      std::size_t size = batch_script().size() + 1024;
      for (const std::uint32_t i : now) {
        size += groups[i].record_bytes + 192 + groups[i].agent.size();
      }
      command.bytes().reserve(command.bytes().size() + size);
      const std::size_t before = command.commands();
      // The clocks come last: should this process end before, the chunk comes again, and its
      // packets must find the clocks as they were.
      Call call = begin_call(bucket, command, now.size(), left.empty());
      call.commands_before = before;
      for (const std::uint32_t i : now) {
        add_group(call, command, packets_, groups[i], thin_[i] != 0);
        if (thin_[i] != 0) keep_thin(call, groups[i]);
      }
      if (!call.kept.groups.empty()) call.kept.storage = in.storage;
      call.bytes = std::move(command.bytes());
      command = {};
      call.receipt = in.receipt.fork();
      any = true;
      calls_->add();
      window_->push(std::move(call));
    } while (!left.empty());
  }
  if (any) in.receipt.done();

  for (BatchAgent& agent : batch_agents_) {
    agent.known->time = agent.clock;
    agent.known->read = true;
    for (const std::uint64_t chunk : agent.new_chunks) agent.known->learn(chunk);
  }
  joined_->add(drops_.joined_fragments);
  if (drops_.lost_fragments != 0) context_->dropped("lost-fragment", drops_.lost_fragments);
  for (std::size_t kind = 0; kind < drops_.undecodable.size(); ++kind) {
    if (drops_.undecodable[kind] == 0) continue;
    context_->dropped(to_string(static_cast<Decode>(kind)), drops_.undecodable[kind]);
  }
}

void SplitRedis::answer(Output<Ticket>& out) {
  auto [call, raw] = window_->pop();
  if (call.id.empty()) return answer_sweep(call, std::move(raw), out);
  for (const PacketGroup& group : call.kept.groups) {
    const auto count = thin_in_flight_.find(std::string(view(group.flow)));
    if (--count->second == 0) thin_in_flight_.erase(count);
  }
  const std::shared_ptr<redisReply> reply(raw.release(), FreeReply());
  auto result = read_reply(text_of(*reply));
  if (!result) {
    // The call was executed before, and its answer has expired since: a sweep has its tickets.
    result.emplace();
    result->repeated = call.packets;
  }
  const Timestamp now = context_->clock().now();
  const std::string_view states = result->groups;
  for (std::size_t i = 0; i < std::min(states.size(), call.groups.size()); ++i) {
    const Call::Group& group = call.groups[i];
    if (states[i] == kGroupDue) {
      due_.put(group.flow, group.last_clock, now);
    } else {
      due_.remove(group.flow);
    }
  }
  context_->handled(result->stored);
  if (result->after_due != 0) context_->dropped("after-due", result->after_due);
  if (result->repeated != 0) context_->dropped("repeated", result->repeated);
  sessions_->add(result->begun);
  if (states.find(kGroupRefused) != std::string_view::npos) send_refused(call, states);

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
  tickets.storage = reply;
  push(std::move(tickets), out);
}

/// Another receiver has begun a session of a five-tuple that this one took for due.
void SplitRedis::send_refused(Call& call, std::string_view states) {
  std::vector<const PacketGroup*> refused;
  for (std::size_t i = 0; i < call.kept.groups.size(); ++i) {
    if (states[call.kept.numbers[i]] == kGroupRefused) refused.push_back(&call.kept.groups[i]);
  }
  RedisCommand command;
  Call again = begin_call(call.bucket, command, refused.size(), false);
  for (const PacketGroup* group : refused) {
    add_group(again, command, call.kept.packets, *group, false);
  }
  again.bytes = std::move(command.bytes());
  again.receipt = call.receipt.fork();
  calls_->add();
  window_->push(std::move(again));
}

void SplitRedis::answer_sweep(const Call& call, RedisReply raw, Output<Ticket>& out) {
  const std::shared_ptr<redisReply> reply(raw.release(), FreeReply());
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
