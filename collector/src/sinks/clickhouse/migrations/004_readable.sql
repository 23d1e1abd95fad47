-- The views of those themes whose properties have columns, made anew. The server reads no property of a text in which there is
-- half a surrogate or a number beyond every type, so such a neighbour emptied all the others; `readable` is the text without
-- them, and where nothing of that kind is in it, the text itself.
CREATE OR REPLACE VIEW {{database}}.{{dwd}}view{{on_cluster}} AS
WITH {{readable}} AS readable
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    page_title,
    page_referrer,
    page_enter_ts,
    JSONExtractRaw(readable, 'query') AS query,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'view';

CREATE OR REPLACE VIEW {{database}}.{{dwd}}click{{on_cluster}} AS
WITH {{readable}} AS readable
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    JSONExtractString(readable, 'element_id') AS element_id,
    JSONExtractString(readable, 'method') AS method,
    JSONExtractString(readable, 'type') AS type,
    JSONExtractRaw(readable, 'dataset') AS dataset,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'click';

CREATE OR REPLACE VIEW {{database}}.{{dwd}}exposure{{on_cluster}} AS
WITH {{readable}} AS readable
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    JSONExtractString(readable, 'element_id') AS element_id,
    JSONExtractRaw(readable, 'dataset') AS dataset,
    ifNotFinite(JSONExtract(readable, 'ratio', 'Nullable(Float64)'), NULL) AS ratio,
    JSONExtract(readable, 'dwell_ms', 'Nullable(UInt64)') AS dwell_ms,
    JSONExtract(readable, 'duration_ms', 'Nullable(UInt64)') AS duration_ms,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'exposure';

CREATE OR REPLACE VIEW {{database}}.{{dwd}}order{{on_cluster}} AS
WITH {{readable}} AS readable
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    JSONExtractString(readable, 'order_id') AS order_id,
    JSONExtractString(readable, 'status') AS status,
    ifNotFinite(JSONExtract(readable, 'amount', 'Nullable(Float64)'), NULL) AS amount,
    JSONExtractString(readable, 'currency') AS currency,
    JSONExtractString(readable, 'product_id') AS product_id,
    JSONExtractRaw(readable, 'items') AS items,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'order';

CREATE OR REPLACE VIEW {{database}}.{{dwd}}lifecycle{{on_cluster}} AS
WITH {{readable}} AS readable
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    JSONExtractString(readable, 'path') AS path,
    JSONExtractRaw(readable, 'scene') AS scene,
    JSONExtract(readable, 'duration_ms', 'Nullable(UInt64)') AS duration_ms,
    JSONExtractRaw(readable, 'query') AS query,
    JSONExtractString(readable, 'share_id') AS share_id,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'lifecycle';

CREATE OR REPLACE VIEW {{database}}.{{dwd}}share{{on_cluster}} AS
WITH {{readable}} AS readable
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    page_title,
    JSONExtractString(readable, 'share_id') AS share_id,
    JSONExtractString(readable, 'channel') AS channel,
    JSONExtractString(readable, 'title') AS title,
    JSONExtractString(readable, 'path') AS path,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'share';

CREATE OR REPLACE VIEW {{database}}.{{dwd}}error{{on_cluster}} AS
WITH {{readable}} AS readable
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    JSONExtractString(readable, 'name') AS name,
    JSONExtractString(readable, 'message') AS message,
    JSONExtractString(readable, 'stack') AS stack,
    JSONExtractString(readable, 'fingerprint') AS fingerprint,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'error';

CREATE OR REPLACE VIEW {{database}}.{{dwd}}performance{{on_cluster}} AS
WITH {{readable}} AS readable
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    JSONExtractString(readable, 'name') AS name,
    ifNotFinite(JSONExtract(readable, 'value', 'Nullable(Float64)'), NULL) AS value,
    JSONExtract(readable, 'duration_ms', 'Nullable(UInt64)') AS duration_ms,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'performance';

CREATE OR REPLACE VIEW {{database}}.{{dwd}}network{{on_cluster}} AS
WITH {{readable}} AS readable
SELECT
    event_id, app_key, install_id, user_id, code, event_time, received_at, session_id, session_index, session_event,
    platform, app_version, network, page_path,
    JSONExtractString(readable, 'method') AS method,
    JSONExtractString(readable, 'url') AS url,
    JSONExtract(readable, 'status', 'Nullable(Int64)') AS status,
    JSONExtract(readable, 'bytes', 'Nullable(UInt64)') AS bytes,
    JSONExtract(readable, 'duration_ms', 'Nullable(UInt64)') AS duration_ms,
    common,
    props
FROM {{database}}.{{table}} FINAL
WHERE theme = 'network';
