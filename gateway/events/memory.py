"""What has happened since the start that somebody may have to know: kept small, for whoever looks later."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Lock

from gateway.clock import Clock
from gateway.networks import neighbour
from gateway.ratelimit import remember

MANY = 50  # refused log-ins ...
WITHIN = 10  # ... in so many minutes are an attack, or a device that does not know its password
STORM = 3600.0  # seconds without any: then who sent too much has stopped
_NAMED = 3  # places or peers that are told apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """Something that was counted: how often, since when, when last, and where or from whom."""

    count: int
    since: datetime
    last: datetime
    where: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """A client that sends more than its quota: how often, of that how often it was ``held``, and who of it most."""

    client: str
    count: int
    held: int
    since: datetime
    why: str
    who: tuple[str, ...]


@dataclass(slots=True)
class _Storm:
    """``since`` and ``last`` in monotonic seconds."""

    since: float
    last: float
    why: str
    count: int = 0
    held: int = 0
    who: dict[str, int] = field(default_factory=dict)


class Memory:
    """``ends`` is until when a credential or certificate is good, by its kind (credential, certificate) and by the
    backend's or listener's name; ``renewals`` is why a backend's key has not renewed itself, and what to do. May be
    written from any thread.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self.started_at = clock.now()
        self.bugs: Happened | None = None
        self.ends: dict[tuple[str, str], float] = {}
        self.renewals: dict[str, tuple[str, str]] = {}
        self._refused: deque[tuple[int, int]] = deque(maxlen=WITHIN + 1)  # by minute since the machine's start
        self._peers: deque[str] = deque(maxlen=MANY)
        self._many_since: datetime | None = None
        self._storms: dict[str, _Storm] = {}

    def over_quota(self, client: str, who: str, over: str, why: str) -> None:
        """One more message or recipient that was too many. What is kept is small, whoever it is of the client."""
        now = self._clock.monotonic()
        with self._lock:
            storm = self._storms.get(client)
            if storm is None or now - storm.last >= STORM:
                storm = self._storms[client] = _Storm(since=now, last=now, why=why)
            storm.last, storm.why = now, why
            storm.count += 1
            storm.held += over == "hold"
            remember(storm.who, who, storm.who.get(who, 0) + 1, MANY)

    @property
    def storms(self) -> tuple[Storm, ...]:
        """Those in which something came within the last hour, by client."""
        now, wall = self._clock.monotonic(), self._clock.now()
        with self._lock:
            return tuple(
                Storm(
                    client=name, count=one.count, held=one.held, why=one.why,
                    since=wall - timedelta(seconds=now - one.since),
                    who=tuple(who for who in sorted(one.who, key=one.who.__getitem__, reverse=True)[:_NAMED] if who),
                )
                for name, one in sorted(self._storms.items()) if now - one.last < STORM
            )  # fmt: skip

    def bug(self, where: str) -> None:
        with self._lock:
            now, before = self._clock.now(), self.bugs
            if before is None:
                self.bugs = Happened(count=1, since=now, last=now, where=(where,))
            else:
                known = before.where if where in before.where else (*before.where, where)
                self.bugs = replace(before, count=before.count + 1, last=now, where=known[:_NAMED])

    def log_in_refused(self, peer: str) -> None:
        """One more; a few numbers are kept whoever asks how often."""
        minute = int(self._clock.monotonic() // 60)
        with self._lock:
            last, count = self._refused.pop() if self._refused else (minute, 0)
            if last != minute:
                self._refused.append((last, count))
                count = 0
            self._refused.append((minute, count + 1))
            self._peers.append(peer)

    @property
    def log_ins(self) -> Happened | None:
        """Those refused in the last minutes, where they are many, since when, and who came most often of the last."""
        now, minute = self._clock.now(), int(self._clock.monotonic() // 60)
        with self._lock:
            recent = [(at, count) for at, count in self._refused if at > minute - WITHIN]
            peers = Counter(map(neighbour, self._peers))
        if (count := sum(count for _, count in recent)) < MANY:
            self._many_since = None
            return None
        since, last = (now - timedelta(minutes=minute - at) for at in (recent[0][0], recent[-1][0]))
        self._many_since = since = min(since, self._many_since or since)
        worst = tuple(peer for peer, _ in peers.most_common(_NAMED))
        return Happened(count=count, since=since, last=max(last, since + timedelta(minutes=1)), where=worst)
