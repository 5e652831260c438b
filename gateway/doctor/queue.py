"""The spool: is its file whole, does its log stay small, and does mail wait for long?"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from gateway.doctor import database
from gateway.doctor.finding import Finding, Level, finding
from gateway.doctor.subject import Subject
from gateway.pools import read_files
from gateway.spool import Filter, Spool

_LOOKING = 8.0  # seconds that the file is looked through for
_LARGE = 64_000_000  # octets of the log beside it
_OLD, _VERY_OLD = timedelta(hours=1), timedelta(hours=12)
_GROWS = 100  # deliveries more than at the last run
_DO = "stop the service, copy the whole state directory away, and see Backups in docs/operations.md"
Tell = Callable[[Finding], None]


async def look(subject: Subject, tell: Tell) -> None:
    if subject.spool is None:
        what = "the spool is open in the service only: its file and what waits are seen while that runs"
        fix = "start it, then run the doctor again; each start looks the file through, too"
        tell(
            Finding(
                key="needs_service",
                area="spool",
                level="unknown",
                what=what,
                fix=fix,
                paste="gateway doctor --area spool",
            )
        )
        return
    spool, now = subject.spool, subject.clock.now()
    await _backlog(spool, now, subject.before, tell)
    await _damaged(spool, tell)
    if spool.room.database:
        for one in await database.look(subject.settings):
            tell(one)
        return
    await _file(subject, spool, tell)


async def _file(subject: Subject, spool: Spool, tell: Tell) -> None:
    size = await read_files(partial(_log_size, subject.settings.state_dir))
    if size > _LARGE:
        what = f"the log beside the spool has {size / 1e6:.0f} MB: another program reads spool.db and does not end"
        fix = "find it and let it end, or wait until a backup is done"
        paste = f"lsof {subject.settings.state_dir}/spool.db"
        tell(finding("spool_log_large", "warn", what, fix, paste=paste))
    found = await spool.survey(_LOOKING)
    if found.fault:
        what = "SQLite finds damage in the spool's file"
        paste = f"systemctl stop gateway\ncp -a {subject.settings.state_dir} /root/gateway-damaged"
        tell(finding("spool_damaged", "bad", what, _DO, said=found.fault, paste=paste))
    elif found.whole:
        tell(finding("spool_good", "good", f"the spool's file is whole (SQLite {sqlite3.sqlite_version})"))
    else:
        what = f"the spool's file is too large to be looked through in {_LOOKING:g} s; no damage was seen so far"
        fix = "nothing at once: each start looks it through"
        tell(finding("spool_unseen", "unknown", what, fix))


def _log_size(state: Path) -> int:
    log = state / "spool.db-wal"
    return log.stat().st_size if log.exists() else 0


async def _damaged(spool: Spool, tell: Tell) -> None:
    if count := await spool.count(Filter(state="corrupt")):
        what = f"{count} messages are not what was accepted any more, and are not sent"
        fix = "a disk went wrong, or somebody wrote to it; tell their senders"
        paste = "gateway queue list --state corrupt"
        tell(finding("spool_message_damaged", "warn", what, fix, paste=paste))


async def _backlog(spool: Spool, now: datetime, before: Mapping[str, int], tell: Tell) -> None:
    """``before`` is what waited at the last run, by backend."""
    waiting, oldest = await spool.queued(), await spool.oldest()
    late = {name: now - since for name, since in oldest.items() if now - since > _OLD}
    for name, age in late.items():
        level: Level = "bad" if age > _VERY_OLD else "warn"
        what = f"{waiting.get(name, 0)} wait for {name}, the oldest for {_long(age)}"
        fix = "they go by themselves when it works again; see what it says"
        tell(
            finding(
                "backlog_old",
                level,
                what,
                fix,
                paste=f"gateway backend list\ngateway queue list --backend {name}",
                about=f"backends.{name}",
            )
        )
    for name, count in waiting.items():
        if name in before and count - before[name] >= _GROWS:
            what = f"{count} wait for {name}, {count - before[name]} more than at the last run of the doctor"
            fix = "see who sends so much, and whether the backend is slowed down"
            tell(finding("backlog_grows", "warn", what, fix, paste="gateway queue summary", about=f"backends.{name}"))
    if not late:
        total = sum(waiting.values())
        tell(finding("backlog_good", "good", f"{total or 'nothing'} waits" if total != 1 else "1 waits"))


def _long(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.0f} h"
