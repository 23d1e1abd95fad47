-- Events that wait beside the log until the store has made what they need (docs/adr/0013): they are pending, whatever the cursor has
-- passed. `resource` names what that is, `record` is the JSON of a record::Record with this one event.
CREATE TABLE parked (
    sink TEXT NOT NULL, position INTEGER NOT NULL, app_key TEXT NOT NULL, event_id TEXT NOT NULL, resource TEXT NOT NULL,
    arrived INTEGER NOT NULL, bytes INTEGER NOT NULL, record TEXT NOT NULL, PRIMARY KEY (sink, position)
);
CREATE INDEX parked_app ON parked (sink, app_key, position, resource);
CREATE INDEX parked_resource ON parked (sink, resource, position);

-- How many there are of each app, and what they take: kept by the triggers below, whatever adds or removes one.
CREATE TABLE parked_total (
    sink TEXT NOT NULL, app_key TEXT NOT NULL, events INTEGER NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (sink, app_key)
) WITHOUT ROWID;
CREATE TRIGGER parked_added AFTER INSERT ON parked BEGIN
    INSERT INTO parked_total VALUES (new.sink, new.app_key, 1, new.bytes)
    ON CONFLICT DO UPDATE SET events = events + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER parked_removed AFTER DELETE ON parked BEGIN
    UPDATE parked_total SET events = events - 1, bytes = bytes - old.bytes WHERE sink = old.sink AND app_key = old.app_key;
    DELETE FROM parked_total WHERE sink = old.sink AND app_key = old.app_key AND events = 0;
END;

-- Those that are being sent, over crashes too: positions as in `frozen_without`; each by itself if they are to be sent `alone`.
CREATE TABLE parked_group (sink TEXT PRIMARY KEY, positions TEXT NOT NULL, alone INTEGER NOT NULL) WITHOUT ROWID;

-- Positions of the frozen batch that are not sent with it, because they are parked once it is through: `5-9,12`. NULL: it is sent whole.
ALTER TABLE cursor ADD COLUMN frozen_without TEXT;
