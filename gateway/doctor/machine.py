"""The machine: clock, disk, descriptors, who can read secrets, who starts and watches the service."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from urllib.parse import urlsplit

from gateway import runtime
from gateway.config import ConfigError
from gateway.config.models import Settings
from gateway.doctor.facts import Facts, gather
from gateway.doctor.finding import Finding, finding
from gateway.doctor.subject import Subject
from gateway.fetch import Lost, NotSent
from gateway.pools import read_files
from gateway.url import is_loopback

_SPARE = 200  # descriptors beside those of connections: files, backends, commands
_NOTED, _WRONG = 30.0, 240.0  # seconds that clocks may differ; tokens are refused from 5 minutes on
_NETWORK_DISKS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs", "fuse.s3fs")
_LITTLE = 50_000_000  # octets
_MEMORY = ("tmpfs", "ramfs")
_LAYERS = ("overlay", "aufs")
_OPEN = re.compile(r"^(?P<file>.+?): every user of this machine can read .*?(?P<fix>chmod \d+)")
_ASKED = 3  # hosts whose clocks are compared with ours
_PATIENCE = 10.0  # seconds
_WEEK = timedelta(days=7)
Tell = Callable[[Finding], None]


async def look(subject: Subject, tell: Tell) -> None:
    facts = await read_files(partial(gather, subject.settings, subject.host, runtime.running()))
    for one in judge(facts, subject.settings, runs=subject.runs):
        tell(one)
    for one in await read_files(partial(_secrets, subject, facts)):
        tell(one)
    await asyncio.gather(_clocks(subject, facts, tell), _steps(subject, tell))


def judge(facts: Facts, settings: Settings, *, runs: bool) -> Iterator[Finding]:
    """What the facts come to. Some are the service's own, and say nothing of it where none ``runs``."""
    yield from _disk(facts, settings) if settings.spool.url is None else _keys(facts)
    yield _backups(facts, settings)
    if not runs:
        what = "descriptors, user, watchdog and admin socket are the service's own, and seen only while it runs"
        fix = "start it, then run the doctor again"
        yield Finding(
            key="needs_service",
            area="machine",
            level="unknown",
            what=what,
            fix=fix,
            paste="gateway doctor --area machine",
        )
        return
    yield _descriptors(facts, settings)
    yield _loop(facts, settings)
    yield _socket(facts)
    yield from _unit(facts)


def _disk(facts: Facts, settings: Settings) -> Iterator[Finding]:
    reserve = settings.limits.spool_free
    floor = int(reserve if reserve >= 1 else reserve * facts.total)
    shown = f"{facts.free / 1e9:.1f} GB of {facts.total / 1e9:.1f} GB are free on the disk of {facts.state_dir}"
    fix = "make room on that disk, or lower limits.spool_free"
    paste = f"du -xh --max-depth=2 {facts.mount or facts.state_dir} | sort -h | tail"
    whole = True
    if facts.free <= floor or not facts.inodes:
        why = "no file can be made (no inodes)" if not facts.inodes else f"limits.spool_free keeps {floor / 1e9:.1f} GB"
        yield finding("disk_full", "bad", f"{shown}, and {why}: no mail is accepted", fix, paste=paste)
        whole = False
    elif facts.free < 2 * floor or facts.free < 500_000_000:
        yield finding("disk_low", "warn", f"{shown}; below {floor / 1e9:.1f} GB no mail is accepted", fix, paste=paste)
        whole = False
    move = "put state_dir on a local disk, or on one that a volume brings"
    if facts.kind in _NETWORK_DISKS:
        what = f"{facts.state_dir} lies on a network's disk ({facts.kind}), where a power cut can cost accepted mail"
        yield finding("disk_kind", "bad", what, move, paste="state_dir: /var/lib/gateway")
    elif facts.kind in _MEMORY:
        what = f"{facts.state_dir} lies in memory ({facts.kind}): a restart of the machine loses all mail that waits"
        yield finding("disk_kind", "bad", what, move, paste="state_dir: /var/lib/gateway")
    elif facts.kind in _LAYERS:
        what = f"{facts.state_dir} lies in the container's own layer ({facts.kind}), which goes with the container"
        yield finding("disk_kind", "warn", what, move, paste=f"docker run -v gateway:{facts.state_dir} ...")
    elif whole:
        yield finding("disk_good", "good", f"{shown} ({facts.kind or 'kind not known'})")


