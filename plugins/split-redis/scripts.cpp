#include "scripts.h"

#include <string>

#include "session_script.h"

namespace millrace {

std::string_view sweep_script() {
  static const std::string kScript = std::string(kSafeLua) + R"lua(
local age, most, expire = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for p = 1, #ARGV[5], 16 do
  local id = sub(ARGV[5], p, p + 15)
  call('DEL', tag .. 't' .. id)
  safely('ZREM', KEYS[1], id)
end
local function keep(id)
  safely('ZADD', KEYS[1], 'XX', now, id)
  call('EXPIRE', tag .. 't' .. id, expire)
end
for p = 1, #ARGV[6], 16 do keep(sub(ARGV[6], p, p + 15)) end
local out = {}
if most > 0 then
  for _, id in ipairs(safely('ZRANGEBYSCORE', KEYS[1], '-inf', now - age, 'LIMIT', 0, most)) do
    local reply = safely('GET', tag .. 't' .. id)
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
if wrong > 0 then out[#out + 1] = wrong end
return out
)lua";
  return kScript;
}

std::string_view overdue_script() {
  static const std::string kScript = std::string(kSafeLua) + R"lua(
local overdue, most = tonumber(ARGV[2]), ARGV[3]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = safely('ZRANGEBYSCORE', KEYS[1], '-inf', now - overdue, 'LIMIT', '0', most)
for i = 1, #found do call('ZADD', KEYS[1], now, found[i]) end
if wrong > 0 then found[#found + 1] = wrong end
return found
)lua";
  return kScript;
}

std::string_view claim_script() {
  static const std::string kScript = std::string(kSafeLua) + std::string(kSessionLua) + R"lua(
local mine, lasts = ARGV[2], tonumber(ARGV[3])
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
  local s = first(key)
  local known = s
  if names(s, session) then
    call('RENAME', key, due)
    key = due
  else
    key = due
    s = first(key)
    known = known or s
    if not names(s, session) then
      key = tag .. 'h' .. k .. session
      s = first(key)
    end
  end
  if not s then
    safely('SREM', tag .. 'x' .. k, session)
    out[#out + 1] = safely('ZREM', index, member) == 1 and 'lost' or known and 'done' or 'unknown'
  elseif #s < 91 then
    call('RENAME', key, tag .. '!' .. sub(key, #tag + 1))
    safely('ZREM', index, member)
    out[#out + 1] = 'damaged'
  else
    load(s)
    if done then
      safely('ZREM', index, member)
      out[#out + 1] = 'done'
    elseif lease > now and token ~= mine then
      out[#out + 1] = lease - now
    else
      if open and call('LLEN', key) - 1 > folded then fold() end
      open, lease, token = false, now + lasts, mine
      call('LSET', key, '0', state_of())
      safely('ZADD', index, now + lasts, member)
      out[#out + 1] = key
    end
  end
end
out[#out + 1] = wrong
return out
)lua";
  return kScript;
}

std::string_view settle_script() {
  static const std::string kScript = std::string(kSafeLua) + R"lua(
local unpack, pack = struct.unpack, struct.pack
local token, done = ARGV[2], ARGV[3] == '1'
local index, lost = tag .. 'w', 0
call('DEL', tag .. '!')  -- see claim_script
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 4, #ARGV do
  local k, mark, member = sub(ARGV[i], 1, 16), sub(ARGV[i], 17, 28), sub(ARGV[i], 17)
  local key, older = tag .. 'd' .. k, false
  local s = first(key)
  if not s or sub(s, 4, 7) .. sub(s, 12, 19) ~= mark then
    key, older = tag .. 'h' .. k .. mark, true
    s = first(key)
  end
  if s and sub(s, 68, 75) == token then
    if done then safely('ZREM', index, member) else safely('ZADD', index, now, member) end
    if done and older then
      call('DEL', key)
      safely('SREM', tag .. 'x' .. k, mark)
    else
      local flags = string.byte(s, 2)
      if done then flags = flags + 2 end
      s = sub(s, 1, 1) .. string.char(flags) .. sub(s, 3, 51) .. pack('>d', 0) .. sub(s, 60, 67) ..
          '\0\0\0\0\0\0\0\0' .. sub(s, 76)
      call('LSET', key, '0', s)
      if done then
        call('LTRIM', key, '0', '0')
        call('EXPIRE', key, math.ceil(unpack('>I4', s, 64) * 4 / 3))
      end
    end
  else
    -- Its row is there all the same.
    if done and not s then safely('ZREM', index, member) end
    lost = lost + 1
  end
end
return {lost, wrong}
)lua";
  return kScript;
}

}  // namespace millrace
