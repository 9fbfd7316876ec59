// SplitRedis: from groups to calls.

#include <algorithm>
#include <span>
#include <utility>

#include <fmt/format.h>
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
/// And at most so many that are appended: 10 ms more.
constexpr std::size_t kCallAppended = 4096;
/// A call of which more than this is packets gets no further five-tuple. Redis keeps a
/// transaction's commands until it executes them, and is slow with those that its processor's cache
/// does not hold.
constexpr std::size_t kCallBytes = 640 << 10U;

}  // namespace

Call SplitRedis::begin_call(std::uint32_t bucket) {
  Call call;
  call.bucket = bucket;
  call.id = run_;
  call.number = next_number_[bucket]++;
  append_number(call.id, call.number);
  call.sequence = ++last_call_;
  return call;
}

void SplitRedis::begin_script(Call& call, RedisCommand& command, std::size_t groups) {
  command.begin(3 + 1 + 8 + 2 * groups);
  command.add(string_view("EVAL"));
  command.add(batch_script());
  command.add(string_view("1"));
  command.add(string_view(names_[call.bucket].outbox()));
  command.add(string_view(names_[call.bucket].tag()));
  command.add(string_view(run_));
  command.add(call.number);
  command.add(string_view("0"));
  call.first_mark = command.bytes().size() - 3;
  command.add(string_view(call.id));
  command.add(string_view(settings_));
  command.add(string_view(announcements_->take_settled(call.bucket)));
  command.add(string_view(call.pushed));
}

Call::Group SplitRedis::group_of(const std::vector<DecodedPacket>& packets,
                                 const PacketGroup& group) {
  return {group.flow,  packets[group.first].packet.time,  group.latest,
          group.chunk, packets[group.last].packet.number, group.count};
}

void SplitRedis::add_group(Call& call, RedisCommand& command,
                           const std::vector<DecodedPacket>& packets, const PacketGroup& group,
                           std::uint8_t flags, const KnownFlow* known) const {
  command.open_argument(PacketGroups::head_bytes(group, known));
  groups_.append_head(command.bytes(), packets, group, flags, known);
  command.end();
  if ((flags & kGroupThin) != 0) {
    command.add(string_view());
  } else if ((flags & kGroupBegins) != 0) {
    command.open_argument(PacketGroups::event_bytes(group));
    PacketGroups::append_event(command.bytes(), packets, group);
    command.end();
  } else {
    command.open_argument(group.record_bytes);
    groups_.append_records(command.bytes(), packets, group);
    command.end();
  }
  call.groups.push_back(group_of(packets, group));
  call.packets += group.count;
}

/// Appends a group to its session's list, if all that the script would ask of the session's state
/// is known here, and none of its packets could begin a session. Calls are applied in order, so
/// what is foretold by those under way holds.
bool SplitRedis::append(Call& call, RedisCommand& command, const PacketGroup& group,
                        KnownFlow& known) {
  if (known.stand != KnownFlow::Stand::open || known.call == last_call_ || group.again ||
      !group.calm) {
    return false;
  }
  const DecodedPacket& first = packets_[group.first];
  const DecodedPacket& last = packets_[group.last];
  if (known.packets + group.count >= options_.packets ||
      between(known.first, group.latest) >= options_.delay ||
      between(known.touched, first.packet.time) > options_.idle ||
      between(group.earliest, known.touched) > options_.idle) {
    return false;
  }
  Unrecorded& more = known.unrecorded;
  if (more.chunk != group.chunk) {
    // Should the session have had them before, reading them will tell.
    more.mixed = true;
  } else if (group.chunk != 0) {
    if (first.packet.number <= more.number) return false;
    more.number = last.packet.number;
  }
  more.packets += group.count;
  more.bytes += group.bytes;
  more.payload += group.payload;
  more.latest = std::max(more.latest, group.latest);
  known.touched = std::max(known.touched, group.latest);
  known.packets += group.count;
  ++known.elements;

  const std::size_t before = call.heads.size();
  groups_.append_head(call.heads, packets_, group, 0, nullptr);
  call.appended.push_back({group_of(packets_, group), call.pushes, known.elements,
                           static_cast<std::uint32_t>(call.heads.size() - before)});
  push(call, command, group, false);
  return true;
}

