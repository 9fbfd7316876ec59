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

std::string_view claim_script() {
  static const std::string kScript = std::string(kSessionLua) + R"lua(
local tag, mine, lasts, expire = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local out = {}
local function names(s, session)
  return s and sub(s, 4, 7) .. sub(s, 12, 19) == session
end
for i = 5, #ARGV do
  local k, session = sub(ARGV[i], 1, 16), sub(ARGV[i], 17, 28)
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
    out[#out + 1] = known and 'done' or 'unknown'
  elseif #s < 99 then
    -- Damaged, which shows when it is read.
    out[#out + 1] = key
  else
    load(s)
    if done then
      out[#out + 1] = 'done'
    elseif lease > now and token ~= mine then
      out[#out + 1] = lease - now
    else
      if open and call('LLEN', key) - 1 > folded then fold() end
      open, lease, refreshed, token = false, now + lasts, tonumber(time[1]), mine
      call('LSET', key, '0', state_of())
      call('EXPIRE', key, expire)
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
local lost = 0
for i = 4, #ARGV do
  local k, mark = sub(ARGV[i], 1, 16), sub(ARGV[i], 17, 28)
  local key, older = tag .. 'd' .. k, false
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
