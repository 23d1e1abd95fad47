-- The embedded store. Texts that repeat are kept once and referred to by number: rows stay small, and distinct installs,
-- users and sessions are counted as integers. Identifiers in the usual form of a UUID are 16-byte blobs, others texts.

-- Apps, and the time zone that the collector was last told for them (empty: never).
CREATE TABLE app (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    timezone TEXT NOT NULL DEFAULT ''
) STRICT;

-- Themes and event codes.
CREATE TABLE word (
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE context (
    id INTEGER PRIMARY KEY,
    app_version TEXT NOT NULL, sdk_name TEXT NOT NULL, sdk_version TEXT NOT NULL, platform TEXT NOT NULL,
    host_app TEXT NOT NULL, host_version TEXT NOT NULL, os TEXT NOT NULL, os_version TEXT NOT NULL,
    brand TEXT NOT NULL, model TEXT NOT NULL, screen TEXT NOT NULL, language TEXT NOT NULL,
    timezone TEXT NOT NULL, network TEXT NOT NULL,
    UNIQUE (app_version, sdk_name, sdk_version, platform, host_app, host_version, os, os_version,
            brand, model, screen, language, timezone, network)
) STRICT;

-- first_time: the earliest event time ever stored for the install, milliseconds; a late event may still lower it.
CREATE TABLE install (
    id INTEGER PRIMARY KEY,
    app INTEGER NOT NULL,
    install_id ANY NOT NULL,
    first_time INTEGER NOT NULL,
    UNIQUE (app, install_id)
) STRICT;
CREATE INDEX install_first_time ON install (app, first_time);

CREATE TABLE user (
    id INTEGER PRIMARY KEY,
    app INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    UNIQUE (app, user_id)
) STRICT;

CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    app INTEGER NOT NULL,
    session_id ANY NOT NULL,
    UNIQUE (app, session_id)
) STRICT;

-- One received batch. id: the position of its first event.
CREATE TABLE batch (
    id INTEGER PRIMARY KEY,
    batch_id ANY NOT NULL,
    received_at INTEGER NOT NULL,
    context INTEGER NOT NULL,
    common TEXT
) STRICT;

-- One event. user and session are 0 if there is none; times are milliseconds since the epoch.
CREATE TABLE event (
    position INTEGER PRIMARY KEY,
    app INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    event_id ANY NOT NULL,
    event_time INTEGER NOT NULL,
    theme INTEGER NOT NULL,
    code INTEGER NOT NULL,
    install INTEGER NOT NULL,
    user INTEGER NOT NULL,
    session INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    mono INTEGER,
    boot TEXT NOT NULL,
    session_index INTEGER,
    session_event INTEGER,
    page_path TEXT NOT NULL,
    page_title TEXT NOT NULL,
    page_referrer TEXT NOT NULL,
    page_enter_ts INTEGER,
    props TEXT
) STRICT;
-- Holds everything that a metric needs, so that no metric reads a row. The one index: each costs every event a write.
CREATE INDEX event_metrics ON event (app, event_time, theme, code, install, user, session);

-- How far the spool has been taken over, in the same transactions as the events.
CREATE TABLE cursor (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    position INTEGER NOT NULL
) STRICT;
INSERT INTO cursor (id, position) VALUES (1, 0);
