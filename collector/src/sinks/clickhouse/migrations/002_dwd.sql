-- One view for each theme: each event once, with the properties that the SDK gives to events of this theme as columns. What
-- an event does not have is empty, or NULL if it is a number.
CREATE VIEW IF NOT EXISTS {{database}}.{{dwd}}view{{on_cluster}} AS
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    page_title,
    page_referrer,
    page_enter_ts,
    JSONExtractRaw(props, 'query') AS query,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'view';

CREATE VIEW IF NOT EXISTS {{database}}.{{dwd}}click{{on_cluster}} AS
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    JSONExtractString(props, 'element_id') AS element_id,
    JSONExtractString(props, 'method') AS method,
    JSONExtractString(props, 'type') AS type,
    JSONExtractRaw(props, 'dataset') AS dataset,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'click';

CREATE VIEW IF NOT EXISTS {{database}}.{{dwd}}exposure{{on_cluster}} AS
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    JSONExtractString(props, 'element_id') AS element_id,
    JSONExtract(props, 'duration_ms', 'Nullable(UInt64)') AS duration_ms,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'exposure';

CREATE VIEW IF NOT EXISTS {{database}}.{{dwd}}order{{on_cluster}} AS
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    JSONExtractString(props, 'order_id') AS order_id,
    JSONExtractString(props, 'status') AS status,
    JSONExtract(props, 'amount', 'Nullable(Float64)') AS amount,
    JSONExtractString(props, 'currency') AS currency,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'order';

CREATE VIEW IF NOT EXISTS {{database}}.{{dwd}}lifecycle{{on_cluster}} AS
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    JSONExtractString(props, 'path') AS path,
    JSONExtractRaw(props, 'scene') AS scene,
    JSONExtract(props, 'duration_ms', 'Nullable(UInt64)') AS duration_ms,
    JSONExtractRaw(props, 'query') AS query,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'lifecycle';

CREATE VIEW IF NOT EXISTS {{database}}.{{dwd}}share{{on_cluster}} AS
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    page_title,
    JSONExtractString(props, 'channel') AS channel,
    JSONExtractString(props, 'title') AS title,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'share';

CREATE VIEW IF NOT EXISTS {{database}}.{{dwd}}error{{on_cluster}} AS
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    JSONExtractString(props, 'name') AS name,
    JSONExtractString(props, 'message') AS message,
    JSONExtractString(props, 'stack') AS stack,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'error';

CREATE VIEW IF NOT EXISTS {{database}}.{{dwd}}performance{{on_cluster}} AS
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    JSONExtractString(props, 'name') AS name,
    JSONExtract(props, 'value', 'Nullable(Float64)') AS value,
    JSONExtract(props, 'duration_ms', 'Nullable(UInt64)') AS duration_ms,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'performance';

CREATE VIEW IF NOT EXISTS {{database}}.{{dwd}}network{{on_cluster}} AS
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    JSONExtractString(props, 'method') AS method,
    JSONExtractString(props, 'url') AS url,
    JSONExtract(props, 'status', 'Nullable(Int64)') AS status,
    JSONExtract(props, 'bytes', 'Nullable(UInt64)') AS bytes,
    JSONExtract(props, 'duration_ms', 'Nullable(UInt64)') AS duration_ms,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'network';

CREATE VIEW IF NOT EXISTS {{database}}.{{dwd}}profile{{on_cluster}} AS
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'profile';

CREATE VIEW IF NOT EXISTS {{database}}.{{dwd}}custom{{on_cluster}} AS
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'custom';
