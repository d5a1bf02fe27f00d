-- The store of mandate on SQLite. Rows that hold content name their encoding, so that encryption can be added without
-- rewriting them. Times are microseconds since 1970-01-01 UTC. Audit records hold no content.

CREATE TABLE store (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    store_id TEXT NOT NULL
) STRICT;

-- The address of a fixed text under the tenant's address key: an other key shows before it writes anything.
CREATE TABLE tenants (
    tenant TEXT PRIMARY KEY,
    key_check TEXT NOT NULL
) STRICT;

CREATE TABLE chains (
    id INTEGER PRIMARY KEY,
    workflow_id TEXT NOT NULL,
    first_run_id TEXT NOT NULL,
    records INTEGER NOT NULL,
    head TEXT NOT NULL,
    UNIQUE (workflow_id, first_run_id)
) STRICT;

CREATE TABLE records (
    chain INTEGER NOT NULL REFERENCES chains (id),
    sequence INTEGER NOT NULL,
    record_key TEXT NOT NULL,
    canonical TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (chain, sequence),
    UNIQUE (chain, record_key)
) STRICT;

CREATE TABLE runs (
    chain INTEGER PRIMARY KEY REFERENCES chains (id),
    agent TEXT NOT NULL,
    on_behalf_of TEXT NOT NULL,
    opened_micros INTEGER NOT NULL,
    closed INTEGER NOT NULL DEFAULT 0,
    requests_made INTEGER NOT NULL DEFAULT 0,
    encoding TEXT NOT NULL,
    opened TEXT NOT NULL,
    definition TEXT NOT NULL,
    tools TEXT NOT NULL
) STRICT;

CREATE TABLE executions (
    run_id TEXT PRIMARY KEY,
    chain INTEGER NOT NULL REFERENCES runs (chain)
) STRICT;

CREATE TABLE content (
    tenant TEXT NOT NULL REFERENCES tenants (tenant),
    address TEXT NOT NULL,
    encoding TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (tenant, address)
) STRICT;

CREATE TABLE messages (
    tenant TEXT NOT NULL REFERENCES tenants (tenant),
    address TEXT NOT NULL,
    parent TEXT,
    depth INTEGER NOT NULL CHECK (depth > 0),
    encoding TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (tenant, address)
) STRICT;

CREATE TABLE effects (
    chain INTEGER NOT NULL REFERENCES runs (chain),
    effect TEXT NOT NULL,
    target TEXT NOT NULL,
    input TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'released', 'unknown', 'settled')),
    epoch INTEGER NOT NULL CHECK (epoch > 0),
    holder TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    send_by_millis INTEGER NOT NULL,
    reason TEXT,
    encoding TEXT,
    outcome TEXT,
    settled_epoch INTEGER,
    known_by TEXT,
    PRIMARY KEY (chain, effect)
) STRICT;

CREATE TABLE call_ends (
    chain INTEGER NOT NULL REFERENCES runs (chain),
    call TEXT NOT NULL,
    message TEXT NOT NULL,
    encoding TEXT NOT NULL,
    outcome TEXT NOT NULL,
    PRIMARY KEY (chain, call)
) STRICT;

CREATE TABLE replies (
    chain INTEGER NOT NULL REFERENCES runs (chain),
    turn INTEGER NOT NULL,
    transcript_before TEXT NOT NULL,
    appended TEXT NOT NULL,
    transcript_after TEXT NOT NULL,
    encoding TEXT NOT NULL,
    reply TEXT NOT NULL,
    PRIMARY KEY (chain, turn)
) STRICT;

CREATE TABLE requests (
    chain INTEGER NOT NULL REFERENCES runs (chain),
    request TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    call TEXT NOT NULL,
    gate_id TEXT NOT NULL,
    arguments TEXT NOT NULL,
    gate TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'approved', 'rejected', 'expired', 'withdrawn', 'consumed')),
    PRIMARY KEY (chain, request),
    UNIQUE (chain, ordinal)
) STRICT;

-- One live request for one question: gate, call and arguments.
CREATE UNIQUE INDEX requests_live ON requests (chain, call, gate_id, arguments) WHERE state IN ('open', 'approved');

CREATE TABLE votes (
    chain INTEGER NOT NULL,
    request TEXT NOT NULL,
    person TEXT NOT NULL,
    PRIMARY KEY (chain, request, person),
    FOREIGN KEY (chain, request) REFERENCES requests (chain, request)
) STRICT;
