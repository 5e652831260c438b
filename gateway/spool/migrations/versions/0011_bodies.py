"""A large body may lie in a segment, a file of its own: which one, where in it, and how long."""

revision = "0011"
down_revision = "0010"

SCHEMA = """
ALTER TABLE body ADD COLUMN segment INTEGER NOT NULL DEFAULT 0;
ALTER TABLE body ADD COLUMN start INTEGER NOT NULL DEFAULT 0;
ALTER TABLE body ADD COLUMN length INTEGER NOT NULL DEFAULT 0;
CREATE INDEX body_by_segment ON body (segment, start, length) WHERE segment > 0
"""


def upgrade() -> None:
    from alembic import op

    for statement in SCHEMA.split(";"):
        op.execute(statement)
