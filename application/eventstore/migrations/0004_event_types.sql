-- Serves: a namespace's events of some types after a position, for whoever follows the log and wants
-- few of it. Heartbeats are nearly all of a log: without them the index stays small, and they cost no
-- more to store.
CREATE INDEX event_store_by_type ON event_store (namespace, event_type, position)
    WHERE event_type NOT IN ('session_heartbeat', 'instance_heartbeat', 'machine_heartbeat');
