-- What meters showed, a row a day and device, and what happened to them: kept for a year of bills after the events have left.
-- `kind`: read (the first of the day), freeze (the meter's own), swap, rollover, held, dial. `n` tells several of a day apart.
CREATE TABLE meter_day (device TEXT NOT NULL, day TEXT NOT NULL, kind TEXT NOT NULL, n INTEGER NOT NULL, doc TEXT NOT NULL,
    PRIMARY KEY (device, day, kind, n)) WITHOUT ROWID;
