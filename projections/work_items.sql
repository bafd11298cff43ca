-- name: create
-- One row for each work item: what it is, and who has it. How long its holder has been silent
-- depends on the time of the read and is computed by the queries.
CREATE TABLE work_items (
    namespace       text        NOT NULL,
    item_id         text        NOT NULL,
    title           text,
    track           text,
    priority        int         NOT NULL,
    depends_on      jsonb       NOT NULL,
    status          text        NOT NULL,
    holder_kind     text,
    holder_id       text,
    hostname        text,
    tty             text,
    codebase        text,
    fence           bigint,
    claimed_at      timestamptz,
    last_machine_id text,
    completed_at    timestamptz,
    completed_by    text,
    open_dependencies jsonb     NOT NULL,
    cancelled_at    timestamptz,
    status_reason   text,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    -- The position of its first event: what was listed first comes first.
    listed_at       bigint      NOT NULL,
    PRIMARY KEY (namespace, item_id)
) WITH (fillfactor = 80);
-- Serves: the list, whatever the filter.
CREATE INDEX work_items_by_priority ON work_items (namespace, priority DESC, listed_at);
-- Serves: the next item to claim; lists of one status.
CREATE INDEX work_items_by_status ON work_items (namespace, status, priority DESC, listed_at);
-- Serves: what is held, and by whom.
CREATE INDEX work_items_by_holder ON work_items (namespace, holder_id, claimed_at)
    WHERE holder_id IS NOT NULL;
-- Serves: what a machine worked on and left.
CREATE INDEX work_items_by_machine ON work_items (namespace, last_machine_id, priority, listed_at)
    WHERE status = 'open' AND last_machine_id IS NOT NULL;

-- Whether nothing has to wait for an item of this status; an item that nobody listed has none.
CREATE FUNCTION is_settled(status text) RETURNS boolean LANGUAGE sql IMMUTABLE
    RETURN coalesce(status IN ('completed', 'cancelled', 'removed'), false);

-- Whether everything that an item waits for is done, or never will be.
CREATE FUNCTION is_ready(item work_items) RETURNS boolean LANGUAGE sql STABLE
    RETURN NOT EXISTS (
        SELECT FROM jsonb_array_elements_text(item.depends_on) AS d
        WHERE NOT is_settled((SELECT x.status FROM work_items x
                              WHERE x.namespace = item.namespace AND x.item_id = d)));

-- Every item with its holder's heartbeat and what it waits for (S3 FR-2, FR-3, FR-6).
CREATE VIEW work_queue AS
SELECT w.namespace, w.item_id, w.title, w.track, w.priority, w.depends_on, b.blocked_by, w.status,
       w.holder_id IS NOT NULL AS is_working_on,
       CASE WHEN w.holder_kind = 'session' THEN w.holder_id END AS active_session_id,
       CASE WHEN w.holder_kind = 'instance' THEN w.holder_id END AS active_instance_id,
       w.holder_id AS holder, w.holder_kind, w.hostname, w.tty, w.codebase, w.fence, w.claimed_at,
       h.held / 60 AS claim_duration_minutes,
       h.age AS heartbeat_age_seconds,
       human_age(h.age) AS heartbeat_age_human,
       coalesce(h.silent > t.stale_seconds, false) AS stale,
       CASE WHEN h.silent <= t.stale_seconds AND h.last < t.serving_since
            THEN greatest(h.last, t.absent_since) END AS unknown_since,
       CASE WHEN h.silent IS NOT NULL THEN greatest(t.stale_seconds - h.silent, 0)
       END AS seconds_until_takeover,
       w.last_machine_id, w.completed_at, w.completed_by, w.open_dependencies,
       w.cancelled_at, w.status_reason,
       w.created_at, w.updated_at, w.listed_at
FROM work_items w
CROSS JOIN LATERAL (
    SELECT statement_timestamp() AS now,
           (SELECT serving_since()) AS serving_since,
           (SELECT absent_since()) AS absent_since,
           (SELECT claim_stale_seconds()) AS stale_seconds) AS t
LEFT JOIN sessions s ON w.holder_kind = 'session'
     AND s.namespace = w.namespace AND s.session_id = w.holder_id
LEFT JOIN instances i ON w.holder_kind = 'instance'
     AND i.namespace = w.namespace AND i.instance_id = w.holder_id
LEFT JOIN LATERAL (
    SELECT greatest(extract(epoch FROM t.now - w.claimed_at)::float8, 0) AS held,
           greatest(extract(epoch FROM t.now - beat.last)::float8, 0) AS age,
           -- Since it has the claim: a new one never inherits the silence from before (spec 6).
           greatest(extract(epoch FROM t.now - greatest(beat.last, w.claimed_at, t.serving_since)
                            )::float8, 0) AS silent,
           beat.last
    FROM (SELECT CASE w.holder_kind WHEN 'session' THEN s.last_heartbeat
                                    ELSE i.last_heartbeat END AS last) AS beat
    ) AS h ON w.holder_id IS NOT NULL
CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_agg(d ORDER BY d COLLATE "C"), '[]') AS blocked_by
    FROM jsonb_array_elements_text(w.depends_on) AS d
    WHERE NOT is_settled(w.status)
      AND NOT is_settled((SELECT x.status FROM work_items x
                          WHERE x.namespace = w.namespace AND x.item_id = d))) AS b
