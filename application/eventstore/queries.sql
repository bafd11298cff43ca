-- name: append
-- One append: all of it or none of it, in one round trip.
SELECT head, written_at FROM append(%(namespace)s, %(events)s, %(expected)s, %(receipts)s)

-- name: hold
SELECT hold_log(%(namespace)s)

-- name: written
-- Whether an event of ours is there, and at which position: asked after a lost acknowledgement.
SELECT position, clock_timestamp() AS written_at
FROM event_store
WHERE namespace = %(namespace)s AND stream_id = %(stream_id)s
  AND sequence_num = %(sequence_num)s AND event_id = %(event_id)s

-- name: load
-- The newest usable snapshot of each stream, and what came after it.
SELECT w.stream_id, s.sequence_num, NULL AS event_type, NULL AS "timestamp", s.state AS data,
       NULL AS metadata
FROM unnest(%(streams)s::text[], %(state_versions)s::int[]) AS w (stream_id, state_version)
CROSS JOIN LATERAL (
    SELECT sequence_num, state FROM snapshots
    WHERE namespace = %(namespace)s AND stream_id = w.stream_id AND state_version = w.state_version
    ORDER BY sequence_num DESC LIMIT 1) AS s
UNION ALL
SELECT w.stream_id, e.sequence_num, e.event_type, e."timestamp", e.event_data, e.metadata
FROM unnest(%(streams)s::text[], %(state_versions)s::int[]) AS w (stream_id, state_version)
CROSS JOIN LATERAL (
    SELECT * FROM event_store
    WHERE namespace = %(namespace)s AND stream_id = w.stream_id
      AND sequence_num > coalesce((
          SELECT sequence_num FROM snapshots
          WHERE namespace = %(namespace)s AND stream_id = w.stream_id
            AND state_version = w.state_version
          ORDER BY sequence_num DESC LIMIT 1), 0)) AS e
ORDER BY stream_id, sequence_num

-- name: snapshot_before
-- The newest snapshot of a stream at or below a sequence number.
SELECT sequence_num, state FROM snapshots
WHERE namespace = %(namespace)s AND stream_id = %(stream_id)s
  AND state_version = %(state_version)s AND sequence_num <= %(to)s
ORDER BY sequence_num DESC LIMIT 1

-- name: insert_snapshots
SELECT keep_snapshots(%(namespace)s, %(snapshots)s)

-- name: receipts
-- Replies already given under these idempotency keys, within the last day.
SELECT receipt_key, request_hash, status, body::text AS body, position
FROM receipts
WHERE namespace = %(namespace)s AND receipt_key = ANY (%(keys)s)
  AND created_at >= clock_timestamp() - interval '24 hours'

-- name: forget_receipts
SELECT forget_receipts(%(namespace)s) AS forgotten

-- name: stream
-- One stream's events between two sequence numbers.
SELECT position, event_id, stream_id, sequence_num, event_type, "timestamp", event_data, metadata
FROM event_store
WHERE namespace = %(namespace)s AND stream_id = %(stream_id)s
  AND sequence_num > %(after)s AND sequence_num <= %(upto)s
ORDER BY sequence_num LIMIT %(limit)s

-- name: log
-- A namespace's log after a position, in commit order.
SELECT position, event_id, stream_id, sequence_num, event_type, "timestamp", event_data, metadata
FROM event_store
WHERE namespace = %(namespace)s AND position > %(after)s AND position <= %(upto)s
  AND (%(types)s::text[] IS NULL OR event_type = ANY (%(types)s))
ORDER BY position LIMIT %(limit)s

-- name: log_of_types
-- The same of types none of which is a heartbeat, by the index of these.
SELECT e.position, e.event_id, e.stream_id, e.sequence_num, e.event_type, e."timestamp",
       e.event_data, e.metadata
FROM unnest(%(types)s::text[]) AS t (event_type)
CROSS JOIN LATERAL (
    SELECT * FROM event_store
    WHERE namespace = %(namespace)s AND event_type = t.event_type
      AND position > %(after)s AND position <= %(upto)s
      AND event_type NOT IN ('session_heartbeat', 'instance_heartbeat', 'machine_heartbeat')
    ORDER BY position LIMIT %(limit)s) AS e
ORDER BY e.position LIMIT %(limit)s

-- name: head
SELECT position FROM log_head WHERE namespace = %(namespace)s

-- name: clock
SELECT clock_timestamp() AS now

-- name: touch_serving
-- Say that this process can be reached now; since when anyone could.
SELECT touched_at, serving_since, absent_since FROM touch_serving(%(tolerance_seconds)s)

-- name: serving
SELECT statement_timestamp() AS now, serving_since(), absent_since()

-- name: begin_job
-- Take a job's turn, if it did not begin within the period: true for one process of many. A run
-- that has not ended after ten minutes has failed, and is due again.
INSERT INTO job_runs AS j (job, started_at) VALUES (%(job)s, clock_timestamp())
ON CONFLICT (job) DO UPDATE SET started_at = clock_timestamp()
WHERE j.started_at < clock_timestamp() - %(period)s::interval
   OR (coalesce(j.finished_at, '-infinity') < j.started_at
       AND j.started_at < clock_timestamp() - interval '10 minutes')

-- name: end_job
UPDATE job_runs SET finished_at = clock_timestamp() WHERE job = %(job)s

-- name: version
SELECT stream_version(%(namespace)s, %(stream_id)s) AS version

-- name: find_in_stream
-- A stream's events that meet every criterion given, oldest first.
SELECT position, event_id, stream_id, sequence_num, event_type, "timestamp", event_data, metadata
FROM event_store
WHERE namespace = %(namespace)s AND stream_id = %(stream_id)s
  AND (%(types)s::text[] IS NULL OR event_type = ANY (%(types)s))
  AND (%(start)s::timestamptz IS NULL OR "timestamp" >= %(start)s)
  AND (%(end)s::timestamptz IS NULL OR "timestamp" <= %(end)s)
  AND (%(keyword)s::text IS NULL OR strpos(lower(event_data::text), lower(%(keyword)s)) > 0)
  AND sequence_num > coalesce(%(past)s::bigint, 0)
ORDER BY sequence_num LIMIT %(limit)s OFFSET %(offset)s

-- name: find_in_stream_backwards
-- The same, newest first.
SELECT position, event_id, stream_id, sequence_num, event_type, "timestamp", event_data, metadata
FROM event_store
WHERE namespace = %(namespace)s AND stream_id = %(stream_id)s
  AND (%(types)s::text[] IS NULL OR event_type = ANY (%(types)s))
  AND (%(start)s::timestamptz IS NULL OR "timestamp" >= %(start)s)
  AND (%(end)s::timestamptz IS NULL OR "timestamp" <= %(end)s)
  AND (%(keyword)s::text IS NULL OR strpos(lower(event_data::text), lower(%(keyword)s)) > 0)
  AND sequence_num < coalesce(%(past)s::bigint, 9223372036854775807)
ORDER BY sequence_num DESC LIMIT %(limit)s OFFSET %(offset)s

-- name: count_in_stream
SELECT count(*) AS total
FROM event_store
WHERE namespace = %(namespace)s AND stream_id = %(stream_id)s
  AND (%(types)s::text[] IS NULL OR event_type = ANY (%(types)s))
  AND (%(start)s::timestamptz IS NULL OR "timestamp" >= %(start)s)
  AND (%(end)s::timestamptz IS NULL OR "timestamp" <= %(end)s)
  AND (%(keyword)s::text IS NULL OR strpos(lower(event_data::text), lower(%(keyword)s)) > 0)
