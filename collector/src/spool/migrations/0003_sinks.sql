-- What a sink is to the collector: `active` while the configuration has it, `unconfigured` since it has it no longer,
-- `retired` once somebody has said that it will not come back: at `retired_at`, when `retired_to` events were stored.
ALTER TABLE cursor ADD COLUMN state TEXT NOT NULL DEFAULT 'active';
ALTER TABLE cursor ADD COLUMN retired_at INTEGER;
ALTER TABLE cursor ADD COLUMN retired_to INTEGER;

-- When the events from a position on arrived, noted about once a second: how old something is can be said without
-- reading a record. Of what is there already only the oldest is looked at; what follows counts as old until it is gone.
CREATE TABLE arrival (first INTEGER PRIMARY KEY, at INTEGER NOT NULL);
INSERT INTO arrival SELECT first, coalesce(CASE WHEN json_valid(json) THEN json_extract(json, '$.received_at') END, 1000 * unixepoch())
FROM record ORDER BY first LIMIT 1;
