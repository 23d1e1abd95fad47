-- Where an event's time is from (a word; 0: stored before this was noted), and whether it may be a repetition.
ALTER TABLE event ADD COLUMN time_source INTEGER NOT NULL DEFAULT 0;
ALTER TABLE event ADD COLUMN unverified INTEGER NOT NULL DEFAULT 0;
