-- One report of a node about one host; returns what the fleet says of it.
--
-- All five keys have the hash tag of the host: 1 state, 2 counts, 3 observers, 4 those that vote
-- "failing", 5 gates. Time is the server's. The node's own time is nowhere in it.
local node, known_run, known_epoch = ARGV[1], ARGV[2], tonumber(ARGV[3])
local ok, failed, failing = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1'
local probes_ok, probes_failed = tonumber(ARGV[7]), tonumber(ARGV[8])
local offered = tonumber(ARGV[9])
local fresh_run = ARGV[10]                  -- randomness of the node, as all here is deterministic
local deadline = tonumber(ARGV[11])         -- 0: none
local channel, host = ARGV[12], ARGV[13]    -- from 14 on: key and remaining of gates

local SLOTS, WINDOW, AT_LEAST = 16, 10, 20                 -- seconds, seconds, attempts
local QUARTERS = 8
local OPEN_FOR, PROBES_TO_CLOSE = 5000, 3           -- ms, plus up to a fifth
local GATES, LONGEST_GATE = 64, 3600000
local TTL = 60000

local time = redis.call('TIME')
local second = tonumber(time[1])
local now = second * 1000 + math.floor(tonumber(time[2]) / 1000)
local quarter = math.floor(now / 250)

-- A report that lay in the socket of a paused server: its node has counted it as lost.
if deadline > 0 and now > deadline then
  return redis.error_reply('LATE the report is ' .. (now - deadline) .. ' ms late')
end

local stored = redis.call('HMGET', KEYS[1], 'run', 'st', 'epoch', 'until', 'pok', 'load')
local run, state, epoch = stored[1], stored[2], tonumber(stored[3])
local open_until, pok, load = tonumber(stored[4]), tonumber(stored[5]), tonumber(stored[6])
local changed = false
if not run then
  run, state, epoch, open_until, pok, load, changed = fresh_run, 'C', 0, 0, 0, 0, true
elseif known_run == run and known_epoch > epoch then
  -- The store went back in time (failover): epochs count anew, in a run that all accept.
  run, changed = fresh_run, true
  known_run, known_epoch = run, -1
end

if state == 'O' then
  -- Where the server's clock was set back, nothing stays open for longer.
  open_until = math.min(open_until, now + OPEN_FOR * 6 / 5)
end

local slots = {}
for i = 0, SLOTS - 1 do
  slots[3 * i + 1], slots[3 * i + 2], slots[3 * i + 3] = 's' .. i, 'k' .. i, 'f' .. i
end

local function change(to, ends)
  state, open_until, epoch, pok, changed = to, ends, epoch + 1, 0, true
end
local function open()
  -- The clock's own milliseconds are random enough for the jitter.
  change('O', now + OPEN_FOR + math.floor(OPEN_FOR * (now % 1000) / 5000))
end

local same_run = known_run == run
if ok + failed > 0 then
  redis.call('ZADD', KEYS[3], now, node)
  redis.call('PEXPIRE', KEYS[3], TTL)
end

local before = epoch
if state == 'O' then
  -- Probes of another epoch say nothing about this one.
  if now >= open_until and same_run and known_epoch == epoch then
    if probes_failed > 0 then
      open()
    elseif probes_ok > 0 then
      pok, changed = pok + probes_ok, true
      if pok >= PROBES_TO_CLOSE then
        change('C', 0)
        load = 0
        redis.call('HDEL', KEYS[2], unpack(slots))
        redis.call('DEL', KEYS[4])
      end
    end
  end
