-- The store of mandate on PostgreSQL: the same tables as on SQLite, and the same number for the same schema. Rows that
-- hold content name their encoding. Times are microseconds since 1970-01-01 UTC unless a column says otherwise. Audit
-- records hold no content.

CREATE TABLE store (
    "only" BIGINT PRIMARY KEY CHECK ("only" = 1),
    store_id TEXT NOT NULL
);

-- The address of a fixed text under the tenant's address key: an other key shows before it writes anything.
CREATE TABLE tenants (
    tenant TEXT COLLATE "C" PRIMARY KEY,
    key_check TEXT NOT NULL
);

CREATE TABLE chains (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workflow_id TEXT NOT NULL,
    first_run_id TEXT NOT NULL,
    records BIGINT NOT NULL,
    head TEXT NOT NULL,
    UNIQUE (workflow_id, first_run_id)
);

CREATE TABLE records (
    chain BIGINT NOT NULL REFERENCES chains (id),
    sequence BIGINT NOT NULL,
    record_key TEXT NOT NULL,
    canonical TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (chain, sequence),
    UNIQUE (chain, record_key)
);

CREATE TABLE runs (
    chain BIGINT PRIMARY KEY REFERENCES chains (id),
    agent TEXT NOT NULL,
    on_behalf_of TEXT NOT NULL,
    opened_micros BIGINT NOT NULL,
    closed BOOLEAN NOT NULL DEFAULT FALSE,
    requests_made BIGINT NOT NULL DEFAULT 0,
    questions_made BIGINT NOT NULL DEFAULT 0,
    encoding TEXT NOT NULL,
    opened TEXT NOT NULL,
    definition TEXT NOT NULL,
    tools TEXT NOT NULL
);

CREATE TABLE executions (
    run_id TEXT PRIMARY KEY,
    chain BIGINT NOT NULL REFERENCES runs (chain)
);

CREATE TABLE content (
    tenant TEXT COLLATE "C" NOT NULL REFERENCES tenants (tenant),
    address TEXT NOT NULL,
    encoding TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (tenant, address)
);

CREATE TABLE messages (
    tenant TEXT COLLATE "C" NOT NULL REFERENCES tenants (tenant),
    address TEXT NOT NULL,
    parent TEXT,
    depth BIGINT NOT NULL CHECK (depth > 0),
    encoding TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (tenant, address)
);

-- `rowid` tells in which order effects were claimed first, as SQLite's own does.
CREATE TABLE effects (
    rowid BIGINT GENERATED ALWAYS AS IDENTITY,
    chain BIGINT NOT NULL REFERENCES runs (chain),
    effect TEXT NOT NULL,
    target TEXT NOT NULL,
    input TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'released', 'unknown', 'settled')),
    epoch BIGINT NOT NULL CHECK (epoch > 0),
    holder TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    send_by_millis BIGINT NOT NULL,
    reason TEXT,
    encoding TEXT,
    outcome TEXT,
    settled_epoch BIGINT,
    known_by TEXT,
    PRIMARY KEY (chain, effect)
);

CREATE TABLE call_ends (
    chain BIGINT NOT NULL REFERENCES runs (chain),
    call TEXT NOT NULL,
    message TEXT NOT NULL,
    encoding TEXT NOT NULL,
    outcome TEXT NOT NULL,
    PRIMARY KEY (chain, call)
);

CREATE TABLE replies (
    chain BIGINT NOT NULL REFERENCES runs (chain),
    turn BIGINT NOT NULL,
    transcript_before TEXT NOT NULL,
    appended TEXT NOT NULL,
    transcript_after TEXT NOT NULL,
    encoding TEXT NOT NULL,
    reply TEXT NOT NULL,
    PRIMARY KEY (chain, turn)
);

CREATE TABLE requests (
    chain BIGINT NOT NULL REFERENCES runs (chain),
    request TEXT NOT NULL,
    ordinal BIGINT NOT NULL,
    call TEXT NOT NULL,
    gate_id TEXT NOT NULL,
    arguments TEXT NOT NULL,
    gate TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'approved', 'rejected', 'expired', 'withdrawn', 'consumed')),
    -- Milliseconds by the Temporal server's clock: until when it can be decided, and an approval used.
    expires_ms BIGINT,
    usable_until_ms BIGINT,
    escalated BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (chain, request),
    UNIQUE (chain, ordinal)
);

-- One live request for one question: gate, call and arguments.
CREATE UNIQUE INDEX requests_live ON requests (chain, call, gate_id, arguments) WHERE state IN ('open', 'approved');

CREATE TABLE votes (
    chain BIGINT NOT NULL,
    request TEXT NOT NULL,
    person TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (chain, request, person),
    FOREIGN KEY (chain, request) REFERENCES requests (chain, request)
);

-- Only appended to: the highest version is the active bundle, and a rollback appends old content under a new version.
CREATE TABLE bundles (
    version BIGINT PRIMARY KEY CHECK (version > 0),
    digest TEXT NOT NULL,
    applied_micros BIGINT NOT NULL,
    applied_by TEXT NOT NULL,
    note TEXT,
    encoding TEXT NOT NULL,
    files TEXT NOT NULL
);

-- A row is in quarantine now. What was lifted stands in the chain alone.
CREATE TABLE quarantine (
    kind TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    reason TEXT NOT NULL,
    quarantined_by TEXT NOT NULL,
    since_micros BIGINT NOT NULL,
    PRIMARY KEY (kind, name)
);

-- A call whose arguments an approver changed: the new arguments under the revision's id.
CREATE TABLE revisions (
    chain BIGINT NOT NULL REFERENCES runs (chain),
    call TEXT NOT NULL,
    request TEXT NOT NULL,
    editor TEXT NOT NULL,
    encoding TEXT NOT NULL,
    arguments TEXT NOT NULL,
    PRIMARY KEY (chain, call)
);

CREATE TABLE questions (
    chain BIGINT NOT NULL REFERENCES runs (chain),
    question TEXT NOT NULL,
    ordinal BIGINT NOT NULL,
    call TEXT NOT NULL,
    -- Milliseconds by the Temporal server's clock.
    expires_ms BIGINT NOT NULL,
    encoding TEXT NOT NULL,
    asked TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'answered', 'expired', 'withdrawn')),
    PRIMARY KEY (chain, question),
    UNIQUE (chain, ordinal),
    UNIQUE (chain, call)
);

-- Further instructions that were accepted, and the turn at which the model read each.
CREATE TABLE instructions (
    chain BIGINT NOT NULL REFERENCES runs (chain),
    ordinal BIGINT NOT NULL,
    content TEXT NOT NULL,
    said_by TEXT NOT NULL,
    turn BIGINT,
    PRIMARY KEY (chain, ordinal)
);

-- Signatures and tokens are good once: the digest of each that was used, and the record that it was used for.
CREATE TABLE used_proofs (
    digest TEXT PRIMARY KEY,
    workflow_id TEXT NOT NULL,
    first_run_id TEXT NOT NULL,
    record_key TEXT NOT NULL
);
