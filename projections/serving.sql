-- name: intervals
-- When the service could be reached, the latest first; the time between two is an absence.
SELECT interval_num, started_at, last_at,
       statement_timestamp() <= last_at + tolerance_seconds * interval '1 second'
       AND interval_num = (SELECT max(interval_num) FROM serving_intervals) AS is_current
FROM serving_intervals
WHERE interval_num < coalesce(%(past_interval_num)s::bigint, 9223372036854775807)
ORDER BY interval_num DESC LIMIT %(limit)s OFFSET %(offset)s

-- name: count
SELECT count(*) AS total_count FROM serving_intervals

-- name: now
-- Since when the service has been there, and since when it had not been before that.
SELECT coalesce(serving_since(), (SELECT max(started_at) FROM serving_intervals)) AS serving_since,
       absent_since() AS absent_since
