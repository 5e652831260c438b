"""A real Postfix, stock but for its private directories and one port; the system's own is not touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.kit import started
from tests.flow.kit import free_port

_DAEMONS = Path("/usr/lib/postfix/sbin")
_MAIN = """\
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
command_directory = /usr/sbin
daemon_directory = {daemons}
maillog_file = {home}/mail.log
maillog_file_prefixes = {home}
myhostname = postfix.test
mydestination =
local_recipient_maps =
alias_maps =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_recipient_restrictions = permit_mynetworks, reject
"""
_RELAY = "relayhost = [127.0.0.1]:{port}\n"
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""
_QMGR = "qmgr unix n - n 300 1 qmgr\n"
_QUEUES = "active bounce corrupt defer deferred flush hold incoming maildrop pid private public saved trace"


@dataclass(frozen=True)
class Postfix:
    home: Path
    port: int

    def take_away(self) -> int:
        """Empties the incoming queue; returns how many messages were in it."""
        files = list((self.home / "queue" / "incoming").iterdir())
        for file in files:
            file.unlink()
        return len(files)

    def logged(self, words: str) -> int:
        return (self.home / "mail.log").read_text().count(words)


@contextmanager
def postfix(home: Path, *, relayhost: int | None = None) -> Iterator[Postfix]:
    """Only accepts, for want of a queue manager, or hands on to the local port ``relayhost``. Features root."""
    port = free_port()
    for name in ("etc", "data", *(f"queue/{queue}" for queue in _QUEUES.split())):
        (home / name).mkdir(parents=True)
        if name == "data" or (name.startswith("queue/") and name != "queue/pid"):
            shutil.chown(home / name, "postfix")
    shutil.chown(home / "queue/public", "postfix", "postdrop")
    (home / "queue/public").chmod(0o710)
    main, master = _MAIN.format(home=home, daemons=_DAEMONS), _MASTER.format(port=port)
    if relayhost is None:
        main += "in_flow_delay = 0\n"  # else cleanup waits for the queue manager to keep up
        os.mkfifo(home / "queue/public/qmgr")  # nobody reads it: cleanup's call for the queue manager fails silently
    else:
        main, master = main + _RELAY.format(port=relayhost), master + _QMGR
    (home / "etc" / "main.cf").write_text(main)
    (home / "etc" / "master.cf").write_text(master)
    # -d: stay in the foreground, so that it ends with us
    with started([str(_DAEMONS / "master"), "-c", str(home / "etc"), "-d"], port):
        yield Postfix(home, port)
