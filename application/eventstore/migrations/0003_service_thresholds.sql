-- The thresholds that the service runs with, by the name of their setting. It writes them when it
-- starts, so that the views say the same to whoever queries them past the service.
CREATE TABLE service_thresholds (
    name  text PRIMARY KEY,
    value float8 NOT NULL
);
GRANT SELECT ON service_thresholds TO PUBLIC;
GRANT INSERT, UPDATE ON service_thresholds TO holdfast_service;
