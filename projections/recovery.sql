-- name: create
-- What it takes to carry on from a session: one row each, its tasks by status (S4 3.3.a).
CREATE VIEW recovery_state AS
SELECT s.namespace, s.session_id, s.project_id, s.status_now AS status,
       (SELECT to_jsonb(t) FROM tasks t
        WHERE t.namespace = s.namespace AND t.session_id = s.session_id AND t.status = 'completed'
        ORDER BY t.completed_at DESC, t.sequence_num DESC LIMIT 1) AS last_successful_task,
       g.failed_tasks, g.in_progress_tasks, g.pending_tasks, g.blocked_tasks, g.completed_count,
       s.held, s.released_items, s.last_heartbeat, s.unknown_since, s.metadata, s.recovered_to, s.machine_id, s.status_num,
       s.heartbeat_num, s.current_task_id
FROM sessions_now s
CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_agg(to_jsonb(t) ORDER BY t.created_num)
                    FILTER (WHERE t.status = 'failed'), '[]') AS failed_tasks,
           coalesce(jsonb_agg(to_jsonb(t) ORDER BY t.created_num)
                    FILTER (WHERE t.status = 'in_progress'), '[]') AS in_progress_tasks,
           coalesce(jsonb_agg(to_jsonb(t) ORDER BY t.created_num)
                    FILTER (WHERE t.status = 'pending'), '[]') AS pending_tasks,
           coalesce(jsonb_agg(to_jsonb(t) ORDER BY t.created_num)
                    FILTER (WHERE t.status = 'blocked'), '[]') AS blocked_tasks,
           count(*) FILTER (WHERE t.status = 'completed') AS completed_count
    FROM tasks t WHERE t.namespace = s.namespace AND t.session_id = s.session_id) AS g;

-- name: get
SELECT * FROM recovery_state WHERE namespace = %(namespace)s AND session_id = %(session_id)s
