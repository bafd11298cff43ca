"""A long past: sessions and instances that lived a day and a night, by the million events.

The instances were closed, the sessions completed and cleaned up, as all are after a month.

Written by the database itself, as its owner, the way the service's append does: under the log's
lock, in log order, positions and sequence numbers without gaps, so that nobody can tell the
difference. The service's own projector folds it. A hundred streams live side by side, as they do
in a fleet: a stream's events lie far apart on the disk.
"""

from __future__ import annotations

import psycopg

from bench.figures import BenchError, Watch
from bench.history import ACTOR, NAMESPACE

# About a day and a night at a beat every 30 s and some work.
STREAM = 2_000
SIDE_BY_SIDE = 100
BLOCK = STREAM * SIDE_BY_SIDE

# Numbers in a block: s of the stream, 1 to 100, n of the event in it, 1 to 2,000. Odd streams are
# instances, even ones sessions with ten tasks. Every 25th event is work, the rest are heartbeats.
_BLOCK = """
    WITH head AS (
        SELECT position FROM log_head WHERE namespace = %(namespace)s FOR UPDATE
    ), event AS (
        SELECT head.position + (n - 1) * %(side_by_side)s + s AS position, s, n,
               clock_timestamp() - interval '90 days' + (%(block)s + n) * interval '30 seconds'
                   AS at,
               %(block)s * %(side_by_side)s + s AS stream,
               (n - 1) / 200 AS turn
        FROM head, generate_series(1, %(length)s) AS n, generate_series(1, %(side_by_side)s) AS s
    ), typed AS (
        SELECT position, n, at, stream, turn, s %% 2 = 1 AS is_instance,
               CASE WHEN n = 1 THEN 'registered'
                    WHEN n = %(length)s AND s %% 2 = 0 THEN 'deleted'
                    WHEN n >= %(length)s - 1 AND (n + s) %% 2 = 1 THEN 'ended'
                    WHEN n %% 200 = 25 THEN 'task'
                    WHEN n %% 200 = 50 THEN 'started'
                    WHEN n %% 200 = 100 THEN 'completed'
                    WHEN n %% 25 = 0 AND s %% 2 = 1 THEN 'test'
                    ELSE 'heartbeat' END AS kind
        FROM event
    ), named AS (
        SELECT position, n, at, stream, turn, kind, is_instance,
               CASE WHEN is_instance
                    THEN 'instance-old-PS-'
                         || lpad(to_hex(stream * 2654435761 %% 16777216), 6, '0')
                    ELSE 'session-' || md5('old ' || stream)::uuid END AS stream_id,
               md5(stream || ' ' || turn)::uuid AS task_id
        FROM typed
    )
    INSERT INTO event_store (position, sequence_num, "timestamp", event_id, namespace, stream_id,
                             event_type, event_data, metadata)
    SELECT position, n, at, gen_random_uuid(), %(namespace)s, stream_id,
           CASE kind
               WHEN 'registered' THEN CASE WHEN is_instance THEN 'instance_registered'
                                           ELSE 'session_created' END
               WHEN 'ended' THEN CASE WHEN is_instance THEN 'instance_closed'
                                      ELSE 'session_completed' END
               WHEN 'deleted' THEN 'session_deleted'
               WHEN 'task' THEN CASE WHEN is_instance THEN 'epic_started' ELSE 'task_created' END
               WHEN 'started' THEN CASE WHEN is_instance THEN 'commit_created'
                                        ELSE 'task_started' END
               WHEN 'completed' THEN CASE WHEN is_instance THEN 'epic_completed'
                                          ELSE 'task_completed' END
               WHEN 'test' THEN 'test_passed'
               ELSE CASE WHEN is_instance THEN 'instance_heartbeat' ELSE 'session_heartbeat' END
           END,
           CASE kind
               WHEN 'registered' THEN CASE WHEN is_instance
                   THEN '{"project": "old", "project_name": "old", "instance_type": "PS",
                          "scope": "project", "hostname": "machine-1"}'::jsonb
                   ELSE '{"project_id": "old", "machine_id": "machine-1"}'::jsonb END
               WHEN 'task' THEN CASE WHEN is_instance
                   THEN jsonb_build_object('epic_id', 'epic-' || turn)
                   ELSE jsonb_build_object('task_id', task_id, 'project_id', 'old',
                                           'task_name', 'task ' || turn, 'status', 'pending') END
               WHEN 'started' THEN CASE WHEN is_instance
                   THEN '{"commit": "8f4a2b9c", "message": "Refuse what is overdrawn"}'::jsonb
                   ELSE jsonb_build_object('task_id', task_id) END
               WHEN 'completed' THEN CASE WHEN is_instance
                   THEN jsonb_build_object('epic_id', 'epic-' || turn)
                   ELSE jsonb_build_object('task_id', task_id) END
               WHEN 'deleted' THEN jsonb_build_object(
                   'task_ids', (SELECT jsonb_agg(md5(stream || ' ' || t)::uuid)
                                FROM generate_series(0, 9) AS t))
               WHEN 'test' THEN jsonb_build_object('epic_id', 'epic-' || turn, 'passed_count', 45)
               ELSE '{}'::jsonb END,
           CASE kind
               WHEN 'heartbeat' THEN jsonb_build_object('actor', %(actor)s::text)
               ELSE jsonb_build_object('actor', %(actor)s::text, 'command', 'bench',
                                       'request_id', gen_random_uuid()) END
    FROM named
    ORDER BY position
"""
_ADVANCE = """
    WITH moved AS (
        UPDATE log_head SET position = position + %(written)s WHERE namespace = %(namespace)s
    )
    SELECT pg_notify('holdfast_log', %(namespace)s)
"""
# What must hold of a log, whoever wrote it.
_GAPS = """
    SELECT (SELECT count(*) = max(position) AND min(position) = 1 FROM event_store
            WHERE namespace = %(namespace)s)
       AND (SELECT max(position) FROM event_store WHERE namespace = %(namespace)s)
           = (SELECT position FROM log_head WHERE namespace = %(namespace)s)
       AND NOT EXISTS (SELECT FROM event_store WHERE namespace = %(namespace)s
                       GROUP BY stream_id HAVING count(*) <> max(sequence_num))
"""


