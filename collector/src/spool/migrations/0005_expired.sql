-- How many events a sink will never get: they were gone, from the log and from the embedded store, before it came to them.
ALTER TABLE cursor ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;
-- Everything that a sink did not get for that reason, or gave up because the spool was full, arrived before this time,
-- milliseconds since the epoch; NULL: it got everything.
ALTER TABLE cursor ADD COLUMN complete_from INTEGER;
