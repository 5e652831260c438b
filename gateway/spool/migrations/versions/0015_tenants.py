"""Which client belonged to which tenant when, and for whom a log-in and an order were."""

revision = "0015"
down_revision = "0014"

SCHEMA = """
CREATE TABLE membership (
    client VARCHAR NOT NULL, since_at INTEGER NOT NULL, tenant VARCHAR NOT NULL, until_at INTEGER,
    PRIMARY KEY (client, since_at)
) WITHOUT ROWID;
ALTER TABLE act ADD COLUMN tenant VARCHAR NOT NULL DEFAULT '';
ALTER TABLE signin ADD COLUMN tenant VARCHAR NOT NULL DEFAULT ''
"""
_TEXT = 'TEXT COLLATE "C" NOT NULL'
POSTGRESQL = f"""
CREATE TABLE membership (
    client {_TEXT}, since_at BIGINT NOT NULL, tenant {_TEXT}, until_at BIGINT,
    PRIMARY KEY (client, since_at)
);
ALTER TABLE act ADD COLUMN tenant {_TEXT} DEFAULT '';
ALTER TABLE signin ADD COLUMN tenant {_TEXT} DEFAULT ''
"""


def upgrade() -> None:
    from alembic import op

    for statement in SCHEMA.split(";"):
        op.execute(statement)
