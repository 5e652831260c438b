"""What each connection of ours is like, whatever server, database or role have set for the programs of others.

Nobody waits for a lock for ever: one that is held for longer than 5 seconds is one of somebody who hangs.
https://www.postgresql.org/docs/current/runtime-config-client.html. ``default_transaction_read_only`` is left as it is:
who sets that wants nothing written. So is ``search_path``.
"""

from __future__ import annotations

TERMS = """
SELECT set_config(s.name, wanted.value, false) FROM pg_settings AS s JOIN (VALUES
    ('default_transaction_isolation', 'read committed'),
    ('standard_conforming_strings', 'on'),
    ('statement_timeout', '0'),
    ('transaction_timeout', '0'),
    ('lock_timeout', '5000'),
    ('idle_session_timeout', '0'),
    ('idle_in_transaction_session_timeout', '0')
) AS wanted (name, value) ON s.name = wanted.name AND s.setting <> wanted.value"""  # some are of newer servers only
ENCODING = "UTF8"
