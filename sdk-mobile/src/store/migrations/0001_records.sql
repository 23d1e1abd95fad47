-- The client's map. One integer key keeps the order that the core asks for and makes the table its own index:
-- id = kind * 2^60 + number, kind 0 state, 1 context, 2 event, 3 batch.
CREATE TABLE record (
    id INTEGER PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
