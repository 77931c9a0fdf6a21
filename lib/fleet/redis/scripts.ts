// What is changed in Redis, in one step each. Invariant: of a range that two workers have begun, only the one that holds
// its lease can save, finish or fail it; and what is counted is counted once, however often a script is called.
// Numbers are formatted, because Lua would write large ones with an exponent.

/** Every script gets the fleet's prefix as its one key: all of a fleet's keys are in one slot. */
const PRELUDE = `
local P = KEYS[1]
local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function text(number) return string.format('%.0f', number) end
local function field(id, name) return redis.call('HGET', P .. 'export:' .. id, name) end
local function number(id, name) return tonumber(field(id, name) or 0) end
-- Lua has a negative zero, which Redis does not take for a number.
local function add(key, name, amount)
  if amount ~= 0 then redis.call('HINCRBY', key, name, text(amount)) end
end
local function total(name, amount) add(P .. 'totals', name, amount) end
local function holder(job)
  local held = redis.call('HGET', P .. 'holders', job)
  if not held then return nil, 0 end
  local space = string.find(held, ' ', 1, true)
  return string.sub(held, space + 1), tonumber(string.sub(held, 1, space - 1))
end
-- A worker whose lease has ended still holds a range that no other worker has begun: it has stopped by itself by then,
-- and what it reports was done within its lease.
local function holds(job, token)
  return holder(job) == token
end
-- Milliseconds until every lease has ended that this Redis may have forgotten when it was started.
local function youth(lease)
  local up = string.match(redis.call('INFO', 'server'), 'uptime_in_seconds:(%d+)')
  return lease + 1000 - tonumber(up or lease) * 1000
end
local function servers(id)
  local s = redis.call('HMGET', P .. 'export:' .. id, 'sourceServer', 'sourceLimit', 'destinationServer', 'destinationLimit')
  local list = {}
  if s[1] then table.insert(list, { s[1], tonumber(s[2] or 0) }) end
  if s[3] and s[3] ~= s[1] then
    table.insert(list, { s[3], tonumber(s[4] or 0) })
  elseif s[3] and tonumber(s[4] or 0) > 0 and (list[1][2] == 0 or tonumber(s[4]) < list[1][2]) then
    list[1][2] = tonumber(s[4])
  end
  return list
end
local function free(id, job)
  redis.call('HDEL', P .. 'holders', job)
  redis.call('HDEL', P .. 'running', job)
  for _, s in ipairs(servers(id)) do redis.call('ZREM', P .. 'slots:' .. s[1], job) end
end
local function each(id, name, amount)
  for _, s in ipairs(servers(id)) do add(P .. 'server:' .. s[1], name, amount) end
end
local function settle(id, state)
  redis.call('HSET', P .. 'export:' .. id, 'state', state, 'endedAt', text(now()))
  total(state, 1)
  return state
end
-- What comes next for an export: '' (more of the same), 'combine', 'verify', or the state that it is in now.
local function step(id)
  local state = field(id, 'state')
  if state ~= 'planned' then return state or 'gone' end
  local ranges, failed, done = number(id, 'ranges'), number(id, 'failed'), number(id, 'workDone')
  if done + failed < ranges then return '' end
  if done < ranges then return settle(id, 'failed') end
  if field(id, 'kind') == 'hash' and not field(id, 'result') then return 'combine' end
  if field(id, 'verify') ~= '1' then return settle(id, 'done') end
  local verified = number(id, 'verifyDone')
  if verified + failed < ranges then return 'verify' end
  return settle(id, verified < ranges and 'failed' or 'done')
end
`;

