-- Events are kept in parts: one pair of tables, `event_N` and `batch_N`, for each, in the order of arrival. What retention
-- deletes goes as whole tables, which costs a hundredth of deleting its rows (docs/adr/0011).
CREATE TABLE part (
    id INTEGER PRIMARY KEY,
    -- Position of its first event.
    first INTEGER NOT NULL,
    -- Days (since the epoch, UTC) of the arrival of its first event and of its latest.
    first_day INTEGER NOT NULL,
    last_day INTEGER NOT NULL,
    -- Pages of the database that were in use when it began.
    pages INTEGER NOT NULL
) STRICT;

-- What a part holds of an app; times are event times, milliseconds since the epoch.
CREATE TABLE part_app (
    part INTEGER NOT NULL,
    app INTEGER NOT NULL,
    events INTEGER NOT NULL,
    first_time INTEGER NOT NULL,
    last_time INTEGER NOT NULL,
    PRIMARY KEY (app, part)
) STRICT, WITHOUT ROWID;

INSERT INTO part SELECT 1, coalesce(min(id), 1), coalesce(min(received_at), 0) / 86400000, coalesce(max(received_at), 0) / 86400000, 0
    FROM batch;
INSERT INTO part_app SELECT 1, app, count(*), min(event_time), max(event_time) FROM event GROUP BY app;
DROP INDEX event_metrics;
ALTER TABLE event RENAME TO event_1;
ALTER TABLE batch RENAME TO batch_1;
CREATE INDEX metrics_1 ON event_1 (app, event_time, theme, code, install, user, session);

-- What could not be given a number because its app has too many stays with the row: the code in `code_text` (then `code` is
-- 0), the context as JSON in `context_json` (then `context` is 0).
ALTER TABLE event_1 ADD COLUMN code_text TEXT;
ALTER TABLE batch_1 ADD COLUMN context_json TEXT;

-- The events at these positions are not here: deleted by retention, or never taken.
CREATE TABLE missing (
    first INTEGER PRIMARY KEY,
    last INTEGER NOT NULL
) STRICT;

-- `part` of a dictionary's row: the latest part that refers to it. What refers only to parts that are gone can go.
ALTER TABLE user ADD COLUMN part INTEGER NOT NULL DEFAULT 1;
ALTER TABLE session ADD COLUMN part INTEGER NOT NULL DEFAULT 1;
ALTER TABLE install ADD COLUMN part INTEGER NOT NULL DEFAULT 1;

-- Themes and their kind (app 0), and the codes of each app. app -1: what was here before codes were counted by app.
CREATE TABLE word_of_app (
    id INTEGER PRIMARY KEY,
    app INTEGER NOT NULL,
    text TEXT NOT NULL,
    part INTEGER NOT NULL,
    UNIQUE (app, text)
) STRICT;
INSERT INTO word_of_app SELECT id, -1, text, 1 FROM word;
DROP TABLE word;
ALTER TABLE word_of_app RENAME TO word;

CREATE TABLE context_of_app (
    id INTEGER PRIMARY KEY,
    app INTEGER NOT NULL,
    part INTEGER NOT NULL,
    app_version TEXT NOT NULL, sdk_name TEXT NOT NULL, sdk_version TEXT NOT NULL, platform TEXT NOT NULL,
    host_app TEXT NOT NULL, host_version TEXT NOT NULL, os TEXT NOT NULL, os_version TEXT NOT NULL,
    brand TEXT NOT NULL, model TEXT NOT NULL, screen TEXT NOT NULL, language TEXT NOT NULL,
    timezone TEXT NOT NULL, network TEXT NOT NULL,
    UNIQUE (app, app_version, sdk_name, sdk_version, platform, host_app, host_version, os, os_version,
            brand, model, screen, language, timezone, network)
) STRICT;
INSERT INTO context_of_app SELECT id, 0, 1, app_version, sdk_name, sdk_version, platform, host_app, host_version, os, os_version,
    brand, model, screen, language, timezone, network FROM context;
DROP TABLE context;
ALTER TABLE context_of_app RENAME TO context;

-- Of each app: from which event time on every event is here (null: all are); the same for installs and their first time;
-- how many events retention deleted, how many installs are remembered, and how many were forgotten; how many events and
-- batches have their code or their context in the row itself.
ALTER TABLE app ADD COLUMN complete_from INTEGER;
ALTER TABLE app ADD COLUMN installs_complete_from INTEGER;
ALTER TABLE app ADD COLUMN deleted_events INTEGER NOT NULL DEFAULT 0;
ALTER TABLE app ADD COLUMN installs INTEGER NOT NULL DEFAULT 0;
ALTER TABLE app ADD COLUMN forgotten_installs INTEGER NOT NULL DEFAULT 0;
ALTER TABLE app ADD COLUMN codes_in_rows INTEGER NOT NULL DEFAULT 0;
ALTER TABLE app ADD COLUMN contexts_in_rows INTEGER NOT NULL DEFAULT 0;
UPDATE app SET installs = (SELECT count(*) FROM install WHERE install.app = app.id);
