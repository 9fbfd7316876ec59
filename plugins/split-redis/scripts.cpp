#include "scripts.h"

#include <string>

#include "session_script.h"

namespace millrace {

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

std::string_view overdue_script() {
  return R"lua(
local call = redis.call
local overdue, most = tonumber(ARGV[2]), ARGV[3]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = call('ZRANGEBYSCORE', KEYS[1], '-inf', now - overdue, 'LIMIT', '0', most)
for i = 1, #found do call('ZADD', KEYS[1], now, found[i]) end
return found
)lua";
}

std::string_view claim_script() {
  static const std::string kScript = std::string(kSessionLua) + R"lua(
local tag, mine, lasts = ARGV[1], ARGV[2], tonumber(ARGV[3])
local index = tag .. 'w'
-- Redis refuses no further write of a script that has written: claims make room where it is full.
call('DEL', tag .. '!')
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local out = {}
local function names(s, session)
  return s and sub(s, 4, 7) .. sub(s, 12, 19) == session
end
for i = 4, #ARGV do
  local k, session, member = sub(ARGV[i], 1, 16), sub(ARGV[i], 17, 28), sub(ARGV[i], 17)
  local due = tag .. 'd' .. k
  key = tag .. 's' .. k
  local s = call('LINDEX', key, '0')
  local known = s
  if names(s, session) then
    call('RENAME', key, due)
    key = due
  else
    key = due
    s = call('LINDEX', key, '0')
    known = known or s
    if not names(s, session) then
      key = tag .. 'h' .. k .. session
      s = call('LINDEX', key, '0')
    end
  end
  if not s then
    call('SREM', tag .. 'x' .. k, session)
    out[#out + 1] = call('ZREM', index, member) == 1 and 'lost' or known and 'done' or 'unknown'
  elseif #s < 99 then
    call('RENAME', key, tag .. '!' .. sub(key, #tag + 1))
    call('ZREM', index, member)
    out[#out + 1] = 'damaged'
  else
    load(s)
    if done then
      call('ZREM', index, member)
      out[#out + 1] = 'done'
    elseif lease > now and token ~= mine then
      out[#out + 1] = lease - now
    else
      if open and call('LLEN', key) - 1 > folded then fold() end
      open, lease, token = false, now + lasts, mine
      call('LSET', key, '0', state_of())
      call('ZADD', index, now + lasts, member)
      out[#out + 1] = key
    end
  end
end
return out
)lua";
  return kScript;
}

std::string_view settle_script() {
  return R"lua(
local call, unpack, pack, sub = redis.call, struct.unpack, struct.pack, string.sub
local tag, token, done = ARGV[1], ARGV[2], ARGV[3] == '1'
local index, lost = tag .. 'w', 0
call('DEL', tag .. '!')  -- see claim_script
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 4, #ARGV do
  local k, mark, member = sub(ARGV[i], 1, 16), sub(ARGV[i], 17, 28), sub(ARGV[i], 17)
  local key, older = tag .. 'd' .. k, false
  local s = call('LINDEX', key, '0')
  if not s or sub(s, 4, 7) .. sub(s, 12, 19) ~= mark then
    key, older = tag .. 'h' .. k .. mark, true
    s = call('LINDEX', key, '0')
  end
  if s and sub(s, 76, 83) == token then
    if done then call('ZREM', index, member) else call('ZADD', index, now, member) end
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
    -- Its row is there all the same.
    if done and not s then call('ZREM', index, member) end
    lost = lost + 1
  end
end
return lost
)lua";
}

}  // namespace millrace
