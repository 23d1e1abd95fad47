-- New parts keep whole events packed, a blob for each batch; `event_N` then has only what metrics need. `layout` of a part
-- names the columns in the blobs and how they are written (packed.rs). NULL: a part from before, with a column for each.
ALTER TABLE part ADD COLUMN layout TEXT;
