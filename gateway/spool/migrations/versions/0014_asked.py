"""Who was asked for where somebody else gets the mail, and a way to find mail by it."""

revision = "0014"
down_revision = "0013"

SCHEMA = """
CREATE TABLE asked (
    message_id VARCHAR NOT NULL, n INTEGER NOT NULL, address VARCHAR NOT NULL, "key" VARCHAR NOT NULL,
    became VARCHAR NOT NULL, why VARCHAR NOT NULL, rule VARCHAR NOT NULL, PRIMARY KEY (message_id, n)
) WITHOUT ROWID;
CREATE INDEX asked_by_key ON asked ("key")
"""
_TEXT = 'TEXT COLLATE "C" NOT NULL'
POSTGRESQL = f"""
CREATE TABLE asked (
    message_id {_TEXT}, n BIGINT NOT NULL, address {_TEXT}, key {_TEXT},
    became {_TEXT}, why {_TEXT}, rule {_TEXT}, PRIMARY KEY (message_id, n)
);
CREATE INDEX asked_by_key ON asked (key)
"""


def upgrade() -> None:
    from alembic import op

    for statement in SCHEMA.split(";"):
        op.execute(statement)
