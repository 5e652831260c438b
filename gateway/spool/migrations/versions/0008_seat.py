"""What operators look at and do: refusals, acts, checks, sign-ins."""

revision = "0008"
down_revision = "0007"

_LASTUSE = """
CREATE TABLE lastuse (
    kind VARCHAR NOT NULL, name VARCHAR NOT NULL, at INTEGER NOT NULL, peer VARCHAR NOT NULL, days INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID"""

_REFUSAL = """
CREATE TABLE refusal (
    id INTEGER NOT NULL PRIMARY KEY, first_at INTEGER NOT NULL, last_at INTEGER NOT NULL, count INTEGER NOT NULL,
    listener VARCHAR NOT NULL, stage VARCHAR NOT NULL, reason VARCHAR NOT NULL, peer VARCHAR NOT NULL,
    near BOOLEAN NOT NULL, mixed BOOLEAN NOT NULL, helo VARCHAR NOT NULL, tls VARCHAR NOT NULL,
    client VARCHAR NOT NULL, "user" VARCHAR NOT NULL, sender VARCHAR NOT NULL, recipients VARCHAR NOT NULL,
    size INTEGER NOT NULL, code INTEGER NOT NULL, enhanced VARCHAR NOT NULL, text VARCHAR NOT NULL,
    detail VARCHAR NOT NULL
);
CREATE INDEX refusal_by_last ON refusal (last_at, reason, count, first_at)
"""
# The counts begin with what is known: so they add up from the first hour on.
_TALLY = """
CREATE TABLE tally (
    hour_at INTEGER NOT NULL, listener VARCHAR NOT NULL, client VARCHAR NOT NULL, backend VARCHAR NOT NULL,
    accepted INTEGER NOT NULL, again INTEGER NOT NULL, sent INTEGER NOT NULL, failed INTEGER NOT NULL,
    deleted INTEGER NOT NULL, deferred INTEGER NOT NULL, refused INTEGER NOT NULL,
    PRIMARY KEY (hour_at, listener, client, backend)
) WITHOUT ROWID;
INSERT INTO tally
SELECT at / 3600000000 * 3600000000, listener, client, '', sum(came), 0, sum(sent), sum(failed), 0, 0, 0
FROM (
    SELECT received_at AS at, listener, client, 1 AS came, 0 AS sent, 0 AS failed FROM message
    UNION ALL
    SELECT coalesce(finished_at, received_at), listener, client, 0, state = 'done', state = 'failed' FROM message
    WHERE state IN ('done', 'failed'))
GROUP BY 1, 2, 3
"""
_ACT = """
CREATE TABLE act (
    id INTEGER NOT NULL PRIMARY KEY, made_at INTEGER NOT NULL, spool_at INTEGER NOT NULL, name VARCHAR NOT NULL,
    way VARCHAR NOT NULL, verb VARCHAR NOT NULL, what VARCHAR NOT NULL, count INTEGER NOT NULL, named BOOLEAN NOT NULL);
CREATE TABLE act_message (
    act_id INTEGER NOT NULL, message_id VARCHAR NOT NULL, PRIMARY KEY (act_id, message_id)
) WITHOUT ROWID;
CREATE INDEX act_by_message ON act_message (message_id);
ALTER TABLE message ADD COLUMN how VARCHAR NOT NULL DEFAULT ''
"""
_CHECKED = """
CREATE TABLE checked (
    backend VARCHAR NOT NULL PRIMARY KEY, at INTEGER NOT NULL, who VARCHAR NOT NULL, ok BOOLEAN NOT NULL,
    summary VARCHAR NOT NULL, fix VARCHAR NOT NULL, facts VARCHAR NOT NULL, steps VARCHAR NOT NULL
);
DROP INDEX delivery_held;
CREATE INDEX delivery_held ON delivery (backend, in_doubt) WHERE state = 'held'
"""
_SIGNIN = """
CREATE TABLE signin (
    "key" VARCHAR NOT NULL PRIMARY KEY, kind VARCHAR NOT NULL, name VARCHAR NOT NULL, role VARCHAR NOT NULL,
    peer VARCHAR NOT NULL, made_at INTEGER NOT NULL, seen_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
    ended_at INTEGER
)
"""
_DIGEST = "CREATE INDEX bounce_for_digest ON bounce (id) WHERE reason = 'digest'"

_REST = """
CREATE TABLE rest (
    id INTEGER NOT NULL PRIMARY KEY, backend VARCHAR NOT NULL, since_at INTEGER NOT NULL, ended_at INTEGER,
    by VARCHAR NOT NULL, who VARCHAR NOT NULL, detail VARCHAR NOT NULL, fix VARCHAR NOT NULL
)"""
_ALERT = """
CREATE TABLE alert (key VARCHAR NOT NULL PRIMARY KEY, entry VARCHAR NOT NULL) WITHOUT ROWID"""

SCHEMA = ";".join((_ACT, _ALERT, _CHECKED, _DIGEST, _LASTUSE, _REFUSAL, _SIGNIN, _REST, _TALLY))


def upgrade() -> None:
    from alembic import op

    for statement in SCHEMA.split(";"):
        op.execute(statement)
