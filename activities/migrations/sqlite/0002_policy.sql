-- Policy for all workers of the store. What is here was put here by an operator, and the store's own chain says by whom.

-- Only appended to: the highest version is the active bundle, and a rollback appends old content under a new version.
CREATE TABLE bundles (
    version INTEGER PRIMARY KEY CHECK (version > 0),
    digest TEXT NOT NULL,
    applied_micros INTEGER NOT NULL,
    applied_by TEXT NOT NULL,
    note TEXT,
    encoding TEXT NOT NULL,
    files TEXT NOT NULL
) STRICT;

-- A row is in quarantine now. What was lifted stands in the chain alone.
CREATE TABLE quarantine (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    reason TEXT NOT NULL,
    quarantined_by TEXT NOT NULL,
    since_micros INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT;
