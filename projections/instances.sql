-- name: create
-- One row for each instance that ever registered. Staleness and health depend on the time of the
-- read and are computed by the queries.
CREATE TABLE instances (
    namespace         text        NOT NULL,
    instance_id       text        NOT NULL,
    hash              text        NOT NULL,
    project           text        NOT NULL,
    project_name      text        NOT NULL,
    instance_type     text        NOT NULL,
    name              text,
    scope             text        NOT NULL,
    parent_id         text,
    tags              jsonb       NOT NULL,
    hostname          text,
    tty               text,
    codebase          text,
    status            text        NOT NULL,
    context_percent   float8,
    current_epic      text,
    last_epic         text,
    last_heartbeat    timestamptz NOT NULL,
    metrics           jsonb,
    activity          text,
    activity_reason   text,
    git               jsonb,
    native_session_id text,
    restart_policy    jsonb,
    -- Asked for, and as its supervisor tells.
    restarts          int         NOT NULL,
    told_restarts     int,
    crash_looping     boolean     NOT NULL,
    predecessor       text,
    successor         text,
    -- What was taken from it, while it has nothing else.
    lost_work         jsonb,
    supervisor        text,
    supervisor_fence  bigint,
    supervisor_hostname text,
    supervised_since  timestamptz,
    alive_since       timestamptz NOT NULL,
    -- When another last took over something that it held.
    lost_at           timestamptz,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    closed_at         timestamptz,
    heartbeat_minute  bigint      NOT NULL,
    PRIMARY KEY (namespace, instance_id)
) WITH (fillfactor = 70);
-- Serves: counts by project and status.
CREATE INDEX instances_by_project ON instances (namespace, project, status);
-- Serves: lists in their order, by the minute as below: what beat long ago is not looked at.
CREATE INDEX instances_by_latest ON instances (namespace, project, heartbeat_minute DESC);
-- Serves: the leading part of an id, and of a hash.
CREATE INDEX instances_by_prefix ON instances (namespace, instance_id text_pattern_ops);
CREATE INDEX instances_by_hash ON instances (namespace, hash text_pattern_ops);
-- Serves: children of an instance.
CREATE INDEX instances_by_parent ON instances (namespace, parent_id) WHERE parent_id IS NOT NULL;
-- Serves: counts, discovery by scope.
CREATE INDEX instances_by_scope ON instances (namespace, status, scope);
-- Serves: the sweep, by the minute (a heartbeat within a minute changes no index).
CREATE INDEX instances_by_heartbeat ON instances (namespace, heartbeat_minute)
    WHERE status = 'active';

CREATE FUNCTION instance_stale_seconds() RETURNS float8 LANGUAGE sql STABLE
    RETURN threshold('instance_stale_seconds', 120);

-- A moment's view of every instance: past the threshold an active one is stale. Silence counts only
-- as far as the service was there to hear it (spec 5); what it could not hear is unknown.
CREATE VIEW instances_now AS
SELECT i.*, c.status_now,
       CASE WHEN c.status_now = 'active' AND i.last_heartbeat < (SELECT serving_since())
            THEN greatest(i.last_heartbeat, (SELECT absent_since())) END AS unknown_since,
       greatest(extract(epoch FROM t.now - i.last_heartbeat)::float8, 0) AS heartbeat_age_seconds,
       greatest(extract(epoch FROM coalesce(i.closed_at, t.now) - i.created_at)::float8, 0)
           AS uptime_seconds,
       floor((extract(epoch FROM t.now) - (SELECT instance_stale_seconds())) / 60)::bigint
           AS latest_minute
FROM instances i
CROSS JOIN LATERAL (SELECT statement_timestamp() AS now) AS t
CROSS JOIN LATERAL (
    -- A query of its own is asked once, where an expression is computed for every row.
    SELECT CASE WHEN i.status = 'active'
                     AND i.last_heartbeat < (SELECT statement_timestamp()
                                             - instance_stale_seconds() * interval '1 second')
                     AND (SELECT coalesce(serving_since(), '-infinity') < statement_timestamp()
                                 - instance_stale_seconds() * interval '1 second')
                THEN 'stale' ELSE i.status END AS status_now) AS c;

-- The table that S0 names, for analysts.
CREATE VIEW supervisor_sessions AS
SELECT namespace, instance_id, project, instance_type, status_now AS status, context_percent,
       current_epic, last_heartbeat, unknown_since, created_at, closed_at
FROM instances_now;

-- name: get
SELECT * FROM instances_now WHERE namespace = %(namespace)s AND instance_id = %(instance_id)s

-- name: by_prefix
-- Instances whose id or hash begins with the reference.
SELECT * FROM instances_now
WHERE namespace = %(namespace)s
  AND (instance_id LIKE %(reference)s || '%%' OR hash LIKE %(reference)s || '%%')
ORDER BY project, last_heartbeat DESC, instance_id LIMIT 200

-- name: list
-- The minute says no more than the heartbeat; it is there for the index.
SELECT * FROM instances_now
WHERE namespace = %(namespace)s
  AND (%(project)s::text IS NULL OR project = %(project)s)
  AND (NOT %(active_only)s OR status <> 'closed')
ORDER BY project, heartbeat_minute DESC, last_heartbeat DESC, instance_id
LIMIT %(limit)s OFFSET %(offset)s

-- name: list_rest
-- Those that the first page did not show, in an order that heartbeats do not change: ids begin with
-- the project.
SELECT * FROM instances_now
WHERE namespace = %(namespace)s
  AND (%(project)s::text IS NULL OR project = %(project)s)
  AND (NOT %(active_only)s OR status <> 'closed')
  AND instance_id > coalesce(%(past_instance_id)s::text, '')
  AND left(encode(sha256(convert_to(instance_id, 'UTF8')), 'hex'), 16) <> ALL (%(seen)s::text[])
