-- Counted since the data directory was made. `stored` is also the head: the position of the newest event.
-- received = stored + duplicate + the sum of all `rejected:*`, in every committed state.
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

-- Random, so that the tokens of frozen batches of two data directories never collide in one store.
CREATE TABLE identity (token TEXT NOT NULL);
INSERT INTO identity VALUES (lower(hex(randomblob(8))));

-- The log: one row holds the stored events of one batch, as the JSON of record::Record. `first` is the position of its
-- first event; the positions of all events are 1, 2, 3, .. without gaps.
CREATE TABLE record (first INTEGER PRIMARY KEY, events INTEGER NOT NULL, json TEXT NOT NULL);

-- A number for each app key ever used, to keep the big tables small.
CREATE TABLE app (no INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE);

-- Every event ID ever stored.
CREATE TABLE seen (app INTEGER NOT NULL, id BLOB NOT NULL, PRIMARY KEY (app, id)) WITHOUT ROWID;

-- The last known point of each install's clocks: what keeps its events in order over clock jumps.
CREATE TABLE install (
    app INTEGER NOT NULL, id BLOB NOT NULL,
    seq INTEGER NOT NULL, boot TEXT NOT NULL, mono INTEGER NOT NULL, event_time INTEGER NOT NULL,
    PRIMARY KEY (app, id)
) WITHOUT ROWID;

-- Signatures used, until they would be too old anyway.
CREATE TABLE signature (app INTEGER NOT NULL, mac BLOB NOT NULL, signed_at INTEGER NOT NULL, PRIMARY KEY (app, mac)) WITHOUT ROWID;
CREATE INDEX signature_age ON signature (signed_at);

-- How far each sink is: everything up to `delivered_to` is delivered or dead. A frozen batch is the one being sent.
CREATE TABLE cursor (
    sink TEXT PRIMARY KEY, delivered_to INTEGER NOT NULL DEFAULT 0, dead INTEGER NOT NULL DEFAULT 0,
    frozen_first INTEGER, frozen_last INTEGER
) WITHOUT ROWID;

-- Events that a sink refused for good.
CREATE TABLE dead_letter (
    sink TEXT NOT NULL, position INTEGER NOT NULL, app_key TEXT NOT NULL, event_id TEXT NOT NULL,
    reason TEXT NOT NULL, dead_at INTEGER NOT NULL, event TEXT NOT NULL,
    PRIMARY KEY (sink, position)
) WITHOUT ROWID;