elseif ok + failed > 0 and (not same_run or known_epoch == epoch) then
  -- What was counted before the fleet closed says nothing about the time after.
  local slot = second % SLOTS
  if tonumber(redis.call('HGET', KEYS[2], 's' .. slot)) ~= second then
    redis.call('HSET', KEYS[2], 's' .. slot, second, 'k' .. slot, 0, 'f' .. slot, 0)
  end
  if ok > 0 then redis.call('HINCRBY', KEYS[2], 'k' .. slot, ok) end
  if failed > 0 then redis.call('HINCRBY', KEYS[2], 'f' .. slot, failed) end
  redis.call('PEXPIRE', KEYS[2], TTL)
  if failing then
    redis.call('ZADD', KEYS[4], now, node)
    redis.call('PEXPIRE', KEYS[4], TTL)
  else
    redis.call('ZREM', KEYS[4], node)
  end
  if failed > 0 then
    local counts = redis.call('HMGET', KEYS[2], unpack(slots))
    local all, bad = 0, 0
    for i = 1, #counts, 3 do
      local stamp = tonumber(counts[i])
      if stamp and stamp > second - WINDOW and stamp <= second then
        all = all + tonumber(counts[i + 1]) + tonumber(counts[i + 2])
        bad = bad + tonumber(counts[i + 2])
      end
    end
    if all >= AT_LEAST and bad * 2 >= all then
      local since = '(' .. (now - WINDOW * 1000)
      local votes = redis.call('ZCOUNT', KEYS[4], since, '+inf')
      if votes >= 2 and votes * 2 >= redis.call('ZCOUNT', KEYS[3], since, '+inf') then
        load = math.max(load, all)
        open()
      end
    end
  end
end

if offered > 0 then
  local slot = quarter % QUARTERS
  if tonumber(redis.call('HGET', KEYS[2], 'q' .. slot)) ~= quarter then
    redis.call('HSET', KEYS[2], 'q' .. slot, quarter, 'o' .. slot, 0)
  end
  redis.call('HINCRBY', KEYS[2], 'o' .. slot, offered)
  redis.call('PEXPIRE', KEYS[2], TTL)
end

for i = 14, #ARGV, 2 do
  local key, length = ARGV[i], math.min(tonumber(ARGV[i + 1]), LONGEST_GATE)
  local ends, old = now + length, tonumber(redis.call('HGET', KEYS[5], ARGV[i]))
  if length > 0 and (not old or ends > old) then
    if not old and redis.call('HLEN', KEYS[5]) >= GATES then
      -- Those that are open again make room.
      local gates = redis.call('HGETALL', KEYS[5])
      for j = 1, #gates, 2 do
        if tonumber(gates[j + 1]) <= now then redis.call('HDEL', KEYS[5], gates[j]) end
      end
    end
    if old or redis.call('HLEN', KEYS[5]) < GATES then
      redis.call('HSET', KEYS[5], key, ends)
      if redis.call('PTTL', KEYS[5]) < length then redis.call('PEXPIRE', KEYS[5], length) end
      -- Hundreds of nodes hear the same: only what adds something is passed on.
      if not old or ends >= math.max(old, now) + 100 then
        redis.call('PUBLISH', channel, 'G ' .. key .. ' ' .. length .. ' ' .. host)
      end
    end
  end
end

if changed then
  redis.call('HSET', KEYS[1], 'run', run, 'st', state, 'epoch', epoch, 'until', open_until,
    'pok', pok, 'load', load)
end
redis.call('PEXPIRE', KEYS[1], TTL)
local remaining = 0
if state == 'O' then remaining = open_until - now end
if epoch ~= before then
  redis.call('PUBLISH', channel,
    table.concat({ 'B', run, epoch, state, remaining, load, host }, ' '))
end

local since = '(' .. (now - WINDOW * 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - WINDOW * 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - WINDOW * 1000)
local nodes = redis.call('ZCARD', KEYS[3])

local fields, sum = {}, 0
for i = 1, 4 do
  local slot = (quarter - i) % QUARTERS
  fields[2 * i - 1], fields[2 * i] = 'q' .. slot, 'o' .. slot
end
local quarters = redis.call('HMGET', KEYS[2], unpack(fields))
for i = 1, 4 do
  if tonumber(quarters[2 * i - 1]) == quarter - i then sum = sum + tonumber(quarters[2 * i]) end
end

local closed, gates = {}, redis.call('HGETALL', KEYS[5])
for i = 1, #gates, 2 do
  local left = math.min(tonumber(gates[i + 1]) - now, LONGEST_GATE)
  if left > 0 then
    closed[#closed + 1] = gates[i]
    closed[#closed + 1] = left
  end
end
return { now, run, epoch, state, remaining, load, nodes, sum, closed }
