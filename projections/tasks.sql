-- name: create
-- One row for each task that was not deleted, nor its session.
CREATE TABLE tasks (
    namespace       text        NOT NULL,
    task_id         text        NOT NULL,
    session_id      text        NOT NULL,
    project_id      text        NOT NULL,
    project         text        NOT NULL,
    github_issue_id text,
    task_name       text        NOT NULL,
    status          text        NOT NULL,
    started_at      timestamptz,
    completed_at    timestamptz,
    error_message   text,
    metadata        jsonb       NOT NULL,
    carried_from    text,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    sequence_num    bigint      NOT NULL,
    created_num     bigint      NOT NULL,
    PRIMARY KEY (namespace, task_id)
) WITH (fillfactor = 80);
-- Serves: a session's tasks in the order in which they were added.
CREATE INDEX tasks_by_session ON tasks (namespace, session_id, created_num);
CREATE INDEX tasks_by_project ON tasks (namespace, project, created_at);
CREATE INDEX tasks_by_status ON tasks (namespace, status, created_at);
CREATE INDEX tasks_by_creation ON tasks (namespace, created_at);

-- name: list
SELECT * FROM tasks
WHERE namespace = %(namespace)s
  AND (%(session_id)s::text IS NULL OR session_id = %(session_id)s)
  AND (%(project_id)s::text IS NULL OR project = %(project_id)s)
  AND (%(status)s::text IS NULL OR status = %(status)s)
  AND created_at >= coalesce(%(past_created_at)s::timestamptz, '-infinity')
  AND (%(past_created_at)s::timestamptz IS NULL
       OR (created_at, session_id, created_num)
          > (%(past_created_at)s, %(past_session_id)s::text, %(past_created_num)s::bigint))
ORDER BY created_at, session_id, created_num
LIMIT %(limit)s OFFSET %(offset)s

-- name: count
SELECT count(*) AS total_count
FROM tasks
WHERE namespace = %(namespace)s
  AND (%(session_id)s::text IS NULL OR session_id = %(session_id)s)
  AND (%(project_id)s::text IS NULL OR project = %(project_id)s)
  AND (%(status)s::text IS NULL OR status = %(status)s)

-- name: get
SELECT * FROM tasks WHERE namespace = %(namespace)s AND task_id = %(task_id)s

-- name: of_session
SELECT * FROM tasks WHERE namespace = %(namespace)s AND session_id = %(session_id)s
ORDER BY created_num
