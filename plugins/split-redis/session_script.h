#pragma once

#include <string_view>

namespace millrace {

// The session at hand of a five-tuple is a list: its state, then the packets. It is 's' while it
// takes packets and 'd' once it takes no more. One that another follows before it is done moves to
// a key of its own ('h'), and is listed in a set ('x').
//
// A receiver that knows how a session stands appends to 's' without a look at the state (RPUSHX, in
// a transaction with the script, which takes it back where the call must not be applied): packets
// that begin no session whatever has become of it. The first packets of a session that seems new
// are put there likewise, and the script puts the state before them. A session that is due or
// claimed is not 's' any more, so that nothing is appended to it. What was appended like this is
// added to the state before the state is used: from the head of a group if its receiver knows all
// that was appended, else by `fold`, which judges packet by packet.
//
// The state: version, flags (1 open, 2 done, 4 src is low, 8 full), layer, epoch,
// packets, first seen, last seen, bytes, payload bytes (up to here read by layout.cpp), time of
// the five-tuple's latest packet, stored or not, lease until (ms), when the expiry was refreshed
// (s), how long to be kept when done (s), token of the lease, elements of the list that are in the
// state, packets that make it full, time after its first packet when it is due; then for each chunk
// its hash and the highest number applied, the latest first.
//
// A session that is not done does not expire, and is in the index ('w', a sorted set): by the time
// (ms, Redis's) when it is due, when its lease ends, or when somebody last saw to it. Its member
// there is all of a ticket but the reason: epoch, first seen, size of what follows, five-tuple,
// agent. Only who marks a session done takes it out, in the same step; so what is in the index is
// analysed, whatever becomes of tickets, or known to be lost. What is done expires; that is only
// set anew when a quarter of it is over.
//
// Times are halves (hi, lo) of a 64-bit number: doubles have 53 bits. Differences are exact below
// 2^53 ns, 104 days, and `delay` and `idle` are bounded below that.

/// What every script begins with: commands on keys that may be somebody else's. What is not of the
/// type that it has to be is set aside and counted.
inline constexpr std::string_view kSafeLua = R"lua(
local call, sub, tag, wrong = redis.call, string.sub, ARGV[1], 0
local function safely(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) == 'table' and reply.err then
    if string.find(reply.err, 'WRONGTYPE', 1, true) then
      call('RENAME', key, tag .. '!' .. sub(key, #tag + 1))
      wrong = wrong + 1
    end
    reply = call(command, key, ...)
  end
  return reply
end
-- Of a list.
local function first(key)
  local state = redis.pcall('LINDEX', key, '0')
  if type(state) == 'table' then return safely('LINDEX', key, '0') end
  return state
end
)lua";

/// What the scripts that change a session begin with after that: the session at hand, how it is
/// read and written, and how it is brought up to date.
inline constexpr std::string_view kSessionLua = R"lua(
local spread = unpack
local unpack, pack, band = struct.unpack, struct.pack, bit.band
local HEAD = '>BBBI4I4i4I4i4I4ddi4I4dI4I4c8I4I4d'
local RECORD = '>I4BI2I2i4I4I4I4c8'
local NONE = '\0\0\0\0\0\0\0\0'
local key, tail, have, open, done, low, full, slayer, epoch, packets
local fh, fl, lh, ll, bytes, payload, toh, tol, lease, refreshed, skeep, token
local folded, most, within
local taken_back = 0

local function load(s)
  local version, f
  version, f, slayer, epoch, packets, fh, fl, lh, ll, bytes, payload, toh, tol, lease, refreshed,
    skeep, token, folded, most, within = unpack(HEAD, s)
  have, open, done, low, full =
    true, band(f, 1) ~= 0, band(f, 2) ~= 0, band(f, 4) ~= 0, band(f, 8) ~= 0
  tail = sub(s, 92)
end
local function head()
  local flags = (open and 1 or 0) + (done and 2 or 0) + (low and 4 or 0) + (full and 8 or 0)
  return pack(HEAD, 3, flags, slayer, epoch, packets, fh, fl, lh, ll, bytes, payload, toh, tol, lease,
              refreshed, skeep, token, folded, most, within)
end
local function state_of()
  return tail == '' and head() or head() .. tail
end
local function touch(th, tl)
  if th > toh or (th == toh and tl > tol) then toh, tol = th, tl end
end
local function seen(th, tl)
  if th > lh or (th == lh and tl > ll) then lh, ll = th, tl end
end
local function applied_of(chunk)
  for p = 1, #tail, 12 do
    if sub(tail, p, p + 7) == chunk then return unpack('>I4', tail, p + 8), p end
  end
  return -1
end
local function mark(chunk, number)
  local _, at = applied_of(chunk)
  if at then tail = sub(tail, 1, at - 1) .. sub(tail, at + 12) end
  tail = chunk .. pack('>I4', number) .. sub(tail, 1, 372)
end

-- Adds what was appended without the state. A repeated packet, and one too many, is taken out.
local function fold()
  local elements = call('LRANGE', key, tostring(folded + 1), '-1')
  local kept, cut = {}, false
  local chunk, applied = NONE, -1
  for e = 1, #elements do
    local blob = elements[e]
    local p, from, to, length = 1, 1, 0, #blob
    while p <= length do
      local size = length - p >= 32 and unpack('>I4', blob, p) or 0
      if size < 33 or p + size - 1 > length then
        -- Damaged: it stays as it is, for the claim to notice.
        to = length
        break
      end
      local _, _, _, o7, th, tl, wire, n, c = unpack(RECORD, blob, p)
      local good = true
      if c ~= NONE then
        if c ~= chunk then
          if chunk ~= NONE then mark(chunk, applied) end
          chunk, applied = c, applied_of(c)
        end
        if n <= applied then
          good = false
        else
          applied = n
        end
      end
      if good then
        touch(th, tl)
        if (th - fh) * 4294967296 + (tl - fl) >= within then open = false end
        good = open and packets < most
      end
      if good then
        packets, bytes, payload = packets + 1, bytes + wire, payload + size - 33 - o7
        seen(th, tl)
        to = p + size - 1
      else
        if to >= from then kept[#kept + 1] = sub(blob, from, to) end
        from, to, cut, taken_back = p + size, p + size - 1, true, taken_back + 1
      end
      p = p + size
    end
    if to >= from then kept[#kept + 1] = sub(blob, from, to) end
  end
  if chunk ~= NONE then mark(chunk, applied) end
  if cut then
    call('LTRIM', key, '0', tostring(folded))
    for e = 1, #kept do call('RPUSH', key, kept[e]) end
  end
  folded = folded + #kept
end
)lua";

}  // namespace millrace
