-- name: create
-- How far the read models of this schema have come in each namespace; the row is also the lock
-- that lets one projector of many work on it.
CREATE TABLE projector_position (
    namespace text PRIMARY KEY,
    position  bigint NOT NULL
) WITH (fillfactor = 50);

-- Events that a read model could not fold: set aside, never skipped in silence.
CREATE TABLE projector_failures (
    namespace  text   NOT NULL,
    position   bigint NOT NULL,
    read_model text   NOT NULL,
    error      text   NOT NULL,
    PRIMARY KEY (namespace, position, read_model)
);

-- The definition that these tables were made from.
CREATE TABLE definition (checksum text NOT NULL);

-- "45s ago", "2m ago", "3h ago", "2d ago" (S3 FR-5).
CREATE FUNCTION human_age(seconds double precision) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT CASE WHEN seconds >= 86400 THEN floor(seconds / 86400)::text || 'd ago'
                WHEN seconds >= 3600 THEN floor(seconds / 3600)::text || 'h ago'
                WHEN seconds >= 60 THEN floor(seconds / 60)::text || 'm ago'
                ELSE floor(greatest(seconds, 0))::text || 's ago' END
$$;

-- A threshold by the name of its setting: this process's own, which it passes on as a setting of its
-- connections; else what the service was started with; else the standard.
CREATE FUNCTION threshold(setting text, standard float8) RETURNS float8 LANGUAGE sql STABLE
    RETURN coalesce(nullif(current_setting('holdfast.' || setting, true), '')::float8,
                    (SELECT t.value FROM public.service_thresholds t WHERE t.name = setting),
                    standard);

-- For how long a holder must have been silent for its claim to be taken over.
CREATE FUNCTION claim_stale_seconds() RETURNS float8 LANGUAGE sql STABLE
    RETURN threshold('claim_stale_seconds', 300);

-- name: positions
-- A namespace's head, and how far its read models have come.
SELECT coalesce((SELECT position FROM log_head WHERE namespace = %(namespace)s), 0) AS head,
       coalesce((SELECT position FROM projector_position WHERE namespace = %(namespace)s), 0)
       AS projected

-- name: behind
-- The namespaces whose read models are not at the head.
SELECT h.namespace, coalesce(p.position, 0) AS projected, h.position AS head
FROM log_head h LEFT JOIN projector_position p USING (namespace)
WHERE h.position > coalesce(p.position, 0)
ORDER BY h.namespace

-- name: begin
INSERT INTO projector_position VALUES (%(namespace)s, 0) ON CONFLICT DO NOTHING

-- name: lock
-- The position to go on from, unless another projector is at work on it.
SELECT position FROM projector_position WHERE namespace = %(namespace)s FOR UPDATE SKIP LOCKED

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
UPDATE projector_position SET position = %(position)s WHERE namespace = %(namespace)s

-- name: set_aside
INSERT INTO projector_failures VALUES (%(namespace)s, %(position)s, %(read_model)s, %(error)s)
ON CONFLICT DO NOTHING

-- name: announce
-- The thresholds of this process, for whoever asks the views past it.
INSERT INTO service_thresholds
SELECT * FROM unnest(%(names)s::text[], %(values)s::float8[])
ON CONFLICT (name) DO UPDATE SET value = excluded.value

-- name: namespaces
SELECT namespace FROM log_head ORDER BY namespace
