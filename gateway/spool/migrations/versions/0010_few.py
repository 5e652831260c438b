"""Deliveries are clustered by message, and an attempt that is under way stands with its delivery: fewer B-trees."""

revision = "0010"
down_revision = "0009"

STEPS = {"message": 20, "delivery": 110, "attempt": 20}  # of SQLite's machine for each row
SCHEMA = """
CREATE TABLE delivery_anew (
    message_id VARCHAR NOT NULL, backend VARCHAR NOT NULL, n INTEGER NOT NULL, state VARCHAR NOT NULL,
    next_attempt_at INTEGER NOT NULL, received_at INTEGER NOT NULL, attempts INTEGER NOT NULL,
    sticky BOOLEAN NOT NULL, in_doubt INTEGER NOT NULL, attempt_id INTEGER, started_at INTEGER,
    addresses VARCHAR NOT NULL DEFAULT '', owner VARCHAR NOT NULL DEFAULT '', PRIMARY KEY (message_id, backend),
    CONSTRAINT known_state CHECK (state IN ('queued', 'held', 'done'))
) WITHOUT ROWID;
INSERT INTO delivery_anew
SELECT d.message_id, d.backend, d.id, d.state, d.next_attempt_at, d.received_at, d.attempts, d.sticky, d.in_doubt,
    a.id, a.started_at, coalesce(a.addresses, ''), coalesce(a.owner, '')
FROM delivery d LEFT JOIN attempt a ON a.id = (
    SELECT max(o.id) FROM attempt o WHERE o.delivery_id = d.id AND o.ended_at IS NULL)
ORDER BY d.message_id, d.backend;
DROP TABLE delivery;
ALTER TABLE delivery_anew RENAME TO delivery;
CREATE INDEX delivery_due ON delivery (backend, next_attempt_at, attempt_id, state) WHERE state = 'queued';
CREATE INDEX delivery_oldest ON delivery (backend, received_at, message_id) WHERE state = 'queued';
CREATE INDEX delivery_held ON delivery (backend, in_doubt, received_at, state) WHERE state = 'held';
CREATE INDEX delivery_astray ON delivery (attempt_id) WHERE attempt_id IS NOT NULL AND state <> 'queued';
DELETE FROM attempt WHERE ended_at IS NULL;
DROP INDEX attempt_open;
DROP INDEX message_by_state;
DROP INDEX message_by_expiry;
CREATE INDEX message_open ON message (id, state, expires_at, finished_at) WHERE finished_at IS NULL;
CREATE INDEX message_by_state ON message (state) WHERE state <> 'queued';
ALTER TABLE attempt DROP COLUMN delivery_id
"""


def upgrade() -> None:
    from alembic import op

    for statement in SCHEMA.split(";"):
        op.execute(statement)
