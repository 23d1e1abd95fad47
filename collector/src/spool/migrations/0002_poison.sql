-- A batch that a store refused is searched for the event that it refuses: everything after the cursor up to `suspect_to`
-- belongs to such a batch.
ALTER TABLE cursor ADD COLUMN suspect_to INTEGER;

-- Events that a sink gave up because the spool was full: `shed` of those counted in `dead`. While a batch is frozen the
-- cursor cannot pass it; then the events after that batch up to `shed_to` are given up already, and counted.
ALTER TABLE cursor ADD COLUMN shed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursor ADD COLUMN shed_to INTEGER;

-- A dead letter keeps the event as the JSON of a record::Record with this one event, so that it can be sent again.
-- `replay` marks those that are being sent again together, over crashes too.
DROP TABLE dead_letter;
CREATE TABLE dead_letter (
    sink TEXT NOT NULL, position INTEGER NOT NULL, app_key TEXT NOT NULL, event_id TEXT NOT NULL,
    reason TEXT NOT NULL, dead_at INTEGER NOT NULL, record TEXT NOT NULL, replay INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (sink, position)
) WITHOUT ROWID;
