-- name: used
-- Say that a process has these definitions; once a minute is enough.
UPDATE projections.definitions SET used_at = clock_timestamp()
WHERE place = ANY (%(places)s) AND used_at < clock_timestamp() - interval '1 minute'

-- name: positions
-- A namespace's head, and how far the read models have come that have come least far.
SELECT coalesce((SELECT position FROM log_head WHERE namespace = %(namespace)s), 0) AS head,
       (SELECT coalesce(min(coalesce(p.position, 0)), 0)
        FROM unnest(%(places)s::text[]) AS w (place)
        LEFT JOIN projections.positions p
             ON p.namespace = %(namespace)s AND p.place = w.place) AS projected

-- name: behind
-- The namespaces whose read models are not all at the head.
SELECT h.namespace, l.projected, h.position AS head
FROM log_head h CROSS JOIN LATERAL (
    SELECT min(coalesce(p.position, 0)) AS projected
    FROM unnest(%(places)s::text[]) AS w (place)
    LEFT JOIN projections.positions p ON p.namespace = h.namespace AND p.place = w.place) AS l
WHERE h.position > l.projected
ORDER BY h.namespace

-- name: begin
INSERT INTO projections.positions
SELECT %(namespace)s, place, 0 FROM unnest(%(places)s::text[]) AS w (place)
ON CONFLICT DO NOTHING

-- name: lock
-- The positions to go on from, of the read models at which no other projector is at work.
SELECT place, position FROM projections.positions
WHERE namespace = %(namespace)s AND place = ANY (%(places)s)
ORDER BY place FOR UPDATE SKIP LOCKED

-- name: lock_all
-- The same, once all other projectors have finished their batch.
SELECT place, position FROM projections.positions
WHERE namespace = %(namespace)s AND place = ANY (%(places)s)
ORDER BY place FOR UPDATE

-- name: events
-- The next events, as many as have room, and one at least. Their sizes are those in the table: what is
-- compressed there is not unpacked to be left out, and counts as large as it is likely to be.
SELECT position, event_id, stream_id, sequence_num, event_type, "timestamp", event_data, metadata
FROM (
    SELECT *, sum(size) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) - size AS before
    FROM (
        SELECT *, CASE WHEN pg_column_compression(event_data) IS NULL
                       THEN pg_column_size(event_data)
                       ELSE least(40 * pg_column_size(event_data), 262144) END AS size
        FROM event_store
        WHERE namespace = %(namespace)s AND position > %(after)s
        ORDER BY position LIMIT %(limit)s) AS sized) AS counted
WHERE before < %(room)s
ORDER BY position

-- name: advance
UPDATE projections.positions SET position = %(position)s
WHERE namespace = %(namespace)s AND place = ANY (%(places)s) AND position < %(position)s

-- name: set_aside
INSERT INTO projections.dead_letters (namespace, place, position, read_model, error)
VALUES (%(namespace)s, %(place)s, %(position)s, %(read_model)s, %(error)s)
ON CONFLICT DO NOTHING

-- name: count_set_aside
SELECT count(*) FROM projections.dead_letters WHERE place = ANY (%(places)s)

-- name: announce
-- The thresholds of this process, for whoever asks the views past it.
INSERT INTO service_thresholds
SELECT * FROM unnest(%(names)s::text[], %(values)s::float8[])
ON CONFLICT (name) DO UPDATE SET value = excluded.value

-- name: namespaces
SELECT namespace FROM log_head ORDER BY namespace
