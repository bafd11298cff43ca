-- name: create
-- One row for each session that was not deleted. Ages and stalls depend on the time of the read
-- and are computed by the queries, so a row changes with events only.
CREATE TABLE sessions (
    namespace          text        NOT NULL,
    session_id         text        NOT NULL,
    project_id         text        NOT NULL,
    -- The slug of the project, however its name was written: what lists are filtered by.
    project            text        NOT NULL,
    machine_id         text,
    docker_slot        int,
    status             text        NOT NULL,
    last_heartbeat     timestamptz NOT NULL,
    current_task_id    text,
    started_at         timestamptz NOT NULL,
    completed_at       timestamptz,
    metadata           jsonb       NOT NULL,
    instance_id        text,
    hostname           text,
    tty                text,
    codebase           text,
    stall_threshold_ms int,
    outcome            text,
    recovered_from     text,
    recovered_to       text,
    superseded_by      text,
    supervisor         text,
    supervisor_fence   bigint,
    supervisor_hostname text,
    supervised_since   timestamptz,
    instance_before    text,
    archived_at        timestamptz,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    held               jsonb       NOT NULL,
    -- Since when it has each of the work items that it holds.
    held_since         jsonb       NOT NULL,
    released_items     jsonb       NOT NULL,
    status_num         bigint      NOT NULL,
    heartbeat_num      bigint      NOT NULL,
    -- The minute of the last heartbeat, for the index: a row whose indexed columns stay the same
    -- is updated in its page, and a fleet's heartbeats do not rewrite every index.
    heartbeat_minute   bigint      NOT NULL,
    PRIMARY KEY (namespace, session_id)
) WITH (fillfactor = 70);
-- Serves: lists, newest first, whatever the filter.
CREATE INDEX sessions_by_creation ON sessions (namespace, created_at DESC, session_id);
CREATE INDEX sessions_by_project ON sessions (namespace, project, status);
-- Serves: a machine's active sessions.
CREATE INDEX sessions_by_machine ON sessions (namespace, machine_id, status);
-- Serves: counts, and whatever asks for one status.
CREATE INDEX sessions_by_status ON sessions (namespace, status, created_at DESC);
-- Serves: the stalled list and the sweep.
CREATE INDEX sessions_by_heartbeat ON sessions (namespace, heartbeat_minute)
    WHERE status IN ('active', 'stalled');
-- Serves: the sweep that ends what has passed on.
CREATE INDEX sessions_by_instance ON sessions (namespace, instance_id)
    WHERE instance_id IS NOT NULL;
CREATE INDEX sessions_superseded ON sessions (namespace, heartbeat_minute)
    WHERE superseded_by IS NOT NULL AND status IN ('active', 'paused', 'stalled');
-- Serves: clean-up and the archived list.
CREATE INDEX sessions_by_end ON sessions (namespace, completed_at) WHERE completed_at IS NOT NULL;

-- A moment's view of every session: past its threshold an active one is stalled. Silence counts only
-- as far as the service was there to hear it (spec 5); what it could not hear is unknown.
CREATE VIEW sessions_now AS
SELECT s.*, c.status_now,
       CASE WHEN c.status_now = 'active' AND s.last_heartbeat < t.serving_since
            THEN greatest(s.last_heartbeat, t.absent_since) END AS unknown_since,
       greatest(extract(epoch FROM t.now - s.last_heartbeat)::float8, 0) AS heartbeat_age_seconds,
       greatest(extract(epoch FROM t.now - greatest(s.last_heartbeat, t.serving_since))::float8, 0)
           AS silent_seconds,
       t.threshold_ms AS effective_threshold_ms,
       t.now AS read_at,
       -- The last minute in which a heartbeat can be past a threshold, by the shortest there is.
       floor((extract(epoch FROM t.now) - least(t.default_ms / 1000.0, 30)) / 60)::bigint
           AS latest_minute
