"""The first schema."""

revision = "0001"
down_revision = None

SCHEMA = """
CREATE TABLE message (
    id VARCHAR NOT NULL PRIMARY KEY, state VARCHAR NOT NULL, sender VARCHAR NOT NULL, sender_key VARCHAR NOT NULL,
    message_id VARCHAR NOT NULL, header_from VARCHAR NOT NULL, client VARCHAR NOT NULL, login VARCHAR NOT NULL,
    listener VARCHAR NOT NULL, peer VARCHAR NOT NULL, pin VARCHAR NOT NULL, ret VARCHAR NOT NULL,
    envid VARCHAR NOT NULL, smtputf8 BOOLEAN NOT NULL, eightbit BOOLEAN NOT NULL, bounce BOOLEAN NOT NULL,
    delay_notified BOOLEAN NOT NULL, has_body BOOLEAN NOT NULL, size INTEGER NOT NULL, checksum INTEGER NOT NULL,
    received_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, finished_at INTEGER,
    CONSTRAINT known_state CHECK (state IN ('queued', 'held', 'done', 'failed', 'corrupt'))
) WITHOUT ROWID;
CREATE INDEX message_by_state ON message (state);
CREATE INDEX message_by_message_id ON message (message_id);
CREATE INDEX message_by_sender ON message (sender_key);
CREATE INDEX message_by_expiry ON message (expires_at) WHERE finished_at IS NULL;
CREATE INDEX message_by_finish ON message (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX message_with_body ON message (state, finished_at) WHERE has_body = 1 AND finished_at IS NOT NULL;
CREATE TABLE body (message_id VARCHAR NOT NULL PRIMARY KEY, raw BLOB NOT NULL);
CREATE TABLE recipient (
    message_id VARCHAR NOT NULL, address VARCHAR NOT NULL, n INTEGER NOT NULL, "key" VARCHAR NOT NULL,
    backend VARCHAR NOT NULL, state VARCHAR NOT NULL, notify VARCHAR NOT NULL, orcpt VARCHAR NOT NULL,
    verdict VARCHAR NOT NULL, code INTEGER, enhanced VARCHAR NOT NULL, detail VARCHAR NOT NULL,
    remote_id VARCHAR NOT NULL, updated_at INTEGER NOT NULL, PRIMARY KEY (message_id, address),
    CONSTRAINT known_state CHECK (state IN ('queued', 'held', 'sent', 'failed'))
) WITHOUT ROWID;
CREATE INDEX recipient_by_key ON recipient ("key");
CREATE TABLE delivery (
    id INTEGER NOT NULL PRIMARY KEY, message_id VARCHAR NOT NULL, backend VARCHAR NOT NULL, state VARCHAR NOT NULL,
    next_attempt_at INTEGER NOT NULL, received_at INTEGER NOT NULL, attempts INTEGER NOT NULL,
    sticky BOOLEAN NOT NULL, in_doubt INTEGER NOT NULL,
    CONSTRAINT known_state CHECK (state IN ('queued', 'held', 'done'))
);
CREATE UNIQUE INDEX delivery_of_message ON delivery (message_id, backend);
CREATE INDEX delivery_due ON delivery (backend, next_attempt_at) WHERE state = 'queued';
CREATE INDEX delivery_oldest ON delivery (backend, received_at) WHERE state = 'queued';
CREATE INDEX delivery_held ON delivery (backend) WHERE state = 'held';
CREATE TABLE attempt (
    id INTEGER NOT NULL PRIMARY KEY, message_id VARCHAR NOT NULL, delivery_id INTEGER NOT NULL,
    backend VARCHAR NOT NULL, addresses VARCHAR NOT NULL, started_at INTEGER NOT NULL, ended_at INTEGER,
    verdict VARCHAR NOT NULL, code INTEGER, enhanced VARCHAR NOT NULL, detail VARCHAR NOT NULL,
    remote_id VARCHAR NOT NULL
);
CREATE INDEX attempt_of_message ON attempt (message_id);
CREATE INDEX attempt_open ON attempt (delivery_id) WHERE ended_at IS NULL;
CREATE INDEX attempt_by_remote_id ON attempt (remote_id) WHERE remote_id <> '';
CREATE TABLE token (
    jti VARCHAR NOT NULL PRIMARY KEY, "key" VARCHAR NOT NULL, subject VARCHAR NOT NULL, note VARCHAR NOT NULL,
    issued_at INTEGER NOT NULL, expires_at INTEGER, revoked_at INTEGER
);
CREATE TABLE revocation (subject VARCHAR NOT NULL PRIMARY KEY, "before" INTEGER NOT NULL)
"""


def upgrade() -> None:
    from alembic import op

    for statement in SCHEMA.split(";"):
        op.execute(statement)