def _keys(facts: Facts) -> Iterator[Finding]:
    """Mail is in a database; here lie keys, and what is captured or dropped as files."""
    shown = f"{facts.state_dir}, with spool.key and token.key,"
    if not facts.inodes or facts.free < _LITTLE:
        paste = f"du -xh --max-depth=2 {facts.mount or facts.state_dir} | sort -h | tail"
        yield finding("disk_low", "warn", f"{shown} lies on a disk without room", "make room there", paste=paste)
    elif facts.kind in (*_MEMORY, *_LAYERS):
        what = f"{shown} lies where a restart takes it away ({facts.kind}): then this instance is refused"
        yield finding(
            "disk_kind", "warn", what, "put state_dir on a disk that stays", paste="state_dir: /var/lib/gateway"
        )
    else:
        yield finding("disk_good", "good", f"mail is in a database; {facts.free / 1e9:.1f} GB are free beside the keys")


def _backups(facts: Facts, settings: Settings) -> Finding:
    """None are made by the gateway itself, so none is known."""
    if settings.spool.url is not None:
        what = "the gateway knows of no backup; worth one are settings, credentials, token.key and spool.key here, "
        keys = " ".join(f"{facts.state_dir}/{name}" for name in ("token.key", "spool.key"))
        paste = f"tar czf gateway-backup.tgz /etc/gateway {keys}"
        return finding("backup_unseen", "note", f"{what}and the database", "see docs/cluster.md", paste=paste)
    what = "the gateway knows of no backup; what is worth one are settings, credentials and token.key, not the queue"
    fix = "see Backups in docs/operations.md"
    paste = f"tar czf gateway-backup.tgz /etc/gateway {facts.state_dir}/token.key"
    return finding("backup_unseen", "note", what, fix, paste=paste)


def _descriptors(facts: Facts, settings: Settings) -> Finding:
    needed = settings.limits.connections + _SPARE
    if facts.descriptors and facts.descriptors < needed:
        what = f"the service may open {facts.descriptors} files, limits.connections needs about {needed}"
        fix = "allow it more, or lower limits.connections"
        paste = "systemctl edit gateway\n[Service]\nLimitNOFILE=65536"
        return finding("descriptors_few", "warn", what, fix, paste=paste)
    return finding("descriptors_good", "good", f"{facts.descriptors or 'any number of'} files may be open")


def _loop(facts: Facts, settings: Settings) -> Finding:
    if facts.loop != settings.event_loop:
        what = f"the service runs on the event loop {facts.loop}, and the settings want {settings.event_loop}"
        paste = "python3 -m pip --python /opt/gateway install uvloop\nsystemctl restart gateway"
        return finding("loop_missing", "warn", what, runtime.ADD, paste=paste)
    return finding("loop_good", "good", f"the service runs on the event loop {facts.loop}")


def _socket(facts: Facts) -> Finding:
    if facts.socket_mode is None:
        what = f"the admin socket {facts.socket} is not there: commands do not find this service"
        fix = "somebody removed it; a restart makes it again"
        return finding("socket_missing", "bad", what, fix, paste="systemctl restart gateway")
    if facts.socket_mode & 0o007:
        what = f"every user of this machine may give orders by {facts.socket}"
        return finding("socket_open", "bad", what, "close it", paste=f"chmod o= {facts.socket}")
    return finding("socket_good", "good", f"commands find the service at {facts.socket}")


def _unit(facts: Facts) -> Iterator[Finding]:
    whole = True
    if facts.root and not facts.container:
        whole = False
        what = "the service runs as root: a fault in it could cost the whole machine"
        fix = "run it as a user of its own (docs/install.md)"
        yield finding(
            "unit_root", "warn", what, fix, paste="systemctl edit gateway\n[Service]\nUser=gateway\nGroup=gateway"
        )
    if not facts.unit and not facts.container:
        what = "nothing starts the service again when it ends"
        yield finding(
            "unit_missing",
            "note",
            what,
            "let systemd do that (docs/install.md)",
            paste="systemctl enable --now gateway",
        )
    elif facts.unit and not facts.watchdog:
        what = "systemd does not notice when the service hangs"
        yield finding(
            "unit_watchdog", "note", what, "let it look", paste="systemctl edit gateway\n[Service]\nWatchdogSec=30"
        )
    elif whole:
        by = "systemd starts and watches the service" if facts.unit else "the service runs in a container"
        yield finding("unit_good", "good", by)


