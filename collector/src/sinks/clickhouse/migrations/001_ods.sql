-- Events as they came. The columns are those of the declaration in collector/src/record, so a new table has all of them.
--
-- PARTITION BY month of event time, or by its year for events far from their arrival: old events are dropped as whole parts, a
-- query for a range reads only its months, and a client that sends events of twenty years creates 36 parts, not 7,300.
-- ORDER BY: every query is for one app and a range of time; the newest events are read from the end without sorting.
-- event_id ends the key, so that exactly the repetitions of one event collapse and nothing else does. theme and code are
-- not in it: they are a byte a row as dictionaries, while a key that begins with them would make the newest events,
-- and every query without a theme, a sort of everything.
-- received_at as version: of repetitions the last received stays; they differ in nothing else.
CREATE TABLE IF NOT EXISTS {{database}}.{{local}}{{on_cluster}}
(
{{columns}},
    INDEX install_id install_id TYPE bloom_filter GRANULARITY 4,
    INDEX user_id user_id TYPE bloom_filter GRANULARITY 4
)
ENGINE = {{engine_of_events}}
PARTITION BY {{partition}}
ORDER BY (app_key, event_time, event_id)
SETTINGS {{deduplication}}, fsync_after_insert = 1, fsync_part_directory = 1, ttl_only_drop_parts = 1;

-- with a cluster
CREATE TABLE IF NOT EXISTS {{database}}.{{table}}{{on_cluster}} AS {{database}}.{{local}}
ENGINE = Distributed('{{cluster}}', '{{database}}', '{{local}}', cityHash64(app_key, install_id));
