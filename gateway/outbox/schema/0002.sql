-- What each numbered input said, as a digest: a number that comes again with something else is another event. A digest takes
-- 4 bytes, 64 of them a row (block = number modulo 4,096 by 64), so that a commit rewrites a row or two and not all of them.
CREATE TABLE number_digest (device TEXT NOT NULL, session TEXT NOT NULL, block INTEGER NOT NULL, digests BLOB NOT NULL,
    PRIMARY KEY (device, session, block)) WITHOUT ROWID;

-- Up to which number the source has surely received its acknowledgements: it brings none of these again.
ALTER TABLE number ADD COLUMN settled INTEGER NOT NULL DEFAULT -1;
