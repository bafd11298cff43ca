-- The log of every namespace. Columns of a fixed width come first: they need no padding there,
-- and a heartbeat is small enough (spec 3) for padding to count.
CREATE TABLE event_store (
    position     bigint      NOT NULL,
    sequence_num bigint      NOT NULL CHECK (sequence_num > 0),
    "timestamp"  timestamptz NOT NULL,
    event_id     uuid        NOT NULL,
    namespace    text        NOT NULL,
    stream_id    text        NOT NULL,
    event_type   text        NOT NULL,
    event_data   jsonb       NOT NULL,
    metadata     jsonb       NOT NULL,
    -- Serves: loading and replaying a stream, its newest version, and "no two events in one place".
    -- Full pages, since a stream grows at its end only.
    PRIMARY KEY (namespace, stream_id, sequence_num) WITH (fillfactor = 100)
);

-- Serves: everything after a position, for projectors and subscribers.
CREATE UNIQUE INDEX event_store_by_position ON event_store (namespace, position)
    WITH (fillfactor = 100);

-- One row a namespace: the lock that serialises its appends, and the counter that gives positions
-- without gaps.
CREATE TABLE log_head (
    namespace text PRIMARY KEY,
    position  bigint NOT NULL
) WITH (fillfactor = 50);

-- States of aggregates at some of their sequence numbers: a shortcut, never the truth.
CREATE TABLE snapshots (
    namespace     text   NOT NULL,
    stream_id     text   NOT NULL,
    sequence_num  bigint NOT NULL,
    state_version int    NOT NULL,
    state         jsonb  NOT NULL,
    PRIMARY KEY (namespace, stream_id, sequence_num)
);

-- What was answered to a command that carried an Idempotency-Key, stored with its events.
CREATE TABLE receipts (
    namespace    text        NOT NULL,
    receipt_key  text        NOT NULL,
    request_hash text        NOT NULL,
    status       int         NOT NULL,
    body         json        NOT NULL,
    position     bigint      NOT NULL,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (namespace, receipt_key)
);

-- Serves: forgetting receipts that are older than a day.
CREATE INDEX receipts_by_age ON receipts (namespace, created_at);

-- When each background job ran last; the row is also the lock that elects who runs it.
CREATE TABLE job_runs (
    job         text PRIMARY KEY,
    started_at  timestamptz,
    finished_at timestamptz
);

-- The only way into the event store.
--
-- p_events    [{stream_id, sequence_num, event_id, event_type, timestamp, event_data, metadata}]
-- p_expected  [{stream_id, version}]: streams that were read but not written, and must not have moved
-- p_receipts  [{receipt_key, request_hash, status, body, last}]: last = how many of p_events there
--             were when the command's own last event had been added
--
-- Raises HF001 with the streams (a JSON array, in DETAIL) whose version was not the expected one,
-- and HF002 when a receipt is there already.
CREATE FUNCTION append(p_namespace text, p_events json, p_expected json, p_receipts json)
    RETURNS TABLE (head bigint, written_at timestamptz)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
AS $$
DECLARE
    v_head      bigint;
    v_written   bigint := 0;
    v_conflicts text[];
