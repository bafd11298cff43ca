-- When the service could be reached: one row for each stretch of time without a gap. Silence of an
-- agent counts only as far as somebody could have heard it (spec 5), and the rows are evidence of
-- that: none is ever removed. A running service makes its stretch longer, and adds no row.
CREATE TABLE serving_intervals (
    interval_num      bigint PRIMARY KEY,
    started_at        timestamptz NOT NULL,
    last_at           timestamptz NOT NULL,
    -- Without a touch for longer than this, nobody is there.
    tolerance_seconds float8 NOT NULL
) WITH (fillfactor = 50);

-- Says that a process can be reached at this moment. Goes on with the stretch at hand, or begins the
-- next one if the last touch by anyone is longer ago than the tolerance (or lies ahead by as much:
-- somebody has set the clock back). Answers the time, since when the service has been there without
-- a gap, and since when it had not been before that. Both are null in the first stretch of all: no
-- absence is known, and silence counts in full.
CREATE FUNCTION touch_serving(p_tolerance_seconds float8)
    RETURNS TABLE (touched_at timestamptz, serving_since timestamptz, absent_since timestamptz)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
AS $$
DECLARE
    v_now   timestamptz;
    v_num   bigint;
    v_since timestamptz;
BEGIN
    LOOP
        v_now := clock_timestamp();
        v_num := coalesce((SELECT max(i.interval_num) FROM serving_intervals i), 0);
        UPDATE serving_intervals AS s
        SET last_at = greatest(s.last_at, v_now), tolerance_seconds = p_tolerance_seconds
        WHERE s.interval_num = v_num
          AND abs(extract(epoch FROM v_now - s.last_at)) <= p_tolerance_seconds
        RETURNING s.started_at INTO v_since;
        EXIT WHEN FOUND;
        -- Of several processes that come back at the same moment one begins; the others join it.
        INSERT INTO serving_intervals VALUES (v_num + 1, v_now, v_now, p_tolerance_seconds)
        ON CONFLICT DO NOTHING;
    END LOOP;
    RETURN QUERY SELECT v_now, i.since, i.last_at
        FROM (SELECT v_since AS since, b.last_at FROM serving_intervals b
              WHERE b.interval_num = v_num - 1) AS i
        RIGHT JOIN (SELECT) AS always ON true;
END
$$;

-- Since when the service has been there, as it is known at this statement: this very moment if
-- nobody is there; null if no absence is known, and silence counts in full.
CREATE FUNCTION serving_since() RETURNS timestamptz LANGUAGE sql STABLE
    RETURN (SELECT CASE WHEN statement_timestamp()
                             > s.last_at + s.tolerance_seconds * interval '1 second'
                        THEN statement_timestamp()
                        WHEN s.interval_num > 1 THEN s.started_at END
            FROM public.serving_intervals s ORDER BY s.interval_num DESC LIMIT 1);

-- Since when the service had not been there, or is not now: the end of the stretch before.
CREATE FUNCTION absent_since() RETURNS timestamptz LANGUAGE sql STABLE
    RETURN (SELECT s.last_at FROM public.serving_intervals s
            WHERE s.started_at < serving_since()
            ORDER BY s.interval_num DESC LIMIT 1);

-- Of a log that is older than this record only that is known: at its last event somebody was there.
INSERT INTO serving_intervals
SELECT 1, min("timestamp"), max("timestamp"), 0
FROM event_store e
JOIN log_head h ON h.namespace = e.namespace AND e.position IN (1, h.position)
HAVING count(*) > 0;

REVOKE ALL ON FUNCTION touch_serving(float8) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION touch_serving(float8) TO holdfast_service;
GRANT EXECUTE ON FUNCTION serving_since(), absent_since() TO PUBLIC;
GRANT SELECT ON serving_intervals TO PUBLIC;
