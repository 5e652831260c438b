"""What a message needs of the way it leaves by."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("ALTER TABLE message ADD COLUMN needs VARCHAR NOT NULL DEFAULT '?'")
