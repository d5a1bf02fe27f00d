-- A call may ask more than once: its server asks again when it has been answered.
CREATE TABLE questions_of_calls (
    chain INTEGER NOT NULL REFERENCES runs (chain),
    question TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    call TEXT NOT NULL,
    expires_ms INTEGER NOT NULL,
    encoding TEXT NOT NULL,
    asked TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'answered', 'expired', 'withdrawn')),
    -- What the call's server asks for, as JSON; nothing where the agent asks.
    server TEXT,
    -- What people said to it.
    answer TEXT,
    PRIMARY KEY (chain, question),
    UNIQUE (chain, ordinal)
) STRICT;

INSERT INTO questions_of_calls (chain, question, ordinal, call, expires_ms, encoding, asked, state)
SELECT chain, question, ordinal, call, expires_ms, encoding, asked, state FROM questions;

DROP TABLE questions;

ALTER TABLE questions_of_calls RENAME TO questions;

CREATE INDEX questions_by_call ON questions (chain, call);
