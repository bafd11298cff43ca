-- name: create
-- "45s ago", "2m ago", "3h ago", "2d ago" (S3 FR-5).
CREATE FUNCTION human_age(seconds double precision) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT CASE WHEN seconds >= 86400 THEN floor(seconds / 86400)::text || 'd ago'
                WHEN seconds >= 3600 THEN floor(seconds / 3600)::text || 'h ago'
                WHEN seconds >= 60 THEN floor(seconds / 60)::text || 'm ago'
                ELSE floor(greatest(seconds, 0))::text || 's ago' END
$$;

-- A threshold by the name of its setting: this process's own, which it passes on as a setting of its
-- connections; else what the service was started with; else the standard.
CREATE FUNCTION threshold(setting text, standard float8) RETURNS float8 LANGUAGE sql STABLE
    RETURN coalesce(nullif(current_setting('holdfast.' || setting, true), '')::float8,
                    (SELECT t.value FROM public.service_thresholds t WHERE t.name = setting),
                    standard);

-- For how long a holder must have been silent for its claim to be taken over.
CREATE FUNCTION claim_stale_seconds() RETURNS float8 LANGUAGE sql STABLE
    RETURN threshold('claim_stale_seconds', 300);
