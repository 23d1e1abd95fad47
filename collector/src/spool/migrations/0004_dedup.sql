-- The dedup index (docs/adr/0008). Event IDs that are new go into `fresh`, a log of blobs of 16 bytes an ID, in the transaction
-- that stores their events; memory has them as a set. When there are many, they are written to a part: a sorted
-- file that never changes, named here in the transaction that ends their time in `fresh`.
CREATE TABLE fresh (app INTEGER NOT NULL, no INTEGER NOT NULL, at INTEGER NOT NULL, ids BLOB NOT NULL, PRIMARY KEY (app, no)) WITHOUT ROWID;

-- The parts: file dedup/<no>.ids. `seen_from`, `seen_to`: when the first and the last of its IDs were seen, milliseconds.
CREATE TABLE part (no INTEGER PRIMARY KEY, app INTEGER NOT NULL, ids INTEGER NOT NULL, seen_from INTEGER NOT NULL, seen_to INTEGER NOT NULL);

-- Of each app: rows of `fresh` up to `sealed_to` are in parts; IDs seen at or before `forgotten_to` may have been forgotten.
CREATE TABLE dedup_app (app INTEGER PRIMARY KEY, sealed_to INTEGER NOT NULL DEFAULT 0, forgotten_to INTEGER);

-- Random, so that no sender can choose IDs that collide.
CREATE TABLE dedup_key (key BLOB NOT NULL);
INSERT INTO dedup_key VALUES (randomblob(16));

-- The clocks of installs, in generations: when one is full, the one before it is forgotten. What was there is the first.
CREATE TABLE install_clock (
    app INTEGER NOT NULL, generation INTEGER NOT NULL, id BLOB NOT NULL,
    seq INTEGER NOT NULL, boot TEXT NOT NULL, mono INTEGER NOT NULL, event_time INTEGER NOT NULL,
    PRIMARY KEY (app, generation, id)
) WITHOUT ROWID;
INSERT INTO install_clock SELECT app, 0, id, seq, boot, mono, event_time FROM install;
DROP TABLE install;