# -- secrets ----------------------------------------------------------------------------------------------------------


def _secrets(subject: Subject, facts: Facts) -> list[Finding]:
    """Files that the settings name, as the settings' own warnings have them, and those that the service made."""
    found = []
    with suppress(ConfigError, OSError, ValueError):  # area settings tells of errors
        for line in subject.read().warnings:
            if match := _OPEN.search(line):
                what, paste = line.partition(", chmod")[0].partition("; chmod")[0], f"{match['fix']} {match['file']}"
                found.append(finding("secret_open", "warn", what, "close it", paste=paste, about=match["file"]))
    for path in facts.opened:
        what, right = f"other users of this machine can read {path}", "711" if path == str(facts.state_dir) else "600"
        found.append(finding("secret_open", "warn", what, "close it", paste=f"chmod {right} {path}", about=path))
    if not found:
        found.append(finding("secrets_good", "good", "no other user can read secrets or mail"))
    return found


# -- the clock --------------------------------------------------------------------------------------------------------


async def _clocks(subject: Subject, facts: Facts, tell: Tell) -> None:
    urls = [url for probes in subject.probes(subject.backends).values() for url in probes.urls]
    hosts = [url for url in dict.fromkeys(urls) if not is_loopback(urlsplit(url).hostname or "")]
    found = await asyncio.gather(*(difference(subject, url) for url in hosts[:_ASKED]))
    tell(clock(facts, {urlsplit(url).netloc: by for url, by in zip(hosts, found, strict=False) if by is not None}))


async def difference(subject: Subject, url: str) -> float | None:
    """By how many seconds our clock is ahead of the server's Date (RFC 9110, 6.6.1); None: it tells none."""
    try:
        answer = await subject.fetch.request("HEAD", url, deadline=_PATIENCE)
        said = parsedate_to_datetime(answer.headers.get("date", ""))
        return (subject.clock.now() - said).total_seconds()
    except (NotSent, Lost, ValueError, TypeError):
        return None


def clock(facts: Facts, by: dict[str, float]) -> Finding:
    """``by``: how far ahead of which server we are. One that all are behind is ours."""
    fix, paste = "let somebody keep it right", "timedatectl set-ntp true\ntimedatectl"
    off = min(by.values(), key=abs, default=0.0)
    if abs(off) > _NOTED:
        side = "ahead of" if off > 0 else "behind"
        what = f"this machine's clock is {abs(off):.0f} s {side} that of {', '.join(by)}"
        what += ": tokens and certificates look too old or too new" if abs(off) > _WRONG else ""
        return finding("clock_wrong", "bad" if abs(off) > _WRONG else "warn", what, fix, paste=paste)
    if facts.synchronised is False:
        what = f"nobody keeps this machine's clock right ({facts.clock_by})"
        what += "; it is right just now" if by else ""
        return finding("clock_unsynchronised", "warn", what, fix, paste=paste)
    if facts.synchronised is None and not by:
        what = "whether this machine's clock is right is not seen from here"
        return finding("clock_unseen", "unknown", what, "look for System clock synchronized", paste="timedatectl")
    how = f"kept right ({facts.clock_by})" if facts.synchronised else "right"
    return finding("clock_good", "good", f"the clock is {how}" + (f", as {', '.join(by)} has it" if by else ""))


async def _steps(subject: Subject, tell: Tell) -> None:
    """When it was set while the service ran."""
    if subject.spool is None:
        return
    now: datetime = subject.clock.now()
    steps = [one for one in await subject.spool.clock_steps() if now - one.now_at < _WEEK]
    if steps:
        what = f"the clock was set while the service ran, last at {steps[0].now_at:%Y-%m-%d %H:%M:%SZ}"
        fix = "nothing, if you know why; mail neither expires nor waits longer for it"
        tell(finding("clock_stepped", "note", what, fix, paste="journalctl -u gateway -g clock_stepped"))
