// SplitRedis: from a batch of packets to groups.

#include <algorithm>

#include <hiredis/hiredis.h>

#include "split_redis.h"

namespace millrace {

namespace {
/// As in FragmentCache.
constexpr std::chrono::seconds kFragmentAge(30);
}  // namespace

SplitRedis::Place SplitRedis::place_of(const Origin* origin) {
  const std::string_view name = origin == nullptr ? std::string_view() : origin->agent;
  const std::uint64_t chunk = origin == nullptr ? 0 : chunk_hash(origin->chunk);
  KnownAgent& known = agents_.of(name);
  if (known.batch != batch_) {
    known.batch = batch_;
    known.place = static_cast<std::uint32_t>(batch_agents_.size());
    batch_agents_.push_back({name, &known, {}});
  }
  BatchAgent& agent = batch_agents_[known.place];
  if (chunk == 0) return {known.place, 0};
  if (const KnownAgent::Chunk* seen = known.find(chunk)) return {known.place, chunk, seen->last};
  if (std::ranges::find(agent.new_chunks, chunk) == agent.new_chunks.end()) {
    agent.new_chunks.push_back(chunk);
  }
  return {known.place, chunk};
}

/// Nothing that lasts is changed here but the fragment cache, which does not mind being told twice:
/// the call may fail after it.
void SplitRedis::decode_all(const Batch<Packet>& in) {
  ++batch_;
  agents_.trim();
  batch_agents_.clear();
  unknown_fragments_.clear();
  first_fragments_.clear();
  drops_ = {};
  packets_.resize(in.items.size());
  places_.resize(in.items.size());
  Place place;
  for (std::size_t i = 0; i < in.items.size(); ++i) {
    if (i == 0 || in.items[i].origin != in.items[i - 1].origin) {
      place = place_of(in.items[i].origin);
    }
    places_[i] = place;
    packets_[i].packet = in.items[i];
  }
  for (const BatchAgent& agent : batch_agents_) {
    // A first fragment of the same id may have come through another process since.
    if (!agent.new_chunks.empty()) agents_.number_anew(*agent.known);
  }
  for (std::size_t i = 0; i < in.items.size(); ++i) {
    decode_one(i, batch_agents_[places_[i].agent]);
  }
}

void SplitRedis::decode_one(std::size_t index, const BatchAgent& agent) {
  DecodedPacket& packet = packets_[index];
  packet.decoded = {};
  packet.kind = decode(packet.packet, packet.decoded);
  if (!packet.decoded.fragment || options_.max_fragments == 0) return;
  if (packet.kind != Decode::transport && packet.kind != Decode::later_fragment) return;
  FragmentKey key = fragment_key(packet.packet, packet.decoded);
  key.agent = agent.known->number;
  if (packet.kind == Decode::transport) {
    fragments_.remember(key, packet.decoded, packet.packet.time);
    first_fragments_.emplace_back(fragment_id(key, agent.name), index);
  } else if (FirstFragment* first = fragments_.find(key, packet.packet.time)) {
    packet.kind = Decode::transport;
    join_fragment(packet.packet, *first, packet.decoded);
    ++drops_.joined_fragments;
  } else {
    unknown_fragments_.emplace_back(index, fragment_id(key, agent.name));
  }
}

/// What other processes know: the first fragments that came there.
void SplitRedis::ask() {
  RedisCommand command;
  for (const auto& [index, id] : unknown_fragments_) {
    const KeyNames& names = names_[bucket_of(id, options_.buckets)];
    command.put(std::string_view("GET"), std::string_view(names.fragment(view(id))));
  }
  RedisConnection& connection = window_->connection();
  connection.send(command.bytes());
  std::vector<RedisReply> replies;
  for (std::size_t i = 0; i < command.commands(); ++i) replies.push_back(connection.read());
  for (const RedisReply& reply : replies) {
    if (is_error(*reply) && !is_wrong_type(*reply)) connection.raise(*reply);
  }
  std::size_t next = 0;
  for (const auto& [index, id] : unknown_fragments_) {
    DecodedPacket& packet = packets_[index];
    LayoutReader reader(text_of(*replies[next++]));
    FirstFragment first;
    first.key = reader.five_tuple();
    first.src_is_low = reader.number<std::uint8_t>() != 0;
    const Timestamp time = reader.time();
    first.transport = reader.number<std::uint16_t>();
    first.payload = reader.number<std::uint16_t>();
    const auto age =
        packet.packet.time > time ? packet.packet.time - time : time - packet.packet.time;
    if (!reader.good() || age > kFragmentAge) continue;
    packet.kind = Decode::transport;
    join_fragment(packet.packet, first, packet.decoded);
    ++drops_.joined_fragments;
  }
}

void SplitRedis::group_all() {
  groups_.clear(packets_.size());
  for (std::uint32_t i = 0; i < packets_.size(); ++i) {
    DecodedPacket& packet = packets_[i];
    const BatchAgent& agent = batch_agents_[places_[i].agent];
    if (packet.kind == Decode::transport) {
      packet.flow = flow_key(packet.decoded.key, agent.name);
      PacketGroup& group = groups_.add(packets_, i, agent.name, places_[i].chunk);
      if (packet.packet.number <= places_[i].sent) group.again = true;
    } else if (packet.kind == Decode::later_fragment) {
      ++drops_.lost_fragments;
    } else {
      ++drops_.undecodable[static_cast<std::size_t>(packet.kind)];
    }
  }
}

/// Decides which groups go without their packets. False if one that needs its packets must wait
/// until another of its five-tuple that went without is answered: it might have to go again.
bool SplitRedis::choose_thin() {
  const Timestamp now = context_->clock().now();
  const Duration fresh = options_.remember / 2;
  thin_.clear();
  for (const PacketGroup& group : groups_.groups()) {
    const KnownFlow* due =
        group.calm && group.alone ? known_.find(group.flow, KnownFlow::Stand::due) : nullptr;
    const bool thin = due != nullptr && now - due->sent < fresh &&
                      between(due->touched, packets_[group.first].packet.time) <= options_.idle &&
                      between(group.earliest, due->touched) <= options_.idle;
    if (!thin && !thin_in_flight_.empty() &&
        thin_in_flight_.contains(std::string(view(group.flow)))) {
      return false;
    }
    thin_.push_back(thin ? 1 : 0);
  }
  return true;
}

}  // namespace millrace
