-- name: list
-- Events that a read model of this version could not fold, in the order of the log.
SELECT d.position, d.read_model, d.error, d.set_aside_at,
       e.event_id::text, e.event_type, e.stream_id, e.sequence_num, e."timestamp"
FROM projections.dead_letters d
LEFT JOIN event_store e USING (namespace, position)
WHERE d.namespace = %(namespace)s AND d.place = ANY (%(places)s)
  AND (%(past_position)s::bigint IS NULL
       OR (d.position, d.read_model) > (%(past_position)s, %(past_read_model)s::text))
ORDER BY d.position, d.read_model
LIMIT %(limit)s OFFSET %(offset)s

-- name: count
SELECT count(*) AS total_count FROM projections.dead_letters
WHERE namespace = %(namespace)s AND place = ANY (%(places)s)

-- name: affected
-- The read models that have any, in any namespace.
SELECT read_model, count(*) FROM projections.dead_letters
WHERE place = ANY (%(places)s) GROUP BY read_model ORDER BY read_model
