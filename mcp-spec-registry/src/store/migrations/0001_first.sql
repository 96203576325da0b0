-- Specifications: each version once, as it was given; only its status may change.
CREATE TABLE specifications (
    ordinal INTEGER PRIMARY KEY,
    spec_id TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE,
    verbatim TEXT NOT NULL,
    search_text TEXT NOT NULL,
    title TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('proposed', 'active', 'superseded')),
    added_by TEXT NOT NULL,
    reason TEXT,
    added_at TEXT NOT NULL,
    UNIQUE (spec_id, version)
) STRICT;
CREATE UNIQUE INDEX one_active_version ON specifications (spec_id) WHERE status = 'active';
CREATE TRIGGER specifications_keep_content BEFORE UPDATE OF
    ordinal, spec_id, version, digest, verbatim, search_text, title, added_by, reason, added_at ON specifications
BEGIN SELECT RAISE (ABORT, 'a specification version is immutable'); END;
CREATE TRIGGER specifications_stay BEFORE DELETE ON specifications
BEGIN SELECT RAISE (ABORT, 'a specification version is immutable'); END;

-- The newest version of each specification, and its words.
CREATE TABLE newest_specifications (
    spec_id TEXT PRIMARY KEY,
    ordinal INTEGER NOT NULL REFERENCES specifications (ordinal)
) STRICT;
CREATE VIRTUAL TABLE specification_words USING fts5 (
    spec_id, title, search_text,
    content = '', contentless_delete = 1, tokenize = 'porter unicode61 remove_diacritics 2'
);

