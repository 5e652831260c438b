"""A client's own token with its message, and what providers say of mail after they took it."""

revision = "0003"
down_revision = "0002"

SCHEMA = """
ALTER TABLE message ADD COLUMN sealed BLOB;
CREATE TABLE progress (
    id INTEGER NOT NULL PRIMARY KEY, message_id VARCHAR NOT NULL, backend VARCHAR NOT NULL, address VARCHAR NOT NULL,
    remote_id VARCHAR NOT NULL, state VARCHAR NOT NULL, detail VARCHAR NOT NULL, reported_at INTEGER NOT NULL,
    "key" VARCHAR NOT NULL, source VARCHAR NOT NULL,
    CONSTRAINT known_state CHECK (state IN ('queued', 'delivered', 'bounced', 'failed'))
);
CREATE UNIQUE INDEX progress_once ON progress (message_id, backend, remote_id, address, "key");
CREATE TABLE question (
    message_id VARCHAR NOT NULL, backend VARCHAR NOT NULL, remote_id VARCHAR NOT NULL, next_at INTEGER NOT NULL,
    asked INTEGER NOT NULL, PRIMARY KEY (message_id, backend, remote_id)
) WITHOUT ROWID;
CREATE INDEX question_due ON question (backend, next_at)
"""


def upgrade() -> None:
    from alembic import op

    for statement in SCHEMA.split(";"):
        op.execute(statement)
