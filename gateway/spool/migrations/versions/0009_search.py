"""Mail is found by domain, client, peer, and by what it is a second copy of."""

revision = "0009"
down_revision = "0008"

STEPS = {"message": 90, "recipient": 90}  # of SQLite's machine for each row
SCHEMA = """
ALTER TABLE message ADD COLUMN resend_of VARCHAR NOT NULL DEFAULT '';
CREATE INDEX message_by_client ON message (client, id, peer);
CREATE INDEX message_by_resend ON message (resend_of) WHERE resend_of <> ''
"""
_KNOWN = """
UPDATE message SET sender_key = key_of(sender), original_key = key_of(original);
UPDATE recipient SET key = key_of(address)
"""


def upgrade() -> None:
    from alembic import op

    from gateway.spool.connecting import driver
    from gateway.spool.keys import key_of

    driver(op.get_bind()).create_function("key_of", 1, key_of, deterministic=True)
    for statement in f"{SCHEMA};{_KNOWN}".split(";"):
        op.execute(statement)
