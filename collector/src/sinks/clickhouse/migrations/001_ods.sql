-- Events as they came.
--
-- PARTITION BY month of event time, or by its year for what is far from its arrival: what is old is dropped as whole parts, a
-- question for a range reads only its months, and whoever sends events of twenty years makes 36 parts of them, not 7,300.
-- ORDER BY: every question is for one app and a range of time; the newest events are read from the end without sorting.
-- event_id ends the key, so that exactly the repetitions of one event collapse and nothing else does. theme and code are
-- not in it: they are a byte a row as dictionaries, while a key that begins with them would make the newest events,
-- and every question without a theme, a sort of everything.
-- received_at as version: of repetitions the last received stays; they differ in nothing else.
CREATE TABLE IF NOT EXISTS {{database}}.{{local}}{{on_cluster}}
(
    app_key       LowCardinality(String) COMMENT 'key of the app',
    event_time    DateTime64(3, 'UTC') COMMENT 'when it happened, corrected' CODEC(Delta(8), ZSTD(1)),
    event_id      UUID COMMENT 'identity within the app',
    install_id    String COMMENT 'who sent it' CODEC(ZSTD(1)),
    user_id       String COMMENT 'the user; empty if none' CODEC(ZSTD(1)),
    theme         LowCardinality(String) COMMENT 'view, click, ..',
    code          LowCardinality(String) COMMENT 'what the app calls it',
    received_at   DateTime64(3, 'UTC') COMMENT 'when the collector had it' CODEC(Delta(8), ZSTD(1)),
    ts            DateTime64(3, 'UTC') COMMENT 'when it happened by the clock of the device' CODEC(Delta(8), ZSTD(1)),
    mono          Nullable(UInt64) COMMENT 'the same by its monotonic clock, milliseconds' CODEC(ZSTD(1)),
    boot          String COMMENT 'which run of the monotonic clock' CODEC(ZSTD(1)),
    seq           UInt64 COMMENT 'number within the install, without gaps' CODEC(Delta(8), ZSTD(1)),
    batch_id      String COMMENT 'the batch it came in' CODEC(ZSTD(1)),
    position      UInt64 COMMENT 'number within the collector that delivered it' CODEC(Delta(8), ZSTD(1)),
    session_id    String COMMENT 'the session; empty if none' CODEC(ZSTD(1)),
    session_index Nullable(UInt64) COMMENT 'number of the session within the install' CODEC(ZSTD(1)),
    session_event Nullable(UInt64) COMMENT 'number of the event within the session' CODEC(ZSTD(1)),
    page_path     String COMMENT 'path of the page' CODEC(ZSTD(1)),
    page_title    String COMMENT 'title of the page' CODEC(ZSTD(1)),
    page_referrer String COMMENT 'where the page was reached from' CODEC(ZSTD(1)),
    page_enter_ts Nullable(DateTime64(3, 'UTC')) COMMENT 'when the page was entered by the clock of the device' CODEC(ZSTD(1)),
    app_version   LowCardinality(String),
    sdk_name      LowCardinality(String),
    sdk_version   LowCardinality(String),
    platform      LowCardinality(String),
    host_app      LowCardinality(String),
    host_version  LowCardinality(String),
    os            LowCardinality(String),
    os_version    LowCardinality(String),
    brand         LowCardinality(String),
    model         LowCardinality(String),
    screen        LowCardinality(String),
    language      LowCardinality(String),
    timezone      LowCardinality(String),
    network       LowCardinality(String),
    common        String COMMENT 'properties of the batch, JSON as it came' CODEC(ZSTD(1)),
    props         String COMMENT 'properties, JSON as it came' CODEC(ZSTD(1)),
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
