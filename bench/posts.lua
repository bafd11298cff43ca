-- POSTs in turn, for wrk. Arguments: API key, a file with path, tab and body in each line.
-- Every request is made beforehand, so that the load costs as little as it can.
local requests, last = {}, 0

function init(args)
  local headers = { ["Content-Type"] = "application/json", ["X-API-Key"] = args[1] }
  for line in io.lines(args[2]) do
    local path, body = line:match("^(.-)\t(.*)$")
    requests[#requests + 1] = wrk.format("POST", path, headers, body)
  end
end

function request()
  last = last % #requests + 1
  return requests[last]
end

function done(summary, latency, _)
  local e = summary.errors
  print(string.format(
    'RESULT {"requests": %d, "seconds": %.6f, "refused": %d, "broken": %d, "p50_ms": %.3f, "p99_ms": %.3f}',
    summary.requests, summary.duration / 1e6, e.status, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
