-- No number of a stream is skipped, whoever inserts. The service can insert through append() alone,
-- which proves that for a whole batch at once; of an owner who inserts past it the table demands the
-- same, row by row. That none is used twice is the primary key's.
CREATE FUNCTION require_next_number() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.sequence_num > stream_version(NEW.namespace, NEW.stream_id) + 1 THEN
        RAISE EXCEPTION 'event % of stream % does not follow the last one',
            NEW.sequence_num, NEW.stream_id USING ERRCODE = 'HF001';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER event_store_numbers_are_contiguous
    BEFORE INSERT ON event_store FOR EACH ROW
    WHEN (current_setting('holdfast.appending', true) IS DISTINCT FROM 'yes')
    EXECUTE FUNCTION require_next_number();

-- The contract is that of 0001_event_store.sql: what it takes, what it raises. New is the setting that
-- the trigger asks for, and that a stream's newest number comes from a sub-select, which is planned
-- with its statement: a function with one inside is called for each row instead.
CREATE OR REPLACE FUNCTION append(p_namespace text, p_events json, p_expected json, p_receipts json)
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
        PERFORM set_config('holdfast.appending', 'yes', true);
        WITH added AS MATERIALIZED (
            SELECT e.*, row_number() OVER (PARTITION BY stream_id ORDER BY n) AS nth_of_stream
            FROM ROWS FROM (json_to_recordset(p_events) AS (
                stream_id text, sequence_num bigint, event_id uuid, event_type text,
                "timestamp" timestamptz, event_data jsonb, metadata jsonb)) WITH ORDINALITY
                AS e (stream_id, sequence_num, event_id, event_type, "timestamp", event_data,
                      metadata, n)
        ), misplaced AS MATERIALIZED (
            SELECT DISTINCT stream_id FROM added
            WHERE sequence_num <> nth_of_stream + coalesce(
                (SELECT last.sequence_num FROM event_store AS last
                 WHERE last.namespace = p_namespace AND last.stream_id = added.stream_id
                 ORDER BY last.sequence_num DESC LIMIT 1), 0)
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
        PERFORM set_config('holdfast.appending', 'no', true);
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
