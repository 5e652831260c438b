"""What a message needs of the way it leaves by."""

revision = "0002"
down_revision = "0001"


SCHEMA = "ALTER TABLE message ADD COLUMN needs VARCHAR NOT NULL DEFAULT '?'"


def upgrade() -> None:
    from alembic import op

    op.execute(SCHEMA)
