-- One report of a node about one host; returns what the fleet says of it.
--
-- All five keys have the hash tag of the host: 1 state, 2 counts, 3 observers, 4 those that vote
-- "failing", 5 gates. Time is the server's; the node's own is nowhere in it. Calls cost more than
-- anything else here: a report of successes makes seven.
local node, known_run, known_epoch = ARGV[1], ARGV[2], tonumber(ARGV[3])
local ok, failed, failing = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1'
local probes_ok, probes_failed = tonumber(ARGV[7]), tonumber(ARGV[8])
local offered = tonumber(ARGV[9])
local fresh_run = ARGV[10]                  -- randomness of the node, as all here is deterministic
local deadline = tonumber(ARGV[11])         -- 0: none
local channel, host = ARGV[12], ARGV[13]    -- from 14 on: key and remaining of gates

local SLOTS, WINDOW, RECENT = 16, 10, 3            -- seconds
local AT_LEAST = 20                                -- attempts
local OPEN_FOR, PROBES_TO_CLOSE = 5000, 3          -- ms, plus up to a fifth
local GATES, LONGEST_GATE = 64, 3600000
local TTL = 60000

local time = redis.call('TIME')
local second = tonumber(time[1])
local now = second * 1000 + math.floor(tonumber(time[2]) / 1000)

-- A report that lay in the socket of a paused server: its node has counted it as lost.
if deadline > 0 and now > deadline then
  return redis.error_reply('LATE the report is ' .. (now - deadline) .. ' ms late')
end

local stored = redis.call('HMGET', KEYS[1],
  'run', 'st', 'epoch', 'until', 'pok', 'load', 'used', 'gates', 'offered')
local run, state, epoch = stored[1], stored[2], tonumber(stored[3])
local open_until, pok, load = tonumber(stored[4]), tonumber(stored[5]), tonumber(stored[6])
local gates_until = tonumber(stored[8] or 0)
local is_first = tonumber(stored[7]) ~= second    -- the first report of this second
local changed = is_first
if not run then
  run, state, epoch, open_until, pok, load = fresh_run, 'C', 0, 0, 0, 0
elseif known_run == run and known_epoch > epoch then
  -- The store went back in time (failover): epochs count anew, in a run that all accept.
  run, changed = fresh_run, true
  known_run, known_epoch = run, -1
end
if state == 'O' then
  -- Where the server's clock was set back, nothing stays open for longer.
  open_until = math.min(open_until, now + OPEN_FOR * 6 / 5)
end

local function change(to, ends)
  state, open_until, epoch, pok, changed = to, ends, epoch + 1, 0, true
end
local function open()
  -- The clock's own milliseconds are random enough for the jitter.
  change('O', now + OPEN_FOR + math.floor(OPEN_FOR * (now % 1000) / 5000))
end

local oldest = '(' .. (now - WINDOW * 1000)
local before, same_run = epoch, known_run == run
if ok + failed > 0 then
  if redis.call('ZADD', KEYS[3], now, node) == 1 or is_first then
    redis.call('PEXPIRE', KEYS[3], TTL)
  end
end

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
        redis.call('DEL', KEYS[2], KEYS[4])
      end
    end
  end
elseif ok + failed > 0 and (not same_run or known_epoch == epoch) then
  -- What was counted before the fleet closed says nothing about the time after.
  if failing then
    redis.call('ZADD', KEYS[4], now, node)
    redis.call('PEXPIRE', KEYS[4], TTL)
  else
    redis.call('ZREM', KEYS[4], node)
  end
  -- Slots of a second: "second:ok:failed". The others are only read if they may decide.
  local fields = { second % SLOTS }
  if failed > 0 then
    for i = 1, WINDOW - 1 do fields[i + 1] = (second - i) % SLOTS end
  end
  local slots = redis.call('HMGET', KEYS[2], unpack(fields))
  local good, bad = ok, failed
  local at, k, f = string.match(slots[1] or '', '(%d+):(%d+):(%d+)')
  local is_new = tonumber(at) ~= second
  if not is_new then good, bad = good + k, bad + f end
  redis.call('HSET', KEYS[2], fields[1], string.format('%d:%d:%d', second, good, bad))
  if is_new then redis.call('PEXPIRE', KEYS[2], TTL) end
  if failed > 0 then
    -- Half of all fail, now or for long: what was good before an outage must not hide it.
    local is_down = false
    for i = 1, WINDOW do
      if i > 1 then
        local at, k, f = string.match(slots[i] or '', '(%d+):(%d+):(%d+)')
        if tonumber(at) == second - i + 1 then good, bad = good + k, bad + f end
      end
      if i == RECENT or i == WINDOW then
        is_down = is_down or good + bad >= AT_LEAST and bad >= good
      end
    end
    if is_down then
      local votes = redis.call('ZCOUNT', KEYS[4], oldest, '+inf')
      if votes >= 2 and votes * 2 >= redis.call('ZCOUNT', KEYS[3], oldest, '+inf') then
        load = math.max(load, good + bad)
        open()
      end
    end
  end
end

-- Attempts that nodes were asked for, by quarters of a second: "quarter:count quarter:count". The last
-- two seconds count, most where they are a second old: so old is what each node told last.
local sum, quarter = 0, math.floor(now / 250)
if offered > 0 or stored[9] then
  local kept, current = {}, offered
  for at, count in string.gmatch(stored[9] or '', '(%d+):(%d+)') do
    local age = quarter - tonumber(at)
    if age == 0 then
      current = current + tonumber(count)
    elseif age > 0 and age < 8 then
      sum = sum + tonumber(count) * math.min(age, 8 - age)
      kept[#kept + 1] = at .. ':' .. count
    end
  end
  if offered > 0 then
    kept[#kept + 1] = string.format('%d:%d', quarter, current)
    redis.call('HSET', KEYS[1], 'offered', table.concat(kept, ' '))
  end
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
      if ends > gates_until then gates_until, changed = ends, true end
      -- Hundreds of nodes hear the same: only what adds something is passed on.
      if not old or ends >= math.max(old, now) + 100 then
        redis.call('PUBLISH', channel, 'G ' .. key .. ' ' .. length .. ' ' .. host)
      end
    end
  end
end
local closed = {}
if gates_until > now then
  local gates = redis.call('HGETALL', KEYS[5])
  for i = 1, #gates, 2 do
    local left = math.min(tonumber(gates[i + 1]) - now, LONGEST_GATE)
    if left > 0 then
      closed[#closed + 1] = gates[i]
      closed[#closed + 1] = left
    end
  end
end

if changed then
  redis.call('HSET', KEYS[1], 'run', run, 'st', state, 'epoch', epoch, 'until', open_until,
    'pok', pok, 'load', load, 'used', second, 'gates', gates_until)
end
if is_first then
  redis.call('PEXPIRE', KEYS[1], TTL)
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - WINDOW * 1000)
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - WINDOW * 1000)
end
local remaining = 0
if state == 'O' then remaining = open_until - now end
if epoch ~= before then
  redis.call('PUBLISH', channel,
    table.concat({ 'B', run, epoch, state, remaining, load, host }, ' '))
end
local nodes = redis.call('ZCOUNT', KEYS[3], oldest, '+inf')
return { now, run, epoch, state, remaining, load, nodes, sum, closed }