void SplitRedis::push(Call& call, RedisCommand& command, const PacketGroup& group,
                      bool begins) const {
  ++call.pushes;
  command.begin(begins ? 4 : 3);
  command.add(string_view(begins ? "RPUSH" : "RPUSHX"));
  command.add(string_view(names_[call.bucket].open(group.flow)));
  if (begins) {
    call.pushed += view(group.flow);
    command.open_argument(PacketGroups::state_bytes(group));
    groups_.append_state(command.bytes(), packets_, group);
    command.end();
  }
  call.pushed += view(group.flow);
  command.open_argument(group.record_bytes);
  groups_.append_records(command.bytes(), packets_, group);
  command.end();
}

/// Which way a group goes that is not thin: past the script or through it. Foretells how its
/// session stands then.
void SplitRedis::choose(Call& call, RedisCommand& command, std::uint32_t index) {
  const PacketGroup& group = groups_.groups()[index];
  KnownFlow* known = thin_[index] != 0 ? nullptr : known_.find(group.flow);
  if (known != nullptr && append(call, command, group, *known)) return;
  Scripted& one = scripted_.emplace_back();
  one.group = index;
  if (thin_[index] != 0) return;
  if (known == nullptr) {
    // Most probably nobody has heard of it yet.
    if (group.again || group.count >= options_.packets ||
        between(packets_[group.first].packet.time, group.latest) >= options_.delay ||
        between(group.earliest, group.latest) > std::max(options_.idle, options_.delay)) {
      return;
    }
    const Call::Group begun = group_of(packets_, group);
    note_open(begun, Call::as_begun(begun), group.latest, last_call_);
    // What the transaction pushes comes before what the script appends.
    if (!group.alone) return;
    push(call, command, group, true);
    one.begins = true;
    one.records = command.bytes().size() - 2 - group.record_bytes;
    return;
  }
  if (known->stand == KnownFlow::Stand::open && known->unrecorded.packets != 0 &&
      !known->unrecorded.mixed && !group.again && known->call != last_call_) {
    one.known = *known;
  }
  ask_about(group.flow, touched_after(known, group.latest));
}

void SplitRedis::note_open(const Call::Group& group, const Standing& standing, Timestamp touched,
                           std::uint64_t call) {
  KnownFlow& open = known_.put(group.flow, KnownFlow::Stand::open, touched, now_);
  open.first = standing.first;
  open.packets = standing.packets;
  open.elements = open.unrecorded.elements = standing.elements;
  open.unrecorded.chunk = group.chunk;
  open.unrecorded.number = standing.applied;
  open.call = call;
}

/// The time of a five-tuple's latest packet when `latest` has come, too. Where the clock was set
/// back it goes back.
Timestamp SplitRedis::touched_after(const KnownFlow* known, Timestamp latest) const {
  if (known == nullptr || between(latest, known->touched) > options_.idle) return latest;
  return std::max(latest, known->touched);
}

/// Sessions do not go by it. Who looks at them may wonder, though.
void SplitRedis::count_jumps(const BatchAgent& agent) {
  const PacketClock& clock = agent.known->clock;
  const std::uint64_t more = clock.jumps() - std::exchange(agent.known->jumps, clock.jumps());
  if (more == 0) return;
  clock_jumps_->add(more);
  if (std::exchange(told_of_jump_, true)) return;
  context_->warning(fmt::format(
      "the time of the packets{} jumped from {} to {}; sessions go by the times of their own "
      "packets. Further jumps are only counted, as clock-jumps",
      agent.name.empty() ? "" : fmt::format(" of agent '{}'", agent.name),
      to_rfc3339(clock.jumped_from()), to_rfc3339(clock.jumped_to())));
}

/// The call at hand will tell.
void SplitRedis::ask_about(const FlowKey& flow, Timestamp touched) {
  known_.put(flow, KnownFlow::Stand::asked, touched, now_).call = last_call_;
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
  known_.put(group.flow, KnownFlow::Stand::due,
             touched_after(known_.find(group.flow), group.latest), now_);
  thin_packets_->add(group.count);
}

