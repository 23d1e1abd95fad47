-- Whose each record is: what the room in the log is shared by (docs/adr/0009). NULL in records from before, which are not
-- written anew for it: a log that is full because a store is down would need its size again. Their JSON says whose they are.
ALTER TABLE record ADD COLUMN app INTEGER;

-- How many bytes of JSON in the log are whose: counters `backlog:<app>`, which add up to `backlog`. They are in that table
-- because its page is written with every commit anyway. An app with none has none. Row by row: grouping would keep every
-- JSON in memory.
INSERT INTO counter
SELECT 'backlog:' || coalesce((SELECT no FROM app WHERE key = CASE WHEN json_valid(json) THEN json_extract(json, '$.app_key') END), 0),
    octet_length(json)
FROM record WHERE true
ON CONFLICT DO UPDATE SET value = value + excluded.value;