ORDER BY instance_id
LIMIT %(limit)s

-- name: count
-- Counted by the stored status; of the active ones, those past their threshold count as stale.
SELECT coalesce(sum(n), 0)::bigint AS total_count,
       (coalesce(sum(n) FILTER (WHERE status = 'active'), 0) - max(overdue))::bigint
           AS active_count,
       (coalesce(sum(n) FILTER (WHERE status = 'stale'), 0) + max(overdue))::bigint AS stale_count
FROM (SELECT count(*) AS overdue FROM instances_now
      WHERE namespace = %(namespace)s AND status = 'active' AND status_now = 'stale'
        AND heartbeat_minute <= latest_minute
        AND (%(project)s::text IS NULL OR project = %(project)s)) AS late
LEFT JOIN (SELECT status, count(*) AS n FROM instances
           WHERE namespace = %(namespace)s
             AND (%(project)s::text IS NULL OR project = %(project)s)
             AND (NOT %(active_only)s OR status <> 'closed')
           GROUP BY status) AS counted ON true

-- name: discover
SELECT * FROM instances_now
WHERE namespace = %(namespace)s
  AND (%(scope)s::text IS NULL OR scope = %(scope)s)
  AND (%(project)s::text IS NULL OR project = %(project)s)
  AND (%(type)s::text IS NULL OR instance_type = %(type)s)
  AND (%(status)s::text IS NULL OR status_now = %(status)s)
  AND (%(name)s::text IS NULL OR name = %(name)s)
  AND (%(tag)s::text IS NULL OR tags ? %(tag)s)
  AND (%(parent_scope)s::text IS NULL OR (scope = %(parent_scope)s AND status <> 'closed'))
  AND (%(children_of)s::text IS NULL OR parent_id = %(children_of)s)
ORDER BY project, last_heartbeat DESC, instance_id
LIMIT %(limit)s OFFSET %(offset)s

-- name: discover_rest
SELECT * FROM instances_now
WHERE namespace = %(namespace)s
  AND (%(scope)s::text IS NULL OR scope = %(scope)s)
  AND (%(project)s::text IS NULL OR project = %(project)s)
  AND (%(type)s::text IS NULL OR instance_type = %(type)s)
  AND (%(status)s::text IS NULL OR status_now = %(status)s)
  AND (%(name)s::text IS NULL OR name = %(name)s)
  AND (%(tag)s::text IS NULL OR tags ? %(tag)s)
  AND (%(parent_scope)s::text IS NULL OR (scope = %(parent_scope)s AND status <> 'closed'))
  AND (%(children_of)s::text IS NULL OR parent_id = %(children_of)s)
  AND instance_id > coalesce(%(past_instance_id)s::text, '')
  AND left(encode(sha256(convert_to(instance_id, 'UTF8')), 'hex'), 16) <> ALL (%(seen)s::text[])
ORDER BY instance_id
LIMIT %(limit)s

-- name: discover_count
SELECT count(*) AS total_count FROM instances_now
WHERE namespace = %(namespace)s
  AND (%(scope)s::text IS NULL OR scope = %(scope)s)
  AND (%(project)s::text IS NULL OR project = %(project)s)
  AND (%(type)s::text IS NULL OR instance_type = %(type)s)
  AND (%(status)s::text IS NULL OR status_now = %(status)s)
  AND (%(name)s::text IS NULL OR name = %(name)s)
  AND (%(tag)s::text IS NULL OR tags ? %(tag)s)
  AND (%(parent_scope)s::text IS NULL OR (scope = %(parent_scope)s AND status <> 'closed'))
  AND (%(children_of)s::text IS NULL OR parent_id = %(children_of)s)

-- name: forest
-- Every instance that has not been closed, and whether its parent has.
SELECT i.*, coalesce(p.status = 'closed', false) AS is_orphan
FROM instances_now i
LEFT JOIN instances p ON p.namespace = i.namespace AND p.instance_id = i.parent_id
WHERE i.namespace = %(namespace)s AND i.status <> 'closed'
ORDER BY i.created_at, i.instance_id
LIMIT %(limit)s

-- name: silent
-- Candidates of the sweep.
SELECT instance_id FROM instances_now
WHERE namespace = %(namespace)s AND status = 'active' AND status_now = 'stale'
  AND heartbeat_minute <= latest_minute
ORDER BY last_heartbeat

-- name: passed_on
-- Candidates for ending: silent for so long, others have its session or items, it has none.
SELECT i.instance_id FROM instances i
WHERE i.namespace = %(namespace)s AND i.status = 'stale'
  AND i.last_heartbeat < statement_timestamp() - %(silent_seconds)s * interval '1 second'
  AND (i.lost_at >= i.last_heartbeat OR EXISTS (
        SELECT FROM sessions s
        WHERE s.namespace = %(namespace)s AND s.instance_id = i.instance_id
          AND (s.recovered_to IS NOT NULL OR s.superseded_by IS NOT NULL)))
  AND NOT EXISTS (
        SELECT FROM sessions s
        WHERE s.namespace = %(namespace)s AND s.instance_id = i.instance_id
          AND s.status IN ('active', 'paused', 'stalled') AND s.superseded_by IS NULL)
  AND NOT EXISTS (SELECT FROM work_items w
                  WHERE w.namespace = %(namespace)s AND w.holder_id = i.instance_id)
ORDER BY i.last_heartbeat