BEGIN
    SELECT position INTO v_head FROM log_head WHERE namespace = p_namespace FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO log_head VALUES (p_namespace, 0) ON CONFLICT DO NOTHING;
        SELECT position INTO v_head FROM log_head WHERE namespace = p_namespace FOR UPDATE;
    END IF;

    IF p_expected IS NOT NULL THEN
        SELECT array_agg(x.stream_id) INTO v_conflicts
        FROM json_to_recordset(p_expected) AS x (stream_id text, version bigint)
        WHERE x.version <> stream_version(p_namespace, x.stream_id);
        IF v_conflicts IS NOT NULL THEN
            RAISE EXCEPTION 'a stream that was read has moved'
                USING ERRCODE = 'HF001', DETAIL = array_to_json(v_conflicts);
        END IF;
    END IF;

    IF p_events IS NOT NULL THEN
        WITH added AS MATERIALIZED (
            SELECT e.*, row_number() OVER (PARTITION BY stream_id ORDER BY n) AS nth_of_stream
            FROM ROWS FROM (json_to_recordset(p_events) AS (
                stream_id text, sequence_num bigint, event_id uuid, event_type text,
                "timestamp" timestamptz, event_data jsonb, metadata jsonb)) WITH ORDINALITY
                AS e (stream_id, sequence_num, event_id, event_type, "timestamp", event_data,
                      metadata, n)
        ), misplaced AS MATERIALIZED (
            SELECT DISTINCT stream_id FROM added
            WHERE sequence_num <> stream_version(p_namespace, stream_id) + nth_of_stream
        ), inserted AS (
            INSERT INTO event_store (position, sequence_num, "timestamp", event_id, namespace,
                                     stream_id, event_type, event_data, metadata)
            SELECT v_head + n, sequence_num, "timestamp", event_id, p_namespace,
                   stream_id, event_type, event_data, metadata
            FROM added WHERE NOT EXISTS (SELECT FROM misplaced)
            -- In the log's order: an index that grows at its end keeps its pages full.
            ORDER BY n
            RETURNING 1
        )
        SELECT (SELECT count(*) FROM inserted), (SELECT array_agg(stream_id) FROM misplaced)
        INTO v_written, v_conflicts;
        IF v_conflicts IS NOT NULL THEN
            RAISE EXCEPTION 'an event does not follow its stream''s last'
                USING ERRCODE = 'HF001', DETAIL = array_to_json(v_conflicts);
        END IF;
    END IF;

    IF p_receipts IS NOT NULL THEN
        BEGIN
            DELETE FROM receipts r USING json_to_recordset(p_receipts) AS x (receipt_key text)
            WHERE r.namespace = p_namespace AND r.receipt_key = x.receipt_key
              AND r.created_at < clock_timestamp() - interval '24 hours';
            INSERT INTO receipts
            SELECT p_namespace, x.receipt_key, x.request_hash, x.status, x.body,
                   v_head + x.last, clock_timestamp()
            FROM json_to_recordset(p_receipts) AS x (
                receipt_key text, request_hash text, status int, body json, last bigint);
        EXCEPTION WHEN unique_violation THEN
            RAISE EXCEPTION 'a request with this idempotency key was carried out meanwhile'
                USING ERRCODE = 'HF002';
        END;
    END IF;

    IF v_written > 0 THEN
        UPDATE log_head SET position = v_head + v_written WHERE namespace = p_namespace;
        PERFORM pg_notify('holdfast_log', p_namespace);
    END IF;
    RETURN QUERY SELECT v_head + v_written, clock_timestamp();
END
$$;

-- The sequence number of a stream's newest event; 0 for a stream that is not there.
CREATE FUNCTION stream_version(p_namespace text, p_stream_id text) RETURNS bigint
    LANGUAGE sql STABLE
AS $$
    SELECT coalesce(
        (SELECT sequence_num FROM public.event_store
         WHERE namespace = p_namespace AND stream_id = p_stream_id
         ORDER BY sequence_num DESC LIMIT 1), 0)
$$;

-- Takes a namespace's log for the rest of the transaction: a writer that holds it meets no conflict.
CREATE FUNCTION hold_log(p_namespace text) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
AS $$
    INSERT INTO log_head VALUES (p_namespace, 0) ON CONFLICT DO NOTHING;
    SELECT FROM log_head WHERE namespace = p_namespace FOR UPDATE;
$$;

-- The service's role has no right to change an event; this refuses it to owners too, who could
-- otherwise do so by mistake.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the event store is append-only: % is refused', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER event_store_is_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON event_store
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The role that the service works under: it reads, and appends through the function alone.
REVOKE ALL ON FUNCTION append(text, json, json, json), hold_log(text) FROM PUBLIC;
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'holdfast_service') THEN
        CREATE ROLE holdfast_service NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- another database of this server made it at the same moment: roles are shared
END
$$;
GRANT USAGE ON SCHEMA public TO holdfast_service;
GRANT EXECUTE ON FUNCTION append(text, json, json, json), hold_log(text) TO holdfast_service;
GRANT EXECUTE ON FUNCTION stream_version(text, text) TO holdfast_service;
GRANT SELECT ON event_store, log_head TO holdfast_service;
GRANT SELECT, INSERT ON snapshots TO holdfast_service;
GRANT SELECT, DELETE ON receipts TO holdfast_service;
GRANT SELECT, INSERT, UPDATE ON job_runs TO holdfast_service;
