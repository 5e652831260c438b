"""What is wished for at an instance that does not work a backend, and what came of it."""

revision = "0013"
down_revision = "0012"

SCHEMA = "ALTER TABLE backend ADD COLUMN wanted VARCHAR NOT NULL DEFAULT ''"
POSTGRESQL = """ALTER TABLE backend ADD COLUMN wanted TEXT COLLATE "C" NOT NULL DEFAULT ''"""


def upgrade() -> None:
    from alembic import op

    op.execute(SCHEMA)
