-- What people decide, answer and say, and what proves that it was they. Times in milliseconds are by the Temporal
-- server's clock, since 1970-01-01 UTC.

-- Until when a request can be decided; none for requests of older programs.
ALTER TABLE requests ADD COLUMN expires_ms INTEGER;
-- Until when an approval is used; none before it is approved.
ALTER TABLE requests ADD COLUMN usable_until_ms INTEGER;
-- Whether further people may decide.
ALTER TABLE requests ADD COLUMN escalated INTEGER NOT NULL DEFAULT 0;

ALTER TABLE runs ADD COLUMN questions_made INTEGER NOT NULL DEFAULT 0;

-- A call whose arguments an approver changed: the new arguments under the revision's id.
CREATE TABLE revisions (
    chain INTEGER NOT NULL REFERENCES runs (chain),
    call TEXT NOT NULL,
    request TEXT NOT NULL,
    editor TEXT NOT NULL,
    encoding TEXT NOT NULL,
    arguments TEXT NOT NULL,
    PRIMARY KEY (chain, call)
) STRICT;

CREATE TABLE questions (
    chain INTEGER NOT NULL REFERENCES runs (chain),
    question TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    call TEXT NOT NULL,
    expires_ms INTEGER NOT NULL,
    encoding TEXT NOT NULL,
    asked TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'answered', 'expired', 'withdrawn')),
    PRIMARY KEY (chain, question),
    UNIQUE (chain, ordinal),
    UNIQUE (chain, call)
) STRICT;

-- Further instructions that were accepted, and the turn at which the model read each.
CREATE TABLE instructions (
    chain INTEGER NOT NULL REFERENCES runs (chain),
    ordinal INTEGER NOT NULL,
    content TEXT NOT NULL,
    said_by TEXT NOT NULL,
    turn INTEGER,
    PRIMARY KEY (chain, ordinal)
) STRICT;

-- Signatures and tokens are good once: the digest of each that was used, and the record that it was used for.
CREATE TABLE used_proofs (
    digest TEXT PRIMARY KEY,
    workflow_id TEXT NOT NULL,
    first_run_id TEXT NOT NULL,
    record_key TEXT NOT NULL
) STRICT;
