-- name: create
-- What all versions of the service know of each other's read models. Each definition of a read model
-- has a schema of its own, named in `place`, and every version folds into those of its own
-- definitions alone: during a deployment old and new ones keep theirs side by side.
CREATE SCHEMA IF NOT EXISTS projections;

-- The definitions that there are, and when a process that has them was last seen.
CREATE TABLE IF NOT EXISTS projections.definitions (
    place      text        PRIMARY KEY,
    read_model text        NOT NULL,
    -- Whether it has been up to date once, so that it may be read.
    is_built   boolean     NOT NULL DEFAULT false,
    used_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- How far each has come in each namespace; the row is also the lock that lets one projector of many
-- work on it.
CREATE TABLE IF NOT EXISTS projections.positions (
    namespace text   NOT NULL,
    place     text   NOT NULL,
    position  bigint NOT NULL,
    PRIMARY KEY (namespace, place)
) WITH (fillfactor = 50);

-- Dead letters: events that a read model could not fold. They are set aside, never skipped in silence.
CREATE TABLE IF NOT EXISTS projections.dead_letters (
    namespace    text        NOT NULL,
    place        text        NOT NULL,
    position     bigint      NOT NULL,
    read_model   text        NOT NULL,
    error        text        NOT NULL,
    set_aside_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (namespace, place, position)
);

-- Which definition each of the analysts' views shows.
CREATE TABLE IF NOT EXISTS projections.public_views (
    view_name text PRIMARY KEY,
    place     text NOT NULL
);

GRANT USAGE ON SCHEMA projections TO holdfast_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON projections.positions, projections.dead_letters TO holdfast_service;
GRANT SELECT, UPDATE (used_at) ON projections.definitions TO holdfast_service;
GRANT SELECT ON projections.public_views TO holdfast_service;

-- name: is_there
SELECT to_regclass('projections.public_views') IS NOT NULL

-- name: known
-- The definitions whose schema is there, and whether they were up to date once.
SELECT d.place, d.is_built FROM projections.definitions d
JOIN pg_namespace n ON n.nspname = d.place

-- name: define
INSERT INTO projections.definitions (place, read_model, is_built)
VALUES (%(place)s, %(read_model)s, %(is_built)s)
ON CONFLICT (place) DO UPDATE SET is_built = excluded.is_built, used_at = clock_timestamp()

-- name: built
UPDATE projections.definitions SET is_built = true WHERE place = ANY (%(places)s)

-- name: unused
-- Definitions that no process has had for so long.
SELECT place FROM projections.definitions
WHERE used_at < clock_timestamp() - %(hours)s * interval '1 hour' AND place <> ALL (%(places)s)

-- name: former_is_there
SELECT to_regclass('read_models.projector_position') IS NOT NULL

-- name: former
-- Versions from before each definition had a schema of its own have one for all of them. As long as
-- it is up to date, one of them runs.
INSERT INTO projections.definitions (place, read_model)
SELECT 'read_models', 'all'
WHERE NOT EXISTS (SELECT FROM projections.definitions WHERE place = 'read_models')
   OR NOT EXISTS (
       SELECT FROM log_head h LEFT JOIN read_models.projector_position p USING (namespace)
       WHERE h.position > coalesce(p.position, 0))
ON CONFLICT (place) DO UPDATE SET used_at = clock_timestamp()

-- name: forget
WITH positions AS (DELETE FROM projections.positions WHERE place = ANY (%(places)s)),
     letters AS (DELETE FROM projections.dead_letters WHERE place = ANY (%(places)s)),
     views AS (DELETE FROM projections.public_views WHERE place = ANY (%(places)s))
DELETE FROM projections.definitions WHERE place = ANY (%(places)s)

-- name: succeed
-- What was built beside a definition takes its place.
WITH positions AS (UPDATE projections.positions SET place = %(place)s WHERE place = %(spare)s)
UPDATE projections.dead_letters SET place = %(place)s WHERE place = %(spare)s

-- name: shown
SELECT view_name, place FROM projections.public_views
WHERE to_regclass('public.' || quote_ident(view_name)) IS NOT NULL

-- name: show
INSERT INTO projections.public_views VALUES (%(view)s, %(place)s)
ON CONFLICT (view_name) DO UPDATE SET place = excluded.place