CREATE TABLE runs (
    run_id TEXT PRIMARY KEY,
    spec_id TEXT NOT NULL,
    spec_version TEXT NOT NULL,
    spec_digest TEXT NOT NULL REFERENCES specifications (digest),
    environment TEXT NOT NULL,
    requester TEXT NOT NULL,
    state TEXT NOT NULL,
    rev INTEGER NOT NULL,
    paused INTEGER NOT NULL,
    claimant TEXT,
    epoch INTEGER NOT NULL,
    lease_until TEXT,
    plan_revision INTEGER NOT NULL,
    plan_digest TEXT,
    cycle INTEGER NOT NULL,
    report TEXT,
    rejections INTEGER NOT NULL,
    clarifications INTEGER NOT NULL,
    closed_reason TEXT,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX one_open_run ON runs (spec_id, environment)
    WHERE state NOT IN ('validated', 'rejected', 'expired', 'failed', 'cancelled', 'aborted');
CREATE INDEX runs_by_state ON runs (state, run_id);
CREATE INDEX runs_by_specification ON runs (spec_id, run_id);
CREATE TRIGGER runs_keep_what_was_requested BEFORE UPDATE OF
    run_id, spec_id, spec_version, spec_digest, environment, requester, created_at ON runs
WHEN OLD.run_id IS NOT NEW.run_id OR OLD.spec_id IS NOT NEW.spec_id OR OLD.spec_version IS NOT NEW.spec_version
    OR OLD.spec_digest IS NOT NEW.spec_digest OR OLD.environment IS NOT NEW.environment
    OR OLD.requester IS NOT NEW.requester OR OLD.created_at IS NOT NEW.created_at
BEGIN SELECT RAISE (ABORT, 'what was requested is immutable'); END;
CREATE TRIGGER runs_never_go_back BEFORE UPDATE ON runs WHEN NEW.rev <= OLD.rev OR NEW.epoch < OLD.epoch
BEGIN SELECT RAISE (ABORT, 'the revision of a run must rise and its epoch must not fall'); END;
CREATE TRIGGER runs_stay BEFORE DELETE ON runs
BEGIN SELECT RAISE (ABORT, 'a run stays on record'); END;

CREATE TABLE plan_bodies (digest TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TRIGGER plan_bodies_keep BEFORE UPDATE ON plan_bodies
BEGIN SELECT RAISE (ABORT, 'a plan is immutable'); END;
CREATE TRIGGER plan_bodies_stay BEFORE DELETE ON plan_bodies
BEGIN SELECT RAISE (ABORT, 'a plan is immutable'); END;

CREATE TABLE plans (
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    revision INTEGER NOT NULL,
    digest TEXT NOT NULL REFERENCES plan_bodies (digest),
    author TEXT NOT NULL,
    signature TEXT NOT NULL,
    submitted_at TEXT NOT NULL,
    PRIMARY KEY (run_id, revision)
) STRICT;
CREATE TRIGGER plans_keep BEFORE UPDATE ON plans
BEGIN SELECT RAISE (ABORT, 'a plan is immutable'); END;
CREATE TRIGGER plans_stay BEFORE DELETE ON plans
BEGIN SELECT RAISE (ABORT, 'a plan is immutable'); END;

CREATE TABLE checkpoints (
    ordinal INTEGER PRIMARY KEY,
    checkpoint_id TEXT NOT NULL UNIQUE,
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    kind TEXT NOT NULL,
    subject_digest TEXT NOT NULL,
    revision INTEGER NOT NULL,
    state TEXT NOT NULL,
    nonce TEXT NOT NULL,
    note TEXT,
    opened_by TEXT NOT NULL,
    opened_at TEXT NOT NULL,
    expires_at TEXT NOT NULL
) STRICT;
CREATE INDEX checkpoints_by_run ON checkpoints (run_id);
CREATE INDEX open_checkpoints ON checkpoints (opened_by) WHERE state = 'open';
CREATE TRIGGER checkpoints_keep_the_question BEFORE UPDATE ON checkpoints
WHEN OLD.checkpoint_id IS NOT NEW.checkpoint_id OR OLD.run_id IS NOT NEW.run_id OR OLD.kind IS NOT NEW.kind
    OR OLD.subject_digest IS NOT NEW.subject_digest OR OLD.revision IS NOT NEW.revision OR OLD.nonce IS NOT NEW.nonce
    OR OLD.note IS NOT NEW.note
    OR OLD.opened_by IS NOT NEW.opened_by OR OLD.opened_at IS NOT NEW.opened_at OR OLD.expires_at IS NOT NEW.expires_at
BEGIN SELECT RAISE (ABORT, 'only the state of a checkpoint may change'); END;
CREATE TRIGGER checkpoints_close_once BEFORE UPDATE ON checkpoints WHEN OLD.state <> 'open'
BEGIN SELECT RAISE (ABORT, 'a closed checkpoint stays closed'); END;
CREATE TRIGGER checkpoints_stay BEFORE DELETE ON checkpoints
BEGIN SELECT RAISE (ABORT, 'a checkpoint stays on record'); END;

CREATE TABLE decisions (
    ordinal INTEGER PRIMARY KEY,
    decision_id TEXT NOT NULL UNIQUE,
    checkpoint_id TEXT NOT NULL UNIQUE REFERENCES checkpoints (checkpoint_id),
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    verdict TEXT NOT NULL,
    reason TEXT NOT NULL,
    reason_code TEXT,
    is_final INTEGER NOT NULL,
    return_to TEXT,
    approver TEXT NOT NULL,
    assurance TEXT NOT NULL,
    subject_digest TEXT NOT NULL,
    accepted_unknown TEXT NOT NULL,
    enrolment_id TEXT NOT NULL,
    approver_uid INTEGER,
    decided_at TEXT NOT NULL,
    first_viewed_at TEXT,
    begun_at TEXT,
    signature TEXT NOT NULL
) STRICT;
CREATE INDEX decisions_by_run ON decisions (run_id);
CREATE TRIGGER decisions_keep BEFORE UPDATE ON decisions
WHEN OLD.decision_id IS NOT NEW.decision_id OR OLD.checkpoint_id IS NOT NEW.checkpoint_id
    OR OLD.run_id IS NOT NEW.run_id OR OLD.verdict IS NOT NEW.verdict OR OLD.reason IS NOT NEW.reason
    OR OLD.reason_code IS NOT NEW.reason_code OR OLD.is_final IS NOT NEW.is_final
    OR OLD.return_to IS NOT NEW.return_to OR OLD.approver IS NOT NEW.approver OR OLD.assurance IS NOT NEW.assurance
    OR OLD.subject_digest IS NOT NEW.subject_digest OR OLD.accepted_unknown IS NOT NEW.accepted_unknown
    OR OLD.enrolment_id IS NOT NEW.enrolment_id
    OR OLD.approver_uid IS NOT NEW.approver_uid OR OLD.decided_at IS NOT NEW.decided_at
    OR OLD.first_viewed_at IS NOT NEW.first_viewed_at OR OLD.signature IS NOT NEW.signature
    OR (OLD.begun_at IS NOT NULL AND OLD.begun_at IS NOT NEW.begun_at)
BEGIN SELECT RAISE (ABORT, 'a decision is immutable but for the time it was first used'); END;
CREATE TRIGGER decisions_stay BEFORE DELETE ON decisions
BEGIN SELECT RAISE (ABORT, 'a decision is immutable'); END;

CREATE TABLE grants (
    ordinal INTEGER PRIMARY KEY,
    handle_sha256 TEXT NOT NULL UNIQUE,
    short TEXT NOT NULL,
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    step_id TEXT NOT NULL,
    plan_digest TEXT NOT NULL,
    principal TEXT NOT NULL,
    service TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    uses_left INTEGER NOT NULL,
    expires_at TEXT NOT NULL,
    revoked INTEGER NOT NULL
) STRICT;
CREATE INDEX grants_by_run ON grants (run_id);
CREATE TRIGGER grants_keep BEFORE UPDATE ON grants
WHEN OLD.handle_sha256 IS NOT NEW.handle_sha256 OR OLD.run_id IS NOT NEW.run_id OR OLD.step_id IS NOT NEW.step_id
    OR OLD.plan_digest IS NOT NEW.plan_digest OR OLD.principal IS NOT NEW.principal OR OLD.service IS NOT NEW.service
    OR OLD.epoch IS NOT NEW.epoch OR OLD.expires_at IS NOT NEW.expires_at OR NEW.uses_left > OLD.uses_left
    OR NEW.revoked < OLD.revoked
BEGIN SELECT RAISE (ABORT, 'a handle can only lose uses or be revoked'); END;

CREATE TABLE actions (
    ordinal INTEGER PRIMARY KEY,
    action_id TEXT NOT NULL UNIQUE,
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    step_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    cycle INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    service TEXT NOT NULL,
    instance TEXT NOT NULL,
    principal TEXT NOT NULL,
    tool TEXT NOT NULL,
    arguments_sha256 TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    lifetime TEXT NOT NULL,
    begun_at TEXT NOT NULL,
    ended_at TEXT,
    outcome TEXT,
    error_code TEXT,
    result_sha256 TEXT,
    session TEXT,
    published TEXT NOT NULL,
    artefacts TEXT NOT NULL,
    UNIQUE (service, idempotency_key)
) STRICT;
-- Whole for the question which steps are done: it is asked before each call.
CREATE INDEX actions_by_run ON actions (run_id, revision, cycle, outcome, step_id);
CREATE INDEX actions_open ON actions (service) WHERE outcome IS NULL;
CREATE TRIGGER actions_keep_the_intent BEFORE UPDATE ON actions
WHEN OLD.action_id IS NOT NEW.action_id OR OLD.run_id IS NOT NEW.run_id OR OLD.step_id IS NOT NEW.step_id
    OR OLD.revision IS NOT NEW.revision OR OLD.cycle IS NOT NEW.cycle OR OLD.epoch IS NOT NEW.epoch
    OR OLD.service IS NOT NEW.service OR OLD.instance IS NOT NEW.instance
    OR OLD.principal IS NOT NEW.principal OR OLD.tool IS NOT NEW.tool
    OR OLD.arguments_sha256 IS NOT NEW.arguments_sha256 OR OLD.idempotency_key IS NOT NEW.idempotency_key
    OR OLD.begun_at IS NOT NEW.begun_at
BEGIN SELECT RAISE (ABORT, 'an intent is immutable'); END;
CREATE TRIGGER actions_stay BEFORE DELETE ON actions
BEGIN SELECT RAISE (ABORT, 'an action stays on record'); END;

CREATE TABLE evaluations (
    ordinal INTEGER PRIMARY KEY,
    evaluation_id TEXT NOT NULL UNIQUE,
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    revision INTEGER NOT NULL,
    test_index INTEGER NOT NULL,
    criterion TEXT NOT NULL,
    phase TEXT NOT NULL,
    round INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    measured TEXT NOT NULL,
    reason TEXT,
    evidence TEXT NOT NULL,
    evidence_sha256 TEXT NOT NULL,
    measured_by TEXT NOT NULL,
    measured_at TEXT NOT NULL
) STRICT;
CREATE INDEX evaluations_by_run ON evaluations (run_id);
CREATE TRIGGER evaluations_keep BEFORE UPDATE ON evaluations
BEGIN SELECT RAISE (ABORT, 'a measurement is immutable'); END;
CREATE TRIGGER evaluations_stay BEFORE DELETE ON evaluations
BEGIN SELECT RAISE (ABORT, 'a measurement is immutable'); END;

CREATE TABLE rationales (
    ordinal INTEGER PRIMARY KEY,
    rationale_id TEXT NOT NULL UNIQUE,
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    agent TEXT NOT NULL,
    question TEXT NOT NULL,
    options TEXT NOT NULL,
    chosen TEXT NOT NULL,
    why TEXT NOT NULL,
    recorded_at TEXT NOT NULL
) STRICT;
CREATE INDEX rationales_by_run ON rationales (run_id);
CREATE TRIGGER rationales_keep BEFORE UPDATE ON rationales
BEGIN SELECT RAISE (ABORT, 'a rationale is immutable'); END;
CREATE TRIGGER rationales_stay BEFORE DELETE ON rationales
BEGIN SELECT RAISE (ABORT, 'a rationale is immutable'); END;

CREATE TABLE agents (
    name TEXT PRIMARY KEY,
    description TEXT NOT NULL,
    persona TEXT,
    registered_at TEXT NOT NULL
) STRICT;

CREATE TABLE approvers (
    name TEXT PRIMARY KEY,
    secret_hash TEXT NOT NULL,
    is_test INTEGER NOT NULL,
    enrolment_id TEXT NOT NULL,
    enrolled_at TEXT NOT NULL,
    signature TEXT NOT NULL
) STRICT;
-- Decisions of a test approver must never stand beside those of people.
CREATE TRIGGER approvers_are_all_of_one_kind BEFORE INSERT ON approvers
WHEN EXISTS (SELECT 1 FROM approvers WHERE is_test <> NEW.is_test AND name <> NEW.name)
BEGIN SELECT RAISE (ABORT, 'test approvers and real ones cannot exist beside each other'); END;

CREATE TABLE tokens (
    token_sha256 TEXT PRIMARY KEY,
    principal TEXT NOT NULL,
    kind TEXT NOT NULL,
    server TEXT,
    created_at TEXT NOT NULL,
    revoked INTEGER NOT NULL
) STRICT;

CREATE TABLE services (
    name TEXT PRIMARY KEY,
    instance TEXT NOT NULL,
    version TEXT NOT NULL,
    uid INTEGER,
    tools TEXT NOT NULL,
    last_seq INTEGER NOT NULL,
    said_hello_at TEXT NOT NULL
) STRICT;

CREATE TABLE answers (
    principal TEXT NOT NULL,
    key TEXT NOT NULL,
    request_sha256 TEXT NOT NULL,
    answer TEXT NOT NULL,
    PRIMARY KEY (principal, key)
) STRICT;

-- The audit: entries, what they say, and signed heads. A payload may be deleted; an entry records that it was.
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    payload_sha256 TEXT NOT NULL,
    prev TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
CREATE TABLE audit_payloads (
    seq INTEGER PRIMARY KEY REFERENCES audit (seq),
    salt TEXT NOT NULL,
    json TEXT NOT NULL
) STRICT;
CREATE TABLE audit_heads (
    seq INTEGER PRIMARY KEY REFERENCES audit (seq),
    hash TEXT NOT NULL,
    signature TEXT NOT NULL
) STRICT;
-- One row: the newest head, signed at every commit.
CREATE TABLE audit_tip (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    seq INTEGER NOT NULL REFERENCES audit (seq),
    hash TEXT NOT NULL,
    signature TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_keeps BEFORE UPDATE ON audit
BEGIN SELECT RAISE (ABORT, 'an audit entry is immutable'); END;
CREATE TRIGGER audit_stays BEFORE DELETE ON audit
BEGIN SELECT RAISE (ABORT, 'an audit entry is immutable'); END;
CREATE TRIGGER audit_payloads_keep BEFORE UPDATE ON audit_payloads
BEGIN SELECT RAISE (ABORT, 'an audit payload is immutable'); END;
CREATE TRIGGER audit_heads_keep BEFORE UPDATE ON audit_heads
BEGIN SELECT RAISE (ABORT, 'a signed head is immutable'); END;
CREATE TRIGGER audit_heads_stay BEFORE DELETE ON audit_heads
BEGIN SELECT RAISE (ABORT, 'a signed head is immutable'); END;