/// A call of as many of the groups `left` as one may have; they are taken off. `before` goes before
/// it.
Call SplitRedis::make_call(std::uint32_t bucket, std::span<const std::uint32_t>& left,
                           RedisCommand before) {
  Call call = begin_call(bucket);
  // A transaction, if anything is pushed, with the script as its last command.
  RedisCommand pushes;
  pushes.put(string_view("MULTI"));
  scripted_.clear();
  const auto& groups = groups_.groups();
  std::size_t packets = 0;
  while (!left.empty() && scripted_.size() < kCallGroups && call.appended.size() < kCallAppended &&
         packets < kCallBytes) {
    choose(call, pushes, left.front());
    packets += groups[left.front()].record_bytes;
    left = left.subspan(1);
  }
  std::size_t size = batch_script().size() + 1024 + pushes.bytes().size() + call.pushed.size();
  for (const Scripted& one : scripted_) {
    size += groups[one.group].record_bytes + 256 + groups[one.group].agent.size();
  }
  RedisCommand command(std::move(before));
  command.bytes().reserve(command.bytes().size() + size);
  const std::size_t pushes_at = command.bytes().size();
  if (!call.pushed.empty()) command.append(pushes);
  begin_script(call, command, scripted_.size());
  for (const Scripted& one : scripted_) {
    const bool thin = thin_[one.group] != 0;
    const auto flags = thin ? kGroupThin : one.begins ? kGroupBegins : 0;
    const std::size_t before_head = command.bytes().size();
    add_group(call, command, packets_, groups[one.group], static_cast<std::uint8_t>(flags),
              one.known ? &*one.known : nullptr);
    if (one.begins) {
      call.begun.push_back({static_cast<std::uint32_t>(call.groups.size() - 1),
                            pushes_at + one.records, groups[one.group].record_bytes,
                            command.bytes().find('\n', before_head) + 1,
                            PacketGroups::head_bytes(groups[one.group], nullptr)});
    }
    if (thin) keep_thin(call, groups[one.group]);
  }
  if (!call.pushed.empty()) command.put(string_view("EXEC"));
  call.commands_before = command.commands() - 1;
  call.bytes = std::move(command.bytes());
  return call;
}

/// The call is part of what `input` waits for.
void SplitRedis::send(Call call, const Receipt& input) {
  call.receipt = input.fork();
  calls_->add();
  window_->push(std::move(call));
}

/// From here on the batch is the window's. Nothing may fail that can be tried again.
void SplitRedis::take(Batch<Packet>& in) {
  now_ = context_->clock().now();
  std::vector<std::vector<std::uint32_t>> by_bucket(options_.buckets);
  const auto& groups = groups_.groups();
  for (std::uint32_t i = 0; i < groups.size(); ++i) by_bucket[groups[i].bucket].push_back(i);

  RedisCommand command;
  for (const auto& [id, index] : first_fragments_) {
    std::string value;
    const FirstFragment first = first_fragment(packets_[index].decoded);
    append_five_tuple(value, first.key);
    append_number(value, std::uint8_t{first.src_is_low});
    append_time(value, packets_[index].packet.time);
    append_number(value, first.transport);
    append_number(value, first.payload);
    const KeyNames& names = names_[bucket_of(id, options_.buckets)];
    command.put(string_view("SETEX"), string_view(names.fragment(view(id))), kFragmentSeconds,
                string_view(value));
  }
  bool any = false;
  for (std::uint32_t bucket = 0; bucket < options_.buckets; ++bucket) {
    const auto& mine = by_bucket[bucket];
    if (mine.empty()) continue;
    std::span<const std::uint32_t> left(mine);
    do {
      Call call = make_call(bucket, left, std::exchange(command, {}));
      if (!call.kept.groups.empty()) call.kept.storage = in.storage;
      any = true;
      send(std::move(call), in.receipt);
    } while (!left.empty());
  }
  if (any) in.receipt.done();

  for (BatchAgent& agent : batch_agents_) {
    for (const std::uint64_t chunk : agent.new_chunks) agent.known->learn(chunk);
  }
  for (std::size_t i = 0; i < packets_.size(); ++i) {
    const Place& place = places_[i];
    batch_agents_[place.agent].known->clock.see(packets_[i].packet.time);
    const bool more = i + 1 < packets_.size() && places_[i + 1].agent == place.agent &&
                      places_[i + 1].chunk == place.chunk;
    if (more || place.chunk == 0) continue;
    if (auto* chunk = batch_agents_[place.agent].known->find(place.chunk)) {
      chunk->last = std::max<std::int64_t>(chunk->last, packets_[i].packet.number);
    }
  }
  for (const BatchAgent& agent : batch_agents_) count_jumps(agent);
  joined_->add(drops_.joined_fragments);
  if (drops_.lost_fragments != 0) context_->dropped("lost-fragment", drops_.lost_fragments);
  for (std::size_t kind = 0; kind < drops_.undecodable.size(); ++kind) {
    if (drops_.undecodable[kind] == 0) continue;
    context_->dropped(to_string(static_cast<Decode>(kind)), drops_.undecodable[kind]);
  }
}

}  // namespace millrace