WHERE w.status <> 'removed';

-- name: get
SELECT * FROM work_queue WHERE namespace = %(namespace)s AND item_id = %(item_id)s

-- name: list
SELECT * FROM work_queue
WHERE namespace = %(namespace)s
  AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(track)s::text IS NULL OR track = %(track)s)
  AND priority <= coalesce(%(past_priority)s::bigint, 2147483647)
  AND (%(past_priority)s::bigint IS NULL OR priority < %(past_priority)s
       OR listed_at > %(past_listed_at)s::bigint)
ORDER BY priority DESC, listed_at
LIMIT %(limit)s OFFSET %(offset)s

-- name: count
SELECT count(*) AS total_count FROM work_items
WHERE namespace = %(namespace)s AND status <> 'removed'
  AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(track)s::text IS NULL OR track = %(track)s)

-- name: claims
-- What is held now, or by one holder, the latest claim first.
SELECT * FROM work_queue
WHERE namespace = %(namespace)s AND holder IS NOT NULL
  AND (%(holder)s::text IS NULL OR holder = %(holder)s)
  AND claimed_at <= coalesce(%(past_claimed_at)s::timestamptz, 'infinity')
  AND (%(past_claimed_at)s::timestamptz IS NULL OR claimed_at < %(past_claimed_at)s
       OR item_id > %(past_item_id)s::text)
ORDER BY claimed_at DESC, item_id
LIMIT %(limit)s OFFSET %(offset)s

-- name: claims_count
SELECT count(*) AS total_count FROM work_items
WHERE namespace = %(namespace)s AND holder_id IS NOT NULL
  AND (%(holder)s::text IS NULL OR holder_id = %(holder)s)

-- name: next
-- Candidates for the next claim, without those that were refused before: of the highest priority
-- first those that the claimer's machine worked on last, then those listed first; with a takeover
-- also those whose holder has been silent for long enough. An item may come twice.
WITH claimer AS MATERIALIZED (
    SELECT coalesce(
        (SELECT machine_id FROM sessions
         WHERE namespace = %(namespace)s AND session_id = %(session_id)s),
        (SELECT hostname FROM instances
         WHERE namespace = %(namespace)s AND instance_id = %(instance_id)s),
        %(hostname)s::text) AS machine_id
), best AS MATERIALIZED (
    SELECT r.priority FROM work_items r
    WHERE r.namespace = %(namespace)s AND r.status = 'open'
      AND (%(track)s::text IS NULL OR r.track = %(track)s)
      AND r.item_id <> ALL (%(besides)s::text[])
      AND (r.depends_on = '[]' OR is_ready(r))
    ORDER BY r.priority DESC, r.listed_at LIMIT 1
)
SELECT item_id FROM (
    (SELECT 1 AS rank, r.priority, r.listed_at, r.item_id FROM work_items r
     WHERE r.namespace = %(namespace)s AND r.status = 'open'
       AND r.last_machine_id = (SELECT machine_id FROM claimer)
       AND r.priority = (SELECT priority FROM best)
       AND (%(track)s::text IS NULL OR r.track = %(track)s)
       AND r.item_id <> ALL (%(besides)s::text[])
       AND (r.depends_on = '[]' OR is_ready(r))
     ORDER BY r.listed_at LIMIT %(limit)s)
    UNION ALL
    (SELECT 2, r.priority, r.listed_at, r.item_id FROM work_items r
     WHERE r.namespace = %(namespace)s AND r.status = 'open'
       AND (%(track)s::text IS NULL OR r.track = %(track)s)
       AND r.item_id <> ALL (%(besides)s::text[])
       AND (r.depends_on = '[]' OR is_ready(r))
     ORDER BY r.priority DESC, r.listed_at LIMIT %(limit)s)
    UNION ALL
    (SELECT 3, q.priority, q.listed_at, q.item_id FROM work_queue q
     WHERE %(takeover)s AND q.namespace = %(namespace)s AND q.status = 'claimed' AND q.stale
       AND q.holder IS DISTINCT FROM coalesce(%(session_id)s::text, %(instance_id)s::text)
       AND (%(track)s::text IS NULL OR q.track = %(track)s)
       AND q.item_id <> ALL (%(besides)s::text[])
       AND q.blocked_by = '[]'
     ORDER BY q.priority DESC, q.listed_at LIMIT %(limit)s)
) AS found
ORDER BY priority DESC, rank, listed_at
LIMIT %(limit)s

-- name: behind
-- What is still to do and would have to come before these items, or before this one.
WITH RECURSIVE behind AS (
    SELECT unnest(%(item_ids)s::text[]
                  || ARRAY(SELECT jsonb_array_elements_text(w.depends_on) FROM work_items w
                           WHERE w.namespace = %(namespace)s AND w.item_id = %(item_id)s))
           AS item_id
    UNION
    -- The limit, for a look at the key for each item: a long chain has as many steps as items.
    SELECT d FROM behind b
    CROSS JOIN LATERAL (SELECT w.depends_on FROM work_items w
                        WHERE w.namespace = %(namespace)s AND w.item_id = b.item_id
                          AND NOT is_settled(w.status)
                        LIMIT 1) w
    CROSS JOIN LATERAL jsonb_array_elements_text(w.depends_on) AS d)
SELECT item_id FROM behind LIMIT %(limit)s
