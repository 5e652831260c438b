"""What the clocks showed last, and when the machine's was set."""

revision = "0005"
down_revision = "0004"

SCHEMA = """
CREATE TABLE clock (id INTEGER NOT NULL PRIMARY KEY, spool_at INTEGER NOT NULL, wall_at INTEGER NOT NULL);
CREATE TABLE step (
    id INTEGER NOT NULL PRIMARY KEY, spool_at INTEGER NOT NULL, was_at INTEGER NOT NULL, now_at INTEGER NOT NULL,
    attempt_id INTEGER NOT NULL)
"""


def upgrade() -> None:
    from alembic import op

    for statement in SCHEMA.split(";"):
        op.execute(statement)