FROM sessions s
CROSS JOIN LATERAL (
    SELECT n.*, coalesce(s.stall_threshold_ms, n.default_ms) AS threshold_ms
    -- A query of its own is asked once, where an expression is computed for every row.
    FROM (SELECT statement_timestamp() AS now,
                 (SELECT serving_since()) AS serving_since,
                 (SELECT absent_since()) AS absent_since,
                 (SELECT threshold('stall_threshold_ms', 180000)::int) AS default_ms) AS n) AS t
CROSS JOIN LATERAL (
    SELECT CASE WHEN s.status = 'active'
                     AND s.last_heartbeat < t.now - t.threshold_ms * interval '1 millisecond'
                     AND (t.serving_since IS NULL
                          OR t.serving_since < t.now - t.threshold_ms * interval '1 millisecond')
                THEN 'stalled' ELSE s.status END AS status_now) AS c;

-- S3's enhanced view: one row for each live session (S3 FR-5).
CREATE VIEW v_active_sessions AS
SELECT namespace, session_id, project_id, machine_id, docker_slot, status_now AS status,
       last_heartbeat, unknown_since, current_task_id, started_at, metadata, instance_id, hostname,
       tty, codebase, held_items, heartbeat_age_seconds,
       heartbeat_age_seconds / 60 AS heartbeat_age_minutes,
       human_age(heartbeat_age_seconds) AS heartbeat_age_human,
       greatest(stale_after - silent_seconds, 0) AS seconds_until_stale,
       CASE WHEN superseded_by IS NOT NULL THEN 'released'
            WHEN silent_seconds > stale_after THEN 'stale'
            WHEN jsonb_array_length(held_items) = 0 THEN 'idle'
            ELSE 'active' END AS computed_status,
       claims, claimed_at,
       CASE WHEN claimed_at IS NOT NULL
            THEN greatest(extract(epoch FROM read_at - claimed_at)::float8, 0) / 60
       END AS claim_duration_minutes
FROM sessions_now
CROSS JOIN LATERAL (SELECT (SELECT claim_stale_seconds()) AS stale_after) AS t
CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_agg(item ORDER BY item), '[]') AS held_items,
           coalesce(jsonb_agg(jsonb_build_object('item_id', item, 'fence', fence) ORDER BY item),
                    '[]') AS claims
    FROM jsonb_each(held) AS each(item, fence)
    WHERE item NOT LIKE '@%') AS h
-- Of several items the one that it has had for longest.
CROSS JOIN LATERAL (
    SELECT min(since::timestamptz) AS claimed_at FROM jsonb_each_text(held_since) AS each(_, since)
    ) AS c
WHERE sessions_now.status IN ('active', 'paused', 'stalled');

-- Every stalled session, recorded or not yet (S4 2.4.b).
CREATE VIEW stalled_sessions AS
SELECT namespace, session_id, project_id, machine_id, last_heartbeat,
       (heartbeat_age_seconds * 1000)::bigint AS time_since_heartbeat_ms,
       effective_threshold_ms AS stall_threshold_ms
FROM sessions_now
WHERE status IN ('active', 'stalled') AND status_now = 'stalled'
  AND (status = 'stalled' OR heartbeat_minute <= latest_minute);

-- name: list
SELECT * FROM sessions_now
WHERE namespace = %(namespace)s
  AND (%(project_id)s::text IS NULL OR project = %(project_id)s)
  AND (%(machine_id)s::text IS NULL OR machine_id = %(machine_id)s)
  AND (%(status)s::text IS NULL
       OR (status_now = %(status)s
           -- An active session may count as stalled; no other status is ever computed.
           AND status = ANY (CASE %(status)s WHEN 'stalled' THEN '{active,stalled}'::text[]
                                            ELSE ARRAY[%(status)s::text] END)))
  AND (NOT %(archived)s OR archived_at IS NOT NULL)
  AND created_at <= coalesce(%(past_created_at)s::timestamptz, 'infinity')
  AND (%(past_created_at)s::timestamptz IS NULL OR created_at < %(past_created_at)s
       OR session_id > %(past_session_id)s::text)
ORDER BY created_at DESC, session_id
LIMIT %(limit)s OFFSET %(offset)s

