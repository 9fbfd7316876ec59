#include <string>

#include "scripts.h"
#include "session_script.h"

namespace millrace {

std::string_view batch_script() {
  static const std::string kScript = std::string(kSafeLua) + std::string(kSessionLua) + R"lua(
local run, number, id = ARGV[2], tonumber(ARGV[3]), ARGV[5]
local limit, delay, idle, layer, expire, keep, remember = unpack('>I4ddBI4I4d', ARGV[6])
local back = math.max(idle, delay)
local opens, dues = tag .. 's', tag .. 'd'
-- Redis prints a number that is an argument with 17 digits, which is slow.
local expire_text = tostring(expire)

-- A call comes again when its answer was lost. It is applied once, and after the one before it.
local last = tonumber(safely('GET', tag .. 'q' .. run) or nil)
local again = last and last >= number
if again or (ARGV[4] == '0' and last ~= number - 1) then
  -- What the transaction has pushed is last in each list that is there.
  for p = #ARGV[8] - 15, 1, -16 do
    local list = opens .. sub(ARGV[8], p, p + 15)
    if call('EXISTS', list) == 1 then safely('RPOP', list) end
  end
  if again then return {safely('GET', tag .. 't' .. id) or ''} end
  return redis.error_reply('ORDER a call before this one was not executed')
end
call('SETEX', tag .. 'q' .. run, expire_text, number)
for p = 1, #ARGV[7], 16 do
  local cleared = sub(ARGV[7], p, p + 15)
  call('DEL', tag .. 't' .. cleared)
  safely('ZREM', KEYS[1], cleared)
end

local time = call('TIME')
local now = tonumber(time[1])
local stored, after_due, repeated, begun = 0, 0, 0, 0
local states, stands, events = {}, {}, {}

-- Sessions that begin wait in the index from the time on when they are due.
local index, entries = tag .. 'w', {}
local now_ms = now * 1000 + math.floor(time[2] / 1000)
local full_at, due_at = string.format('%.0f', now_ms), string.format('%.0f', now_ms + delay / 1e6)
local function waits(member, at)
  local n = #entries
  entries[n + 1], entries[n + 2] = at, member
end

-- Of the five-tuple at hand.
local k, h, name_at, exists, begin_event

local function event(why)
  local name = sub(h, name_at)
  return pack('>BI4i4I4I2', why, epoch, fh, fl, #name) .. name
end
local function push(blob)
  if exists then
    call('RPUSH', key, blob)
  else
    call('RPUSH', key, state_of(), blob)
    exists = true
  end
  folded = folded + 1
end
local function begin(new_epoch, is_low, th, tl)
  if have and not done then
    -- It still waits for its claim.
    local named = pack('>I4i4I4', epoch, fh, fl)
    local older, list = tag .. 'x' .. k, tag .. 'h' .. k .. named
    open = false
    call('LSET', key, '0', head())
    call('RENAME', key, list)
    safely('SADD', older, named)
  elseif have then
    call('DEL', key)
  end
  key, exists = opens .. k, false
  have, open, done, full, low, slayer = true, true, false, false, is_low, layer
  epoch, packets, bytes, payload, lease, refreshed, skeep = new_epoch, 0, 0, 0, 0, 0, keep
  token, folded, most, within = NONE, 0, limit, delay
  fh, fl, lh, ll, toh, tol = th, tl, th, tl, th, tl
  begun = begun + 1
  begin_event = #events + 1
  local began = event(1)
  events[begin_event] = began
  waits(sub(began, 2), due_at)
end
local function is_full()
  open, full = false, true
  -- Who is told that a session is full need not be told that it began.
  local filled = event(0)
  events[begin_event or #events + 1] = filled
  -- Where it makes a difference.
  if delay > 3e10 then waits(sub(filled, 2), full_at) end
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
    local size, flags, _, o7, th, tl, wire, n = unpack(RECORD, blob, p)
    if chunked and n <= applied then
      repeated = repeated + 1
    else
      local gap = have and (th - toh) * 4294967296 + (tl - tol)
      if have and open and
         ((th - fh) * 4294967296 + (tl - fl) >= delay or -gap > back) then open = false end
      local store = have and open
      if not store then
        if not have then
          begin(0, band(flags, 1) ~= 0, th, tl)
          store = true
        elseif gap > idle or -gap > idle or band(flags, 4) ~= 0 then
          append()
          begin((gap > remember or -gap > remember) and 0 or epoch + 1, band(flags, 1) ~= 0, th, tl)
          store = true
        else
          after_due = after_due + 1
          touch(th, tl)
        end
      end
      if store then
        if to ~= p - 1 then
          append()
          from = p
        end
        to = p + size - 1
        packets, bytes, payload = packets + 1, bytes + wire, payload + size - 33 - o7
        seen(th, tl)
        touch(th, tl)
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

-- What becomes of a group that goes by way of its session's state.
local function apply(blob, flags)
  -- Times of the first packet, the earliest and the latest.
  local n, tfh, tfl, teh, tel, tmh, tml, gbytes, gpayload, n1, n2, chunk =
    unpack('>I4i4I4i4I4i4I4ddI4I4c8', h, 18)
  local calm, chunked, thin = band(flags, 2) ~= 0, band(flags, 4) ~= 0, band(flags, 8) ~= 0
  local late, look, known = band(flags, 16) ~= 0, band(flags, 32) ~= 0, band(flags, 64) ~= 0
  begin_event, name_at = nil, known and 134 or 78
  local s = first(key)
  if not s then
    key = dues .. k
    s = first(key)
  end
  local applied, changed, whole, state = -1, false, nil, nil
  if s then
    exists = true
    load(s)
    local elements = open and call('LLEN', key) or 0
    if elements - 1 > folded then
      changed = true
      if known then
        local inside, all, m, kbytes, kpayload, kth, ktl, kfh, kfl, kn, kchunk =
          unpack('>I4I4I4ddi4I4i4I4I4c8', h, 78)
        if inside - 1 == folded and all == elements and kfh == fh and kfl == fl then
          packets, bytes, payload = packets + m, bytes + kbytes, payload + kpayload
          seen(kth, ktl)
          touch(kth, ktl)
          if kchunk ~= NONE and kn > applied_of(kchunk) then mark(kchunk, kn) end
          folded = elements - 1
        end
      end
      if elements - 1 > folded then fold() end
      if open and packets == most then is_full() end
    end
    if chunked then applied = applied_of(chunk) end
  else
    tail = ''
    exists, have, open = false, false, false
  end
  local clean = not chunked or applied < n1
  if look then
    -- Its packets are there.
  elseif late then
    -- They came when the session took none any more.
    after_due = after_due + n
    if have and not open then
      touch(tmh, tml)
      changed = true
    end
  elseif chunked and applied >= n2 then
    repeated = repeated + n
  elseif have and open and clean and not thin and packets + n <= limit and
         (tmh - fh) * 4294967296 + (tml - fl) < delay and
         (toh - teh) * 4294967296 + (tol - tel) <= back and
         (tmh - teh) * 4294967296 + (tml - tel) <= back then
    call('RPUSH', key, blob)
    folded, changed = folded + 1, true
    packets, bytes, payload, stored = packets + n, bytes + gbytes, payload + gpayload, stored + n
    seen(tmh, tml)
    touch(tmh, tml)
    if packets == limit then is_full() end
  elseif not have and not thin and n <= limit and
         (tmh - tfh) * 4294967296 + (tml - tfl) < delay and
         (tmh - teh) * 4294967296 + (tml - tel) <= back then
    begin(0, band(flags, 1) ~= 0, tfh, tfl)
    folded, packets, bytes, payload, stored = 1, n, gbytes, gpayload, stored + n
    lh, ll, toh, tol = tmh, tml, tmh, tml
    if packets == limit then is_full() end
    whole, changed = blob, true
  elseif have and calm and clean and
         (not open or (teh - fh) * 4294967296 + (tel - fl) >= delay) and
         (tfh - toh) * 4294967296 + (tfl - tol) <= idle and
         (toh - teh) * 4294967296 + (tol - tel) <= idle then
    open, changed = false, true
    after_due = after_due + n
    touch(tmh, tml)
  elseif thin then
    state = 'r'
  else
    walk(blob, chunked, applied)
    changed = true
  end
  if changed then
    if chunked and n2 > applied and not state and not late and not look then mark(chunk, n2) end
    -- What waits does not expire.
    local ttl = math.ceil(skeep * 4 / 3)
    local refresh = done and now - refreshed > ttl / 4
    if refresh then refreshed = now end
    if whole then
      if not open then key = dues .. k end
      call('RPUSH', key, state_of(), whole)
    else
      call('LSET', key, '0', state_of())
      if not open and key ~= dues .. k then
        call('RENAME', key, dues .. k)
        key = dues .. k
      end
    end
    if refresh then call('EXPIRE', key, ttl) end
  end
  if state then return state end
  if not open then return 'd' end
  if whole then return 'b' end
  if not late and not look and n2 > applied then applied = n2 end
  stands[#stands + 1] =
    pack('>I4I4i4I4I4', packets, folded + 1, fh, fl, chunked and applied + 1 or 0)
  return 'o'
end

for i = 9, #ARGV, 2 do
  local blob = ARGV[i + 1]
  h = ARGV[i]
  local flags, n, state
  k, flags, n = unpack('>c16BI4', h)
  key = opens .. k
  if flags >= 128 then
    -- A session that begins with the group was pushed, and its event is here in place of records.
    if safely('LLEN', key) == 2 and call('EXISTS', dues .. k) == 0 then
      waits(sub(blob, 2), due_at)
      stored, begun, state = stored + n, begun + 1, 'b'
      events[#events + 1] = blob
    else
      blob = call('RPOP', key)
      call('RPOP', key)
      -- Nothing could be pushed there: the packets have to come again.
      if not blob then state = 'r' end
    end
  end
  if not state then state = apply(blob, flags) end
  states[#states + 1] = state
end

for i = 1, #entries, 1000 do
  safely('ZADD', index, spread(entries, i, math.min(i + 999, #entries)))
end
if #events > 0 then
  safely('ZADD', KEYS[1], now_ms, id)
  call('EXPIRE', KEYS[1], expire_text)
end
states = table.concat(states)
local reply = pack('>I4I4I4I4I4I4I4', stored, after_due, repeated, taken_back, begun, wrong,
                   #states) ..
              states .. table.concat(stands) .. table.concat(events)
call('SETEX', tag .. 't' .. id, expire_text, reply)
return reply
)lua";
  return kScript;
}

}  // namespace millrace
