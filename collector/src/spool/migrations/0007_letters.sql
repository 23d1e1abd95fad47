-- About how many bytes a dead letter takes: its texts, and 64 for the row.
ALTER TABLE dead_letter ADD COLUMN bytes INTEGER GENERATED ALWAYS AS (
    length(CAST(record AS BLOB)) + length(CAST(reason AS BLOB)) + length(app_key) + length(event_id) + 64
) VIRTUAL;

-- What the dead letters of a sink take in all, and how many were dropped because they took too much (`dead_letter_bytes`). Kept by
-- the triggers below, whatever adds, changes or removes a letter.
CREATE TABLE letters (sink TEXT PRIMARY KEY, bytes INTEGER NOT NULL, dropped INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
INSERT INTO letters (sink, bytes) SELECT sink, sum(bytes) FROM dead_letter GROUP BY sink;

CREATE TRIGGER letter_added AFTER INSERT ON dead_letter BEGIN
    INSERT INTO letters (sink, bytes) VALUES (new.sink, new.bytes) ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER letter_removed AFTER DELETE ON dead_letter BEGIN
    UPDATE letters SET bytes = bytes - old.bytes WHERE sink = old.sink;
END;
CREATE TRIGGER letter_changed AFTER UPDATE OF reason ON dead_letter BEGIN
    UPDATE letters SET bytes = bytes + new.bytes - old.bytes WHERE sink = new.sink;
END;
