"""Several instances on one queue: who they are, who works which backend, and what all of them need to have."""

revision = "0012"
down_revision = "0011"

SCHEMA = """
CREATE TABLE backend (
    name VARCHAR NOT NULL, number INTEGER NOT NULL, owner VARCHAR NOT NULL DEFAULT '', paused BOOLEAN NOT NULL,
    paused_since INTEGER NOT NULL, paused_until INTEGER, paused_by VARCHAR NOT NULL,
    asked INTEGER NOT NULL DEFAULT 0, standing VARCHAR NOT NULL DEFAULT '', PRIMARY KEY (name)
) WITHOUT ROWID;
CREATE UNIQUE INDEX backend_by_number ON backend (number);
CREATE TABLE instance (
    name VARCHAR NOT NULL, number INTEGER NOT NULL, backends VARCHAR NOT NULL, settings VARCHAR NOT NULL,
    version VARCHAR NOT NULL, started_at INTEGER NOT NULL, beats INTEGER NOT NULL DEFAULT 0,
    "groups" INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (name)
) WITHOUT ROWID;
CREATE UNIQUE INDEX instance_by_number ON instance (number);
CREATE TABLE secret (
    name VARCHAR NOT NULL, sealed BLOB NOT NULL, changed_at INTEGER NOT NULL, PRIMARY KEY (name)
) WITHOUT ROWID;
CREATE TABLE cluster (id INTEGER NOT NULL PRIMARY KEY, key VARCHAR NOT NULL, made_at INTEGER NOT NULL)
"""


def upgrade() -> None:
    from alembic import op

    for statement in SCHEMA.split(";"):
        op.execute(statement)
