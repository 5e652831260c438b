"""What operators look at and do: refusals, acts, checks, sign-ins."""

from alembic import op

revision = "0008"
down_revision = "0007"

SCHEMA: tuple[str, ...] = ()  # one text a table, its statements parted by ";"


def upgrade() -> None:
    for text in SCHEMA:
        for statement in text.split(";"):
            op.execute(statement)