def fill(connection: psycopg.Connection, events: int, watch: Watch) -> int:
    """Write whole blocks of the past, at least so many events; how many it were."""
    blocks = -(-events // BLOCK)
    connection.execute("INSERT INTO log_head VALUES (%s, 0) ON CONFLICT DO NOTHING", [NAMESPACE])
    # The numbers are looked at in the end, and not row by row.
    connection.execute("SET holdfast.appending = 'yes'")
    for block in range(blocks):
        watch(f"writing {events:,} events of the past", block * BLOCK, events)
        parameters = {
            "namespace": NAMESPACE,
            "actor": ACTOR,
            "block": block,
            "length": STREAM,
            "side_by_side": SIDE_BY_SIDE,
        }
        with connection.transaction():
            written = connection.execute(_BLOCK, parameters).rowcount
            connection.execute(_ADVANCE, {"namespace": NAMESPACE, "written": written})
    return blocks * BLOCK


def check(connection: psycopg.Connection) -> None:
    """Raise :class:`BenchError` unless the log is whole and every event could be folded."""
    whole = connection.execute(_GAPS, {"namespace": NAMESPACE}).fetchone()
    if whole != (True,):
        raise BenchError("the log that was written has gaps")
    failed = connection.execute(
        "SELECT count(*), min(error) FROM projections.dead_letters"
    ).fetchone()
    assert failed is not None
    if failed[0]:
        raise BenchError(f"{failed[0]} events could not be folded: {failed[1]}")
