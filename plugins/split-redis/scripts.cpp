#include "scripts.h"

namespace millrace {

// A five-tuple has one key, a list: its state, then the packets of its session. A session that
// another one follows before it is done moves to a key of its own ('h'), and is listed in a set
// ('x'). Updates are most of the work, so expiries are only set anew when a quarter of them is
// over.
//
// The state: version, flags (1 open, 2 done, 4 src is low, 8 full), layer, epoch,
// packets, first seen, last seen, bytes, payload bytes (up to here read by layout.cpp), clock at
// the first packet, clock at the last one, lease until (ms), when expiries were refreshed (s), how
// long to be kept when done (s), token of the lease; then for each chunk its hash and the highest
// number applied, the latest first.
//
// Times are halves (hi, lo) of a 64-bit number: doubles have 53 bits. Differences are exact below
// 2^53 ns, 104 days, and `delay` and `idle` are bounded below that.

std::string_view batch_script() {
  return R"lua(
local call, unpack, pack, sub, band = redis.call, struct.unpack, struct.pack, string.sub, bit.band
local HEAD = '>BBBI4I4i4I4i4I4ddi4I4i4I4dI4I4c8'
local tag, run, number, id = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[5]
local limit, delay, idle, layer, expire, keep = unpack('>I4ddBI4I4', ARGV[6])
local lists = tag .. 's'
-- Redis prints a number that is an argument with 17 digits, which is slow.
local expire_text = tostring(expire)

-- A call comes again when its answer was lost. It is applied once, and after the one before it.
local last = tonumber(call('GET', tag .. 'q' .. run) or nil)
if last and last >= number then return call('GET', tag .. 't' .. id) or '' end
if ARGV[4] == '0' and last ~= number - 1 then
  return redis.error_reply('ORDER a call before this one was not executed')
end
call('SETEX', tag .. 'q' .. run, expire_text, number)
for p = 1, #ARGV[7], 16 do
  local cleared = sub(ARGV[7], p, p + 15)
  call('DEL', tag .. 't' .. cleared)
  call('ZREM', KEYS[1], cleared)
end

local agents = tonumber(ARGV[8])
for i = 9, 7 + 2 * agents, 2 do
  local key, clock = tag .. 'c' .. ARGV[i], ARGV[i + 1]
  local known = call('GET', key)
  if known then
    local ah, al = unpack('>i4I4', known)
    local bh, bl = unpack('>i4I4', clock)
    if ah > bh or (ah == bh and al > bl) then clock = known end
  end
  call('SETEX', key, expire_text, clock)
end

local time = call('TIME')
local now = tonumber(time[1])
local stored, after_due, repeated, begun = 0, 0, 0, 0
local states, events = {}, {}

-- The session at hand.
local k, key, h, tail, exists, have, open, done, low, full, slayer, epoch, packets
local fh, fl, lh, ll, bytes, payload, crh, crl, toh, tol, lease, refreshed, skeep, token
local begin_event

local function head()
  local flags = (open and 1 or 0) + (done and 2 or 0) + (low and 4 or 0) + (full and 8 or 0)
  return pack(HEAD, 1, flags, slayer, epoch, packets, fh, fl, lh, ll, bytes, payload, crh, crl,
              toh, tol, lease, refreshed, skeep, token)
end
local function state_of()
  return tail == '' and head() or head() .. tail
end
local function event(why)
  local name = sub(h, 86)
  return pack('>BI4i4I4I2', why, epoch, fh, fl, #name) .. name
end
local function push(blob)
  if exists then
    call('RPUSH', key, blob)
  else
    call('RPUSH', key, state_of(), blob)
    exists = true
  end
end
local function begin(new_epoch, is_low, th, tl, ch, cl)
  if have and not done then
    -- It still waits for its claim.
    local mark = pack('>I4i4I4', epoch, fh, fl)
    local older, list = tag .. 'x' .. k, tag .. 'h' .. k .. mark
    call('LSET', key, '0', head())
    call('RENAME', key, list)
    call('EXPIRE', list, expire_text)
    call('SADD', older, mark)
    call('EXPIRE', older, expire_text)
    exists = false
  end
  have, open, done, full, low, slayer = true, true, false, false, is_low, layer
  epoch, packets, bytes, payload, lease, refreshed, skeep = new_epoch, 0, 0, 0, 0, 0, keep
  token = '\0\0\0\0\0\0\0\0'
  fh, fl, lh, ll, crh, crl, toh, tol = th, tl, th, tl, ch, cl, ch, cl
  begun = begun + 1
  begin_event = #events + 1
  events[begin_event] = event(1)
end
local function is_full()
  open, full = false, true
  -- Who is told that a session is full need not be told that it began.
  events[begin_event or #events + 1] = event(0)
end
local function touch(ch, cl)
  if ch > toh or (ch == toh and cl > tol) then toh, tol = ch, cl end
end

-- Packet by packet, as SessionTable does it.
local function walk(blob, chunked, applied)
  local p, length = 1, #blob
  local from, to = 0, -1
  local function append()
    if to > from then push(sub(blob, from, to)) end
    from, to = 0, -1
  end
  while p <= length do
    local size, flags, o4, o7, th, tl, ch, cl, wire, n = unpack('>I4BI2I2i4I4i4I4I4I4', blob, p)
    if chunked and n <= applied then
      repeated = repeated + 1
    else
      if have and open and (ch - crh) * 4294967296 + (cl - crl) >= delay then open = false end
      local store = have and open
      if not store then
        if not have then
          begin(0, band(flags, 1) ~= 0, th, tl, ch, cl)
          store = true
        else
          local gone = (ch - toh) * 4294967296 + (cl - tol) > idle
          local same = gone and not done and epoch == 0 and th == fh and tl == fl
          if (gone or band(flags, 4) ~= 0) and not same then
            append()
            begin(gone and 0 or epoch + 1, band(flags, 1) ~= 0, th, tl, ch, cl)
            store = true
          else
            after_due = after_due + 1
            touch(ch, cl)
          end
        end
      end
      if store then
        if to ~= p - 1 then
          append()
          from = p
        end
        to = p + size - 1
        packets, bytes, payload = packets + 1, bytes + wire, payload + size - 33 - o7
        if th > lh or (th == lh and tl > ll) then lh, ll = th, tl end
        touch(ch, cl)
        stored = stored + 1
        if packets == limit then
          append()
          is_full()
          begin_event = nil
        end
      end
    end
    p = p + size
  end
  append()
end

for i = 9 + 2 * agents, #ARGV, 2 do
  local blob = ARGV[i + 1]
  h = ARGV[i]
  local flags, n, cfh, cfl, clh, cll, tfh, tfl, tmh, tml, gbytes, gpayload, n1, n2, chunk
  k, flags, n, cfh, cfl, clh, cll, tfh, tfl, tmh, tml, gbytes, gpayload, n1, n2, chunk =
    unpack('>c16BI4i4I4i4I4i4I4i4I4ddI4I4c8', h)
  key, begin_event = lists .. k, nil
  local calm, chunked, thin = band(flags, 2) ~= 0, band(flags, 4) ~= 0, band(flags, 8) ~= 0
  local s = call('LINDEX', key, '0')
  local applied, at = -1, nil
  tail = ''
  if s then
    exists = true
    local version, f
    version, f, slayer, epoch, packets, fh, fl, lh, ll, bytes, payload, crh, crl, toh, tol, lease,
      refreshed, skeep, token = unpack(HEAD, s)
    have, open, done, low, full =
      true, band(f, 1) ~= 0, band(f, 2) ~= 0, band(f, 4) ~= 0, band(f, 8) ~= 0
    tail = sub(s, 84)
    if chunked then
      for p = 1, #tail, 12 do
        if sub(tail, p, p + 7) == chunk then
          applied, at = unpack('>I4', tail, p + 8), p
          break
        end
      end
    end
  else
    exists, have, open = false, false, false
  end
  local state = 'd'
  if applied >= n2 and chunked then
    repeated = repeated + n
    if open then state = 'o' end
  else
    local taken, whole = true, nil
    local clean = not chunked or applied < n1
    if have and open and clean and not thin and packets + n <= limit and
       (clh - crh) * 4294967296 + (cll - crl) < delay then
      call('RPUSH', key, blob)
      packets, bytes, payload, stored = packets + n, bytes + gbytes, payload + gpayload, stored + n
      if tmh > lh or (tmh == lh and tml > ll) then lh, ll = tmh, tml end
      touch(clh, cll)
      if packets == limit then is_full() end
    elseif not have and not thin and n <= limit and
           (clh - cfh) * 4294967296 + (cll - cfl) < delay then
      begin(0, band(flags, 1) ~= 0, tfh, tfl, cfh, cfl)
      packets, bytes, payload, stored = n, gbytes, gpayload, stored + n
      lh, ll, toh, tol = tmh, tml, clh, cll
      if packets == limit then is_full() end
      whole = blob
    elseif have and calm and clean and
           (not open or (cfh - crh) * 4294967296 + (cfl - crl) >= delay) and
           (cfh - toh) * 4294967296 + (cfl - tol) <= idle then
      open = false
      after_due = after_due + n
      touch(clh, cll)
    elseif thin then
      taken = false
    else
      walk(blob, chunked, applied)
    end
    if taken then
      if open then state = 'o' end
      if chunked then
        if at then tail = sub(tail, 1, at - 1) .. sub(tail, at + 12) end
        tail = chunk .. pack('>I4', n2) .. sub(tail, 1, 372)
      end
      local ttl = done and math.ceil(skeep * 4 / 3) or expire
      local refresh = now - refreshed > ttl / 4
      if refresh then refreshed = now end
      if whole then
        call('RPUSH', key, state_of(), whole)
      else
        call('LSET', key, '0', state_of())
      end
      if refresh then call('EXPIRE', key, ttl == expire and expire_text or ttl) end
    else
      state = 'r'
    end
  end
  states[#states + 1] = state
end

states = table.concat(states)
local reply = pack('>I4I4I4I4I4', stored, after_due, repeated, begun, #states) .. states ..
              table.concat(events)
call('SETEX', tag .. 't' .. id, expire_text, reply)
if #events > 0 then
  call('ZADD', KEYS[1], now * 1000 + math.floor(time[2] / 1000), id)
  call('EXPIRE', KEYS[1], expire_text)
end
return reply
)lua";
}

std::string_view sweep_script() {
  return R"lua(
local call, sub = redis.call, string.sub
local tag, age, most, expire = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for p = 1, #ARGV[5], 16 do
  local id = sub(ARGV[5], p, p + 15)
  call('DEL', tag .. 't' .. id)
  call('ZREM', KEYS[1], id)
end
local function keep(id)
  call('ZADD', KEYS[1], 'XX', now, id)
  call('EXPIRE', tag .. 't' .. id, expire)
end
for p = 1, #ARGV[6], 16 do keep(sub(ARGV[6], p, p + 15)) end
local out = {}
if most > 0 then
  for _, id in ipairs(call('ZRANGEBYSCORE', KEYS[1], '-inf', now - age, 'LIMIT', 0, most)) do
    local reply = call('GET', tag .. 't' .. id)
    if reply then
      keep(id)
      out[#out + 1] = id
      out[#out + 1] = reply
    else
      call('ZREM', KEYS[1], id)
    end
  end
  call('EXPIRE', KEYS[1], expire)
end
return out
)lua";
}

std::string_view claim_script() {
  return R"lua(
local call, unpack, pack, sub = redis.call, struct.unpack, struct.pack, string.sub
local tag, token, lease, expire = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local out = {}
for i = 5, #ARGV do
  local k, mark = sub(ARGV[i], 1, 16), sub(ARGV[i], 17, 28)
  local key = tag .. 's' .. k
  local known = call('LINDEX', key, '0')
  local s = known
  if not s or sub(s, 4, 7) .. sub(s, 12, 19) ~= mark then
    key = tag .. 'h' .. k .. mark
    s = call('LINDEX', key, '0')
  end
  local flags = s and string.byte(s, 2) or 0
  local left = s and unpack('>d', s, 60) - now or 0
  if not s then
    out[#out + 1] = known and 'done' or 'unknown'
  elseif bit.band(flags, 2) ~= 0 then
    out[#out + 1] = 'done'
  elseif left > 0 and sub(s, 76, 83) ~= token then
    out[#out + 1] = left
  else
    s = sub(s, 1, 1) .. string.char(flags - flags % 2) .. sub(s, 3, 59) .. pack('>d', now + lease) ..
        pack('>I4', tonumber(time[1])) .. sub(s, 72, 75) .. token .. sub(s, 84)
    call('LSET', key, '0', s)
    call('EXPIRE', key, expire)
    out[#out + 1] = key
  end
end
return out
)lua";
}

std::string_view settle_script() {
  return R"lua(
local call, unpack, pack, sub = redis.call, struct.unpack, struct.pack, string.sub
local tag, token, done = ARGV[1], ARGV[2], ARGV[3] == '1'
local lost = 0
for i = 4, #ARGV do
  local k, mark = sub(ARGV[i], 1, 16), sub(ARGV[i], 17, 28)
  local key, older = tag .. 's' .. k, false
  local s = call('LINDEX', key, '0')
  if not s or sub(s, 4, 7) .. sub(s, 12, 19) ~= mark then
    key, older = tag .. 'h' .. k .. mark, true
    s = call('LINDEX', key, '0')
  end
  if s and sub(s, 76, 83) == token then
    if done and older then
      call('DEL', key)
      call('SREM', tag .. 'x' .. k, mark)
    else
      local flags = string.byte(s, 2)
      if done then flags = flags + 2 end
      s = sub(s, 1, 1) .. string.char(flags) .. sub(s, 3, 59) .. pack('>d', 0) .. sub(s, 68, 75) ..
          '\0\0\0\0\0\0\0\0' .. sub(s, 84)
      call('LSET', key, '0', s)
      if done then
        call('LTRIM', key, '0', '0')
        call('EXPIRE', key, math.ceil(unpack('>I4', s, 72) * 4 / 3))
      end
    end
  else
    lost = lost + 1
  end
end
return lost
)lua";
}

}  // namespace millrace
