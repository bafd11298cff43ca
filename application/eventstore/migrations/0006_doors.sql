-- What the service's role may do is cut to what it needs. Snapshots and receipts are written, and
-- receipts forgotten, by functions alone: a service that was taken over can put no other row there.

-- The triggers hold in every session: with session_replication_role = replica ordinary ones are off.
ALTER TABLE event_store ENABLE ALWAYS TRIGGER event_store_is_append_only;
ALTER TABLE event_store ENABLE ALWAYS TRIGGER event_store_numbers_are_contiguous;

-- Keeps states of aggregates, each of an event that is there; one that is kept already stays.
-- p_snapshots [{stream_id, sequence_num, state_version, state}]
CREATE FUNCTION keep_snapshots(p_namespace text, p_snapshots json) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
AS $$
    INSERT INTO snapshots (namespace, stream_id, sequence_num, state_version, state)
    SELECT p_namespace, s.stream_id, s.sequence_num, s.state_version, s.state
    FROM json_to_recordset(p_snapshots) AS s (
        stream_id text, sequence_num bigint, state_version int, state jsonb)
    WHERE EXISTS (
        SELECT FROM event_store e
        WHERE e.namespace = p_namespace AND e.stream_id = s.stream_id
          AND e.sequence_num = s.sequence_num)
    ON CONFLICT DO NOTHING
$$;

-- Drops the receipts of a namespace that are older than a day, and no others; how many.
CREATE FUNCTION forget_receipts(p_namespace text) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
AS $$
    WITH forgotten AS (
        DELETE FROM receipts
        WHERE namespace = p_namespace
          AND created_at < statement_timestamp() - interval '24 hours'
        RETURNING 1)
    SELECT count(*) FROM forgotten
$$;

REVOKE ALL ON FUNCTION
    keep_snapshots(text, json), forget_receipts(text), stream_version(text, text),
    refuse_change(), require_next_number()
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION keep_snapshots(text, json), forget_receipts(text) TO holdfast_service;
REVOKE ALL ON snapshots, receipts FROM holdfast_service;
GRANT SELECT ON snapshots, receipts TO holdfast_service;
