-- name: schema
CREATE TABLE IF NOT EXISTS entry (
    number          INTEGER PRIMARY KEY AUTOINCREMENT,
    key_id          TEXT NOT NULL,      -- of the API key that it was written under; empty: of none
    method          TEXT NOT NULL,
    path            TEXT NOT NULL,
    body            TEXT NOT NULL,
    idempotency_key TEXT NOT NULL UNIQUE,
    placeholder     TEXT,               -- what stands for the id of what this write creates
    replaces        TEXT,
    owner           TEXT NOT NULL,      -- the process that kept it
    kept_at         REAL NOT NULL,
    tried_at        REAL,               -- when it may have reached the service for the first time
    faults          INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX IF NOT EXISTS entry_replaces ON entry (key_id, replaces) WHERE replaces IS NOT NULL;
CREATE INDEX IF NOT EXISTS entry_of_key ON entry (key_id, number);
CREATE INDEX IF NOT EXISTS entry_placeholder ON entry (placeholder) WHERE placeholder IS NOT NULL;
CREATE TABLE IF NOT EXISTS alias (
    placeholder TEXT PRIMARY KEY,
    id          TEXT NOT NULL,
    known_at    REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refused (
    number     INTEGER PRIMARY KEY,
    method     TEXT NOT NULL,
    path       TEXT NOT NULL,
    body       TEXT NOT NULL,
    kept_at    REAL NOT NULL,
    refused_at REAL NOT NULL,
    code       TEXT NOT NULL,
    message    TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS about (
    name  TEXT PRIMARY KEY,             -- url: the service that the file is for
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lost (
    number  INTEGER PRIMARY KEY,
    lost_at REAL NOT NULL,
    writes  INTEGER NOT NULL            -- that were neither in memory nor on disk any more
);
-- A file of another form is not written either.
SELECT number, key_id, method, path, body, idempotency_key, placeholder, replaces, owner, kept_at,
       tried_at, faults
FROM entry LIMIT 0;

-- name: replace
DELETE FROM entry WHERE key_id = :key_id AND replaces = :replaces;

-- name: keep
INSERT OR IGNORE INTO entry
    (key_id, method, path, body, idempotency_key, placeholder, replaces, owner, kept_at, tried_at)
VALUES
    (:key_id, :method, :path, :body, :key, :placeholder, :replaces, :owner, :kept_at,
     :tried_at);

-- name: first
-- Another's heartbeat is worth sending only while it is young: its sender may be dead.
SELECT idempotency_key, method, path, body, placeholder, replaces, kept_at, tried_at, faults
FROM entry
WHERE key_id = :key_id AND (replaces IS NULL OR owner = :owner OR kept_at > :young AND kept_at < :soon)
ORDER BY number;

-- name: count
SELECT count(*) FROM entry
WHERE key_id = :key_id AND (replaces IS NULL OR owner = :owner OR kept_at > :young AND kept_at < :soon);

-- name: count_others
SELECT count(*) FROM entry WHERE key_id <> :key_id;

-- name: name_url
INSERT OR REPLACE INTO about (name, value) VALUES ('url', :url);

-- name: url
SELECT value FROM about WHERE name = 'url';

-- name: elsewhere
SELECT count(*), min(kept_at) FROM entry WHERE replaces IS NULL;

-- name: all_writes
SELECT key_id, idempotency_key, method, path, body, placeholder, owner, kept_at, tried_at
FROM entry WHERE replaces IS NULL ORDER BY number;

-- name: all_aliases
SELECT placeholder, id, known_at FROM alias WHERE placeholder <> '';

-- name: take_over
-- Where it may lead to another service, the record has to tell whether it was carried out.
INSERT OR IGNORE INTO entry
    (key_id, idempotency_key, method, path, body, placeholder, owner, kept_at, tried_at)
VALUES
    (:key_id, :idempotency_key, :method, :path, :body, :placeholder, :owner, :kept_at,
     min(:tried_at, :long_ago));

-- name: count_own
SELECT count(*) FROM entry WHERE owner = :owner AND replaces IS NULL;

-- name: has
SELECT 1 FROM entry WHERE idempotency_key = :key;

-- name: refuse_unkept
INSERT INTO refused (method, path, body, kept_at, refused_at, code, message)
VALUES (:method, :path, :body, :kept_at, :at, :code, :message);

-- name: other_keys
SELECT key_id, count(*), min(kept_at) FROM entry WHERE key_id <> :key_id GROUP BY key_id ORDER BY key_id;

-- name: try_out
-- Changes nothing, but has to be written.
INSERT OR REPLACE INTO alias (placeholder, id, known_at) VALUES ('', '', 0);

-- name: forget_beats
DELETE FROM entry WHERE replaces IS NOT NULL AND owner <> :owner AND (kept_at <= :young OR kept_at >= :soon);

-- name: forget_old
DELETE FROM alias WHERE known_at < :before;

-- name: lose
INSERT INTO lost (lost_at, writes) VALUES (:at, :writes);

-- name: lost
SELECT coalesce(sum(writes), 0), min(lost_at), max(lost_at) FROM lost;

-- name: forget_lost
DELETE FROM lost WHERE lost_at < :before;

-- name: forget_refused
DELETE FROM refused WHERE refused_at < :before;

-- name: tried
-- Several at once: a synced change for each would take longer than the sending.
UPDATE entry SET tried_at = :at
WHERE number IN (
    SELECT number FROM entry
    WHERE tried_at IS NULL AND replaces IS NULL AND key_id = :key_id
    ORDER BY number LIMIT 50);

-- name: fault
UPDATE entry SET faults = faults + 1 WHERE idempotency_key = :key;

-- name: adopt
-- The service repeats no reply to another key: whether it was carried out, the record has to tell.
UPDATE OR REPLACE entry SET key_id = :key_id, tried_at = min(tried_at, :long_ago)
WHERE key_id = :theirs;

-- name: move
UPDATE OR REPLACE entry SET key_id = :key_id WHERE idempotency_key = :key;

-- name: remove
DELETE FROM entry WHERE idempotency_key = :key;

-- name: alias
INSERT OR REPLACE INTO alias (placeholder, id, known_at) VALUES (:placeholder, :id, :at);

-- name: real
SELECT id FROM alias WHERE placeholder = :placeholder;

-- name: awaited
SELECT key_id FROM entry WHERE placeholder = :placeholder;

-- name: refuse
INSERT OR REPLACE INTO refused (number, method, path, body, kept_at, refused_at, code, message)
SELECT number, method, path, body, kept_at, :at, :code, :message FROM entry WHERE idempotency_key = :key;

-- name: refused
SELECT method, path, body, kept_at, refused_at, code, message FROM refused ORDER BY number;
