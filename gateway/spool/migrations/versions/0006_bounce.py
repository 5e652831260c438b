"""What senders were told of their mail, and why not."""

revision = "0006"
down_revision = "0005"

SCHEMA = """
CREATE TABLE bounce (
    id INTEGER NOT NULL PRIMARY KEY, message_id VARCHAR NOT NULL, kind VARCHAR NOT NULL, bounce_id VARCHAR NOT NULL,
    reason VARCHAR NOT NULL, made_at INTEGER NOT NULL);
CREATE INDEX bounce_of_message ON bounce (message_id)
"""


def upgrade() -> None:
    from alembic import op

    for statement in SCHEMA.split(";"):
        op.execute(statement)
