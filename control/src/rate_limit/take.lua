-- What window.rs does, for several keys at once: all of them fit, or none is counted.
-- ARGV: milliseconds now (0: the server's), then for each key limit, unit in milliseconds, hits.
-- Returns for each key whether it fits (1 or 0), what remains, milliseconds until the unit ends or what does not fit will.
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
-- How far into a unit the share of the one before has come down to room.
local function from(before, room, unit)
  local left = unit
  if before > room then
    left = math.min(unit, math.floor(room * unit / before))
  end
  return unit - left
end
local function wait(before, current, elapsed, limit, unit, hits)
  local room = limit - hits
  if room < 0 then
    return unit - elapsed
  elseif room >= current then
    return math.max(1, from(before, room - current, unit) - elapsed)
  end
  return unit - elapsed + from(current, room, unit)
end
local windows, all = {}, true
for i, key in ipairs(KEYS) do
  local limit, unit, hits = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1])
  local index, elapsed = math.floor(now / unit), now % unit
  local kept = redis.call('HMGET', key, 'i', 'b', 'c')
  local at, before, current = tonumber(kept[1] or '0'), tonumber(kept[2] or '0'), tonumber(kept[3] or '0')
  if at > index then
    index, elapsed = at, 0
  elseif at + 1 == index then
    before, current = current, 0
  elseif at ~= index then
    before, current = 0, 0
  end
  local used = math.ceil(before * (unit - elapsed) / unit) + current
  local fits = hits < 0 or used + hits <= limit
  all = all and fits
  local reset = fits and unit - elapsed or wait(before, current, elapsed, limit, unit, hits)
  windows[i] = { key, index, before, current, used, fits, limit, unit, hits, reset }
end
local answers = {}
for i, w in ipairs(windows) do
  local key, index, before, current, used, fits, limit, unit, hits, reset = unpack(w)
  if all then
    current = math.max(0, current + hits)
    used = math.max(0, used + hits)
    redis.call('HSET', key, 'i', string.format('%.0f', index), 'b', string.format('%.0f', before), 'c', string.format('%.0f', current))
    redis.call('PEXPIRE', key, string.format('%.0f', 2 * unit))
  end
  answers[3 * i - 2] = fits and 1 or 0
  answers[3 * i - 1] = math.max(0, limit - used)
  answers[3 * i] = reset
end
return answers
