"""The task that looks every half minute what needs somebody, and tells it by every way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gateway.alerts import kept
from gateway.alerts.digest import digest
from gateway.alerts.events import events_of
from gateway.alerts.ledger import Entry, Ledger
from gateway.alerts.mail import Mail
from gateway.alerts.notice import Notice
from gateway.alerts.ways import Way
from gateway.clock import Clock
from gateway.config.models import AlertSettings, Settings
from gateway.events import Events
from gateway.health.problem import Problem
from gateway.health.records import Snapshot
from gateway.intake import Rules
from gateway.model import SpoolTrouble
from gateway.spool import Spool

EVERY = 30.0  # seconds
HOUR = 3600.0
RETRIES = (60.0, 300.0, 900.0, HOUR)  # seconds after a way failed; the last goes on
RETENTION = timedelta(days=90)


@dataclass(slots=True)
class _Post:
    """A way, when it told something (monotonic seconds) and how often in a row it could not."""

    way: Way
    sent: deque[float] = field(default_factory=deque)
    failed: int = 0
    next_at: float = 0.0


class Alerts:
    """``look`` gathers a snapshot, ``works`` says of a backend whether it sends now, ``elsewhere`` which other instance
    is the one to tell that it cannot, None for this one."""

    def __init__(
        self,
        spool: Spool,
        look: Callable[[], Awaitable[Snapshot]],
        works: Callable[[str], bool],
        events: Events,
        clock: Clock,
        ids: Callable[[], str],
        elsewhere: Callable[[str], str | None] = lambda backend: None,
    ) -> None:
        self._spool = spool
        self.look = look
        self._works, self._elsewhere = works, elsewhere
        self._events = events
        self._clock = clock
        self._ids = ids
        self._settings = AlertSettings()
        self._hostname = ""
        self._posts: dict[str, _Post] = {}
        self._ledger: Ledger | None = None
        self._last_digest: datetime | None = None
        self._task: asyncio.Task[None] | None = None

    def update(self, settings: Settings, rules: Rules, outside: Sequence[Way]) -> None:
        """From now on by these; what was sent in the last hour counts on, for a way of the same name."""
        self._settings, self._hostname = settings.alerts, settings.hostname
        mail = [Mail(settings, rules, self._spool, self._ids, self._works)] if settings.alerts.to else []
        before, self._posts = self._posts, {way.name: _Post(way) for way in (*mail, *outside)}
        for name, post in self._posts.items():
            if name in before:
                post.sent = before[name].sent

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="alerts")

    async def stop(self, _seconds: float = 0) -> None:
        """At once: what is being told now may be told again."""
        if self._task:
            self._task.cancel()
            await asyncio.wait({self._task})

    @property
    def ways(self) -> tuple[str, ...]:
        """By which somebody is told; () for nobody."""
        return tuple(self._posts)

    @property
    def entries(self) -> Sequence[Entry]:
        """What was the case, and who was told, the newest first."""
        return self._ledger.entries if self._ledger else ()

    async def _run(self) -> None:
        """A look that fails is a bug, and the next one is made all the same."""
        while True:
            try:
                await self.round()
            except Exception as error:
                self._events.bug("alerts", error)
            await self._clock.sleep(EVERY)

    async def round(self) -> None:
        """Look once, and tell what is owed."""
        if self._ledger is None:
            known = await self._spool.kept_alerts()
            self._ledger, self._last_digest = Ledger(kept.entries(known)), kept.digested(known)
        ledger = self._ledger
        if not self._posts:
            return
        seen = await self.look()
        patience = {"backend_stopped": self._settings.stopped_for}
        events = [one for one in events_of(seen) if self._ours(one.problem) or ledger.open(one.key)]
        changed = ledger.see(events, tuple(self._posts), seen.now, patience)
        await self._write(changed, ledger.forget(seen.now - RETENTION))
        await asyncio.gather(*(self._tell(ledger, post, seen.now) for post in self._posts.values()))
        await self._digest(seen)

    def _ours(self, problem: Problem) -> bool:
        return problem.kind != "backend_stopped" or self._elsewhere(problem.backend) is None

    async def _write(
        self, entries: Iterable[Entry], forgotten: Sequence[str] = (), digested: datetime | None = None
    ) -> None:
        """What cannot be written now is told all the same; it may be told again after a restart."""
        rows = [kept.to_keep(entry) for entry in entries] + ([kept.last_digest(digested)] if digested else [])
        if rows or forgotten:
            try:
                await self._spool.keep_alerts(rows, forgotten)
            except SpoolTrouble as error:
                self._events.warning("alerts_unwritten", detail=error.text)

    async def _tell(self, ledger: Ledger, post: _Post, now: datetime) -> None:
        """All that this way owes, in one notice."""
        owed = ledger.owed(post.way.name)
        if not owed or not self._may(post):
            return
        news = tuple(one.event for one in owed if one.owed[post.way.name] == "new")
        over = tuple(one.event for one in owed if one.owed[post.way.name] == "over")
        if await self._send(post, Notice(id=self._ids(), at=now, hostname=self._hostname, news=news, over=over)):
            await self._write(ledger.said(post.way.name, owed))

    def _may(self, post: _Post) -> bool:
        """Neither too soon after a failure nor too often in an hour: what waits is told together then."""
        at = self._clock.monotonic()
        while post.sent and at - post.sent[0] >= HOUR:
            post.sent.popleft()
        return at >= post.next_at and len(post.sent) < self._settings.per_hour

    async def _send(self, post: _Post, notice: Notice) -> bool:
        why = await post.way.tell(notice)
        at = self._clock.monotonic()
        self._events.alert(post.way.name, notice.subject, why)
        if why:
            post.next_at = at + RETRIES[min(post.failed, len(RETRIES) - 1)]
            post.failed += 1
            return False
        post.sent.append(at)
        post.failed, post.next_at = 0, 0.0
        return True

    async def _digest(self, seen: Snapshot) -> None:
        """Once a day at ``alerts.daily`` of this machine's time zone, by mail; late rather than never."""
        daily, post = self._settings.daily, self._posts.get("mail")
        if daily is None or post is None:
            return
        local = seen.now.astimezone()
        due = local.replace(hour=daily.hour, minute=daily.minute, second=0, microsecond=0)
        due = due if due <= local else due - timedelta(days=1)
        if self._last_digest is None:
            self._last_digest = seen.now  # none for the time before the first
            await self._write((), (), seen.now)
        if self._last_digest >= due or not self._may(post):
            return
        flow = await self._spool.flow(seen.now, 24, timedelta(hours=1))
        if await self._send(post, digest(self._ids(), seen, self._hostname, flow)):
            self._last_digest = seen.now
            await self._write((), (), seen.now)

    async def test(self) -> Mapping[str, str]:
        """Tell everybody that this is a test: by way, "" or why it could not be told."""
        words = ("This is a test. Somebody asked for it with: gateway alert test", "")
        notice = Notice(
            id=self._ids(), at=self._clock.now(), hostname=self._hostname, title="This is a test alert", words=words
        )
        return {name: await post.way.tell(notice) for name, post in self._posts.items()}
