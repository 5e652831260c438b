"""Who stood where a sender was rewritten, and a way to find mail by it."""

revision = "0007"
down_revision = "0006"

SCHEMA = """
ALTER TABLE message ADD COLUMN original VARCHAR NOT NULL DEFAULT '';
ALTER TABLE message ADD COLUMN original_key VARCHAR NOT NULL DEFAULT '';
CREATE INDEX message_by_original ON message (original_key) WHERE original_key <> ''
"""


def upgrade() -> None:
    from alembic import op

    for statement in SCHEMA.split(";"):
        op.execute(statement)
