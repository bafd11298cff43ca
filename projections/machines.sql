-- name: create
-- One row for each machine.
CREATE TABLE machines (
    namespace      text        NOT NULL,
    machine_id     text        NOT NULL,
    hostname       text        NOT NULL,
    docker_slots   jsonb       NOT NULL,
    status         text        NOT NULL,
    last_heartbeat timestamptz NOT NULL,
    metadata       jsonb       NOT NULL,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    PRIMARY KEY (namespace, machine_id)
) WITH (fillfactor = 80);
CREATE INDEX machines_by_status ON machines (namespace, status, created_at);
CREATE INDEX machines_by_creation ON machines (namespace, created_at);
CREATE INDEX machines_by_heartbeat ON machines (namespace, last_heartbeat);

-- Machines with the live sessions on them, oldest first (S4 2.3.c, d).
CREATE VIEW machines_now AS
SELECT m.*, ARRAY(
           SELECT s.session_id FROM sessions s
           WHERE s.namespace = m.namespace AND s.machine_id = m.machine_id
             AND s.status IN ('active', 'paused', 'stalled')
           ORDER BY s.created_at, s.session_id) AS active_sessions
FROM machines m;

-- name: list
SELECT * FROM machines_now
WHERE namespace = %(namespace)s AND (%(status)s::text IS NULL OR status = %(status)s)
  AND created_at >= coalesce(%(past_created_at)s::timestamptz, '-infinity')
  AND (%(past_created_at)s::timestamptz IS NULL
       OR (created_at, machine_id) > (%(past_created_at)s, %(past_machine_id)s::text))
ORDER BY created_at, machine_id
LIMIT %(limit)s OFFSET %(offset)s

-- name: count
SELECT count(*) AS total_count FROM machines
WHERE namespace = %(namespace)s AND (%(status)s::text IS NULL OR status = %(status)s)

-- name: get
SELECT * FROM machines_now WHERE namespace = %(namespace)s AND machine_id = %(machine_id)s
