-- One row of facts about this database: stream id, high-water marks, connection epochs.
-- The high-water mark stands here because SQLite gives the rowids of an emptied table again.
CREATE TABLE fact (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE boot (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE);

-- A table for each lane: its rows are in order without an index, and an alarm never waits behind a scan of telemetry.
-- `seq` is one gap-free sequence over all four.
CREATE TABLE event_a (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, noun TEXT NOT NULL, device TEXT NOT NULL, recorded_ms INTEGER NOT NULL,
    wall_ms INTEGER NOT NULL, mono_ms INTEGER NOT NULL, boot INTEGER NOT NULL, clock TEXT NOT NULL, route TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE event_b (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, noun TEXT NOT NULL, device TEXT NOT NULL, recorded_ms INTEGER NOT NULL,
    wall_ms INTEGER NOT NULL, mono_ms INTEGER NOT NULL, boot INTEGER NOT NULL, clock TEXT NOT NULL, route TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE event_c (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, noun TEXT NOT NULL, device TEXT NOT NULL, recorded_ms INTEGER NOT NULL,
    wall_ms INTEGER NOT NULL, mono_ms INTEGER NOT NULL, boot INTEGER NOT NULL, clock TEXT NOT NULL, route TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE event_d (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, noun TEXT NOT NULL, device TEXT NOT NULL, recorded_ms INTEGER NOT NULL,
    wall_ms INTEGER NOT NULL, mono_ms INTEGER NOT NULL, boot INTEGER NOT NULL, clock TEXT NOT NULL, route TEXT NOT NULL, body TEXT NOT NULL);

-- How far a destination has confirmed a lane: everything up to `seq`, and the ranges in `ahead` beyond it.
CREATE TABLE cursor (destination TEXT NOT NULL, lane INTEGER NOT NULL, seq INTEGER NOT NULL, ahead TEXT NOT NULL,
    PRIMARY KEY (destination, lane)) WITHOUT ROWID;

-- A copy of what a destination refused for good, for a person to read and requeue.
CREATE TABLE dead_letter (destination TEXT NOT NULL, seq INTEGER NOT NULL, id TEXT NOT NULL, noun TEXT NOT NULL, device TEXT NOT NULL,
    code TEXT NOT NULL, reason TEXT NOT NULL, at_ms INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (destination, seq)) WITHOUT ROWID;

-- What was judged last of a device: counters and levels, committed with the event that they admitted.
CREATE TABLE mark (device TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (device, key)) WITHOUT ROWID;

-- Numbers of acknowledged inputs that are durable, as ranges. `at_seq`: the sequence at the last change, to drop the oldest
-- session by; a wall clock that jumps back would drop the one in use.
CREATE TABLE number (device TEXT NOT NULL, session TEXT NOT NULL, ranges TEXT NOT NULL, at_seq INTEGER NOT NULL,
    PRIMARY KEY (device, session)) WITHOUT ROWID;

CREATE TABLE alarm (id TEXT PRIMARY KEY, open INTEGER NOT NULL, raised_ms INTEGER NOT NULL, doc TEXT NOT NULL) WITHOUT ROWID;