/** Name, and text without the prelude. */
const BODIES = {
  // id, token, fields and values of a new export: what state it is in; 'planning' for the caller to plan it.
  claim: `
local id = ARGV[1]
local key = P .. 'export:' .. id
local state = redis.call('HGET', key, 'state')
if state and state ~= 'planning' and state ~= 'unplanned' then return state end
if not state then
  redis.call('ZADD', P .. 'exports', redis.call('INCR', P .. 'sequence'), id)
  total('exports', 1)
end
if state == 'unplanned' then total('unplanned', -1) end
redis.call('HSET', key, 'state', 'planning', unpack(ARGV, 2))
redis.call('HDEL', key, 'reason')
for _, s in ipairs(servers(id)) do redis.call('SADD', P .. 'servers', s[1]) end
return 'planning'`,

  // id, plan, size, destination size, ranges, bytes: the plan that counts, which is the first; whether it is this one;
  // and what comes next.
  commit: `
local id, plan = ARGV[1], ARGV[2]
local key = P .. 'export:' .. id
local first = redis.call('GET', P .. 'plan:' .. id)
if first then return { first, 0, step(id) } end
local state = redis.call('HGET', key, 'state')
if state ~= 'planning' and state ~= 'unplanned' then return { '', 0, state or 'gone' } end
if state == 'unplanned' then total('unplanned', -1) end
redis.call('SET', P .. 'plan:' .. id, plan)
redis.call('HSET', key, 'state', 'planned', 'size', ARGV[3], 'destinationSize', ARGV[4], 'ranges', ARGV[5],
  'bytes', ARGV[6], 'plannedAt', text(now()))
local phases = redis.call('HGET', key, 'verify') == '1' and 2 or 1
total('ranges', tonumber(ARGV[5]) * phases)
total('bytes', tonumber(ARGV[6]) * phases)
return { plan, 1, step(id) }`,

  // id, reason: an export could not be planned.
  unplan: `
local id = ARGV[1]
if field(id, 'state') ~= 'planning' then return 0 end
redis.call('HSET', P .. 'export:' .. id, 'state', 'unplanned', 'reason', ARGV[2])
total('unplanned', 1)
return 1`,

  // id, job, token, lease, phase, index
  begin: `
local id, job, token, lease, phase, index = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local state = field(id, 'state')
if not state then return { 'gone' } end
if redis.call('GETBIT', P .. phase .. ':' .. id, index) == 1 then return { 'done', step(id) } end
if state == 'cancelled' then return { 'cancelled' } end
local reason = redis.call('HGET', P .. 'failed:' .. id, phase .. '-' .. index)
if reason then return { 'failed', reason } end
-- Left over from before a range was put back to be copied again.
if phase == 'verify' and number(id, 'workDone') < number(id, 'ranges') then return { 'held', '500' } end
local young = youth(lease)
if young > 0 then return { 'young', text(young) } end
local time = now()
local by, untilTime = holder(job)
if by and by ~= token and untilTime > time then return { 'held', text(untilTime - time) } end
local list = servers(id)
for _, s in ipairs(list) do
  local key = P .. 'slots:' .. s[1]
  redis.call('ZREMRANGEBYSCORE', key, '-inf', text(time))
  if s[2] > 0 and not redis.call('ZSCORE', key, job) and redis.call('ZCARD', key) >= s[2] then return { 'busy', s[1] } end
end
for _, s in ipairs(list) do redis.call('ZADD', P .. 'slots:' .. s[1], text(time + lease), job) end
redis.call('HSET', P .. 'holders', job, text(time + lease) .. ' ' .. token)
redis.call('HSETNX', P .. 'export:' .. id, 'startedAt', text(time))
return { 'ok', field(id, 'job'), field(id, 'size'), field(id, 'destinationSize') }`,

  // lease, worker, what of it, then for each range: id, job, token, what of it. The fleet's identity, then for each range
  // 'ok', 'lost' or 'cancelled'.
  renew: `
local lease, time = tonumber(ARGV[1]), now()
redis.call('HSET', P .. 'workers', ARGV[2], text(time) .. ' ' .. ARGV[3])
local answers = { redis.call('HGET', P .. 'info', 'id') or '' }
for at = 4, #ARGV, 4 do
  local id, job, token = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local answer = 'ok'
  if not holds(job, token) then
    answer = 'lost'
  elseif field(id, 'state') == 'cancelled' then
    answer = 'cancelled'
  else
    redis.call('HSET', P .. 'holders', job, text(time + lease) .. ' ' .. token)
    redis.call('HSET', P .. 'running', job, ARGV[at + 3])
    for _, s in ipairs(servers(id)) do redis.call('ZADD', P .. 'slots:' .. s[1], text(time + lease), job) end
  end
  table.insert(answers, answer)
end
return answers`,

  // job, token, text
  save: `
if not holds(ARGV[1], ARGV[2]) then return 'lost' end
redis.call('SET', P .. 'checkpoint:' .. ARGV[1], ARGV[3])
return 'ok'`,

  // id, job, token, phase, index, bytes, moved, milliseconds, digest
  finish: `
local id, job, token, phase, index = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
if not field(id, 'state') then return { 'gone' } end
if not holds(job, token) then return { 'lost' } end
local key = P .. 'export:' .. id
if redis.call('SETBIT', P .. phase .. ':' .. id, index, 1) == 0 then
  add(key, phase .. 'Done', 1)
  add(key, phase .. 'Bytes', tonumber(ARGV[6]))
  add(key, 'moved', tonumber(ARGV[7]))
  total('rangesDone', 1)
  total('bytesDone', tonumber(ARGV[6]))
  total('moved', tonumber(ARGV[7]))
  each(id, 'ranges', 1)
  each(id, 'bytes', tonumber(ARGV[6]))
  each(id, 'moved', tonumber(ARGV[7]))
  each(id, 'milliseconds', tonumber(ARGV[8]))
end
if ARGV[9] ~= '' then redis.call('HSET', P .. 'digests:' .. id, index, ARGV[9]) end
redis.call('DEL', P .. 'checkpoint:' .. job)
free(id, job)
local next = step(id)
if next == 'verify' and phase == 'verify' then next = '' end
return { 'ok', next }`,

  // id, job, token, phase, index, reason
  fail: `
local id, job, token, phase, index = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if not field(id, 'state') then return { 'gone' } end
if not holds(job, token) then return { 'lost' } end
if redis.call('HSETNX', P .. 'failed:' .. id, phase .. '-' .. index, ARGV[6]) == 1 then
  add(P .. 'export:' .. id, 'failed', 1)
  total('rangesFailed', 1)
  each(id, 'failures', 1)
end
free(id, job)
return { 'ok', step(id) }`,

  // id, job, token, what is counted ('retries', or '' for nothing), reason
  release: `
local id, job, token = ARGV[1], ARGV[2], ARGV[3]
if not holds(job, token) then return 'lost' end
free(id, job)
if ARGV[4] ~= '' and field(id, 'state') then
  add(P .. 'export:' .. id, ARGV[4], 1)
  redis.call('HSET', P .. 'export:' .. id, 'lastError', ARGV[5])
  total(ARGV[4], 1)
  each(id, ARGV[4], 1)
end
return 'ok'`,

  // id, result: the hash of an export is complete.
  conclude: `
local id = ARGV[1]
if not field(id, 'state') then return 'gone' end
redis.call('HSETNX', P .. 'export:' .. id, 'result', ARGV[2])
redis.call('DEL', P .. 'digests:' .. id)
return step(id)`,

  // id
  cancel: `
local id = ARGV[1]
local state = field(id, 'state')
if state ~= 'planning' and state ~= 'planned' and state ~= 'unplanned' then return 0 end
if state == 'unplanned' then total('unplanned', -1) end
settle(id, 'cancelled')
return 1`,

  // id: takes back what failed, or was cancelled. How many ranges had failed; -1 where there is nothing to
  // revive, and -2 where there is nothing, and ranges are left.
  revive: `
local id = ARGV[1]
local key = P .. 'export:' .. id
local state = field(id, 'state')
if state ~= 'failed' and state ~= 'cancelled' and state ~= 'planned' then return -1 end
local list = redis.call('HGETALL', P .. 'failed:' .. id)
for at = 1, #list, 2 do
  local reason = cjson.decode(list[at + 1])
  redis.call('DEL', P .. 'checkpoint:' .. id .. '-' .. list[at])
  total('rangesFailed', -1)
  -- A range that differs is copied again, and not only compared.
  if reason.phase == 'verify' and reason.code == 'EBADMSG' and redis.call('SETBIT', P .. 'work:' .. id, reason.index, 0) == 1 then
    add(key, 'workDone', -1)
    add(key, 'workBytes', -reason.bytes)
    total('rangesDone', -1)
    total('bytesDone', -reason.bytes)
  end
end
redis.call('DEL', P .. 'failed:' .. id)
if state == 'planned' and #list == 0 then return -2 end
redis.call('HDEL', key, 'endedAt', 'failed')
if state ~= 'planned' then total(state, -1) end
redis.call('HSET', key, 'state', redis.call('EXISTS', P .. 'plan:' .. id) == 1 and 'planned' or 'planning')
return #list / 2`,
} as const;

/** The scripts. */
export type ScriptName = keyof typeof BODIES;

export const SCRIPTS = Object.entries(BODIES).map(([name, body]) => ({
  name: name as ScriptName,
  lua: PRELUDE + body,
}));
