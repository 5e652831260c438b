"""What operators look at and do: refusals, acts, checks, sign-ins."""

from alembic import op

revision = "0008"
down_revision = "0007"

_LASTUSE = """
CREATE TABLE lastuse (
    kind VARCHAR NOT NULL, name VARCHAR NOT NULL, at INTEGER NOT NULL, peer VARCHAR NOT NULL, days INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID"""

SCHEMA: tuple[str, ...] = (_LASTUSE,)  # one text a table, its statements parted by ";"


def upgrade() -> None:
    for text in SCHEMA:
        for statement in text.split(";"):
            op.execute(statement)
