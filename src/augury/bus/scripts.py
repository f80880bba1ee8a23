"""The Lua that runs inside Redis or Valkey: what must be one step there.

A script is atomic: no publisher, router or trimmer sees half of it. Keys are always the stream and
the incarnation, in this order.
"""

from __future__ import annotations

# The incarnation is as old as the stream: if either is gone, entry ids may repeat, so both begin
# anew. `candidate` comes from the caller because scripts have no good source of random numbers.
_INCARNATION = """
local function incarnation(candidate)
  local current = redis.call('GET', KEYS[2])
  if not current or redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('SET', KEYS[2], candidate)
    return candidate
  end
  return current
end
"""

# Whether one entry id is smaller than another.
_BEFORE = """
local function before(left, right)
  local left_ms, left_seq = string.match(left, '(%d+)-(%d+)')
  local right_ms, right_seq = string.match(right, '(%d+)-(%d+)')
  if left_ms ~= right_ms then return tonumber(left_ms) < tonumber(right_ms) end
  return tonumber(left_seq) < tonumber(right_seq)
end
"""

# ARGV: candidate, body...   Returns the entry ids.
PUBLISH = (
    _INCARNATION
    + """
local life = incarnation(ARGV[1])
local entry_ids = {}
for index = 2, #ARGV do
  entry_ids[index - 1] = redis.call('XADD', KEYS[1], '*', 'i', life, 'e', ARGV[index])
end
return entry_ids
"""
)

# ARGV: candidate, group.   From 0: what was published before the group existed is delivered too.
JOIN = (
    _INCARNATION
    + """
incarnation(ARGV[1])
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[2], '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
return 1
"""
)

# ARGV: group, consumer, idle in ms, count, deliveries after which an entry comes alone.
# XAUTOCLAIM would do most of it, but it drops deleted entries from the pending list at once (a
# crash of the caller would lose the evidence) and does not say how often an entry was delivered.
CLAIM = """
local idle = redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[3], '-', '+', ARGV[4])
local claimed, missing = {}, {}
for _, item in ipairs(idle) do
  local entry_id, delivered = item[1], item[4]
  local alone = delivered >= tonumber(ARGV[5])
  if alone and #claimed > 0 then break end
  if #redis.call('XRANGE', KEYS[1], entry_id, entry_id) == 0 then
    missing[#missing + 1] = entry_id
  else
    local entry = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], entry_id)
    if #entry > 0 then
      claimed[#claimed + 1] = {entry_id, entry[1][2], delivered + 1}
    end
    if alone then break end
  end
end
return {claimed, missing}
"""

# ARGV: idle in ms after which a consumer that holds nothing is forgotten.
# Keeps everything that any group has not acknowledged or not seen; without a group, everything.
TRIM = (
    _BEFORE
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local keep = nil
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for index = 1, #flat, 2 do group[flat[index]] = flat[index + 1] end
  local first = group['last-delivered-id']
  if group['pending'] > 0 then
    local oldest = redis.call('XPENDING', KEYS[1], group['name'])[2]
    if before(oldest, first) then first = oldest end
  end
  if keep == nil or before(first, keep) then keep = first end
  for _, other in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group['name'])) do
    local consumer = {}
    for index = 1, #other, 2 do consumer[other[index]] = other[index + 1] end
    if consumer['pending'] == 0 and consumer['idle'] > tonumber(ARGV[1]) then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group['name'], consumer['name'])
    end
  end
end
if keep == nil then return 0 end
return redis.call('XTRIM', KEYS[1], 'MINID', keep)
"""
)

# ARGV: group, consumer.   Deleting a consumer deletes its pending list, so only an empty one goes.
RETIRE = """
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
return 1
"""

# ARGV: group, entry id...   Returns those ids that the group was not given or has not acknowledged.
UNSETTLED = (
    _BEFORE
    + """
local last = nil
if redis.call('EXISTS', KEYS[1]) == 1 then
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local group = {}
    for index = 1, #flat, 2 do group[flat[index]] = flat[index + 1] end
    if group['name'] == ARGV[1] then last = group['last-delivered-id'] end
  end
end
local unsettled = {}
for index = 2, #ARGV do
  local id = ARGV[index]
  if last == nil or before(last, id)
      or #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1) > 0 then
    unsettled[#unsettled + 1] = id
  end
end
return unsettled
"""
)

# ARGV: group, an instant in ms that somebody waits for ('' for none).   Returns an entry id.
# Without anything to acknowledge, what the stream gave last is passed. It gives no id twice and
# none that is smaller, so setting the last one to the present makes the present part of the past.
WATERMARK = """
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local present = string.format('%.0f-0', now_ms)
if redis.call('EXISTS', KEYS[1]) == 0 then return present end
local last = '0-0'
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for index = 1, #flat, 2 do group[flat[index]] = flat[index + 1] end
  if group['name'] == ARGV[1] then
    if group['pending'] > 0 then return redis.call('XPENDING', KEYS[1], ARGV[1])[2] end
    last = group['last-delivered-id']
  end
end
local unread = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 1)
if #unread > 0 then return unread[1][1] end
local stream, given = redis.call('XINFO', 'STREAM', KEYS[1]), nil
for index = 1, #stream, 2 do
  if stream[index] == 'last-generated-id' then given = stream[index + 1] end
end
local given_ms, given_seq = string.match(given, '(%d+)-(%d+)')
if ARGV[2] ~= '' and now_ms >= tonumber(ARGV[2]) and now_ms > tonumber(given_ms) then
  redis.call('XSETID', KEYS[1], present)
  return present
end
return given_ms .. '-' .. string.format('%.0f', tonumber(given_seq) + 1)
"""

# ARGV: group.   Returns length, pending, lag, id of the oldest entry not acknowledged ('' if none),
# the server's time in ms, and how many entries were ever appended.
STATUS = """
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local length = redis.call('XLEN', KEYS[1])
local pending, lag, oldest, last, added = 0, length, '', '0-0', length
if length > 0 or redis.call('EXISTS', KEYS[1]) == 1 then
  local stream = redis.call('XINFO', 'STREAM', KEYS[1])
  for index = 1, #stream, 2 do
    if stream[index] == 'entries-added' then added = stream[index + 1] end
  end
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local group = {}
    for index = 1, #flat, 2 do group[flat[index]] = flat[index + 1] end
    if group['name'] == ARGV[1] then
      pending, last = group['pending'], group['last-delivered-id']
      -- the server cannot count past deleted entries; then look
      lag = group['lag'] or #redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 10000)
      if pending > 0 then oldest = redis.call('XPENDING', KEYS[1], ARGV[1])[2] end
    end
  end
  if oldest == '' then
    local unread = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 1)
    if #unread > 0 then oldest = unread[1][1] end
  end
end
return {length, pending, lag, oldest, now_ms, added}
"""
