"""All that routing needs to know of a message, who made an attempt, and of each answer who gave it and what to do."""

revision = "0004"
down_revision = "0003"

SCHEMA = """
ALTER TABLE message RENAME COLUMN needs TO features;
ALTER TABLE message ADD COLUMN authors VARCHAR NOT NULL DEFAULT '[]';
UPDATE message SET authors = json_array(header_from) WHERE finished_at IS NULL AND header_from <> '';
ALTER TABLE attempt ADD COLUMN owner VARCHAR NOT NULL DEFAULT '';
ALTER TABLE attempt ADD COLUMN scope VARCHAR NOT NULL DEFAULT '';
ALTER TABLE attempt ADD COLUMN said_by VARCHAR NOT NULL DEFAULT '';
ALTER TABLE attempt ADD COLUMN fix VARCHAR NOT NULL DEFAULT '';
ALTER TABLE recipient ADD COLUMN scope VARCHAR NOT NULL DEFAULT '';
ALTER TABLE recipient ADD COLUMN said_by VARCHAR NOT NULL DEFAULT '';
ALTER TABLE recipient ADD COLUMN fix VARCHAR NOT NULL DEFAULT '';
DROP INDEX message_with_body;
CREATE INDEX message_with_body ON message (state, finished_at) WHERE has_body AND finished_at IS NOT NULL;
DROP INDEX progress_once;
ALTER TABLE progress RENAME TO event;
CREATE UNIQUE INDEX event_once ON event (message_id, backend, remote_id, address, "key");
DROP INDEX question_due;
ALTER TABLE question RENAME TO poll;
CREATE INDEX poll_due ON poll (backend, next_at)
"""


def upgrade() -> None:
    from alembic import op

    for statement in SCHEMA.split(";"):
        op.execute(statement)