-- name: count
SELECT count(*) AS total_count
FROM sessions_now
WHERE namespace = %(namespace)s
  AND (%(project_id)s::text IS NULL OR project = %(project_id)s)
  AND (%(machine_id)s::text IS NULL OR machine_id = %(machine_id)s)
  AND (%(status)s::text IS NULL OR status_now = %(status)s)
  AND (NOT %(archived)s OR archived_at IS NOT NULL)

-- name: get
SELECT * FROM sessions_now WHERE namespace = %(namespace)s AND session_id = %(session_id)s

-- name: active
SELECT * FROM v_active_sessions
WHERE namespace = %(namespace)s
ORDER BY last_heartbeat DESC, session_id
LIMIT %(limit)s OFFSET %(offset)s

-- name: active_rest
-- Those that the first page did not show, in an order that heartbeats do not change.
SELECT * FROM v_active_sessions
WHERE namespace = %(namespace)s AND session_id > coalesce(%(past_session_id)s::text, '')
  AND left(encode(sha256(convert_to(session_id, 'UTF8')), 'hex'), 16) <> ALL (%(seen)s::text[])
ORDER BY session_id
LIMIT %(limit)s

-- name: active_count
SELECT count(*) AS total_count FROM sessions
WHERE namespace = %(namespace)s AND status IN ('active', 'paused', 'stalled')

-- name: health
-- Counted by the stored status; of the active ones, those past their threshold count as stalled.
SELECT coalesce(sum(n), 0)::bigint AS total_sessions,
       (coalesce(sum(n) FILTER (WHERE status = 'active'), 0) - max(overdue))::bigint
           AS active_sessions,
       coalesce(sum(n) FILTER (WHERE status = 'paused'), 0)::bigint AS paused_sessions,
       (coalesce(sum(n) FILTER (WHERE status = 'stalled'), 0) + max(overdue))::bigint
           AS stalled_sessions,
       coalesce(sum(n) FILTER (WHERE status = 'failed'), 0)::bigint AS failed_sessions,
       coalesce(sum(n) FILTER (WHERE status = 'completed'), 0)::bigint AS completed_sessions,
       statement_timestamp() AS last_updated
FROM (SELECT count(*) AS overdue FROM sessions_now
      WHERE namespace = %(namespace)s AND status = 'active' AND status_now = 'stalled'
        AND heartbeat_minute <= latest_minute) AS late
LEFT JOIN (SELECT status, count(*) AS n FROM sessions
           WHERE namespace = %(namespace)s GROUP BY status) AS counted ON true

-- name: stalled
SELECT session_id, project_id, machine_id, last_heartbeat, time_since_heartbeat_ms
FROM stalled_sessions
WHERE namespace = %(namespace)s
ORDER BY last_heartbeat, session_id
LIMIT %(limit)s

-- name: overdue
-- Candidates of the sweep: active and silent for longer than the shortest threshold allowed.
SELECT session_id FROM sessions_now
WHERE namespace = %(namespace)s AND status = 'active' AND status_now = 'stalled'
  AND heartbeat_minute <= latest_minute
ORDER BY last_heartbeat

-- name: expired
-- Candidates of clean-up.
SELECT session_id FROM sessions
WHERE namespace = %(namespace)s AND status IN ('completed', 'failed')
  AND archived_at IS NULL AND completed_at < %(ended_before)s
ORDER BY completed_at

-- name: passed_on
-- Candidates for ending: another has their place, and they are silent past takeover.
SELECT session_id FROM sessions
WHERE namespace = %(namespace)s AND superseded_by IS NOT NULL
  AND status IN ('active', 'paused', 'stalled')
  AND greatest(last_heartbeat, (SELECT serving_since()))
      < statement_timestamp() - (SELECT claim_stale_seconds()) * interval '1 second'
ORDER BY last_heartbeat

-- name: of_instance
SELECT session_id FROM sessions
WHERE namespace = %(namespace)s AND instance_id = %(instance_id)s
ORDER BY created_at DESC LIMIT 1000
