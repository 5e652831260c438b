"""What clients with a quota have sent, counted in memory. Time is passed in, as monotonic seconds.

Nothing here waits for anybody, and a look or a count takes the same time whatever was counted before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf

from gateway.address import comparable
from gateway.model import Client, NewMessage, Refusal
from gateway.networks import neighbour
from gateway.quota import Over, Quota, Rate
from gateway.quotas.words import spelled, when
from gateway.ratelimit import RateWindow, Ring, Shares, remember

KEYS = 5000  # addresses, logins or senders of one client; beyond that the one that sent least recently is forgotten
HELD = 1000  # messages of one client that are taken and held in an hour, ...
HELD_KB = 250_000  # ... and so many thousand octets: what is more than that is deferred, for the disk is everybody's
_HOUR = 3600.0
Kind = tuple[str, float]  # what is counted, and the period in seconds
Key = tuple[str, str]  # client, and for whom of it


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """How much of one number of a quota is used: by the client, or by the one of it that has used most (``who``)."""

    what: str
    rate: Rate
    used: int
    who: str


@dataclass(frozen=True, slots=True)
class _Full:
    """A number that is used up, and in how many seconds there is room again."""

    what: str
    rate: Rate
    wait: float


class Quotas:
    """``rates`` are the clients' message rates, ``connections`` those open now by client.

    ``on_over`` hears of each message or recipient that was too many: client, who of it, what became of it and why.
    """

    def __init__(self) -> None:
        self.rates = RateWindow()
        self.connections = Shares()
        self.on_over: Callable[[str, str, Over, str], None] = lambda _client, _who, _over, _why: None
        self.changed = False
        self.known: dict[str, Quota] = {}  # of the clients that have been counted
        self._tables: dict[str, dict[str, dict[Kind, Ring]]] = {}

    def allow(self, client: Client, now: float) -> bool:
        """Count a message by the client's ``rate``, unless it comes too soon."""
        assert client.rate is not None
        self.changed = True
        return self.rates.allow(client.name, client.rate, now)

    # -- at the door -------------------------------------------------------------------------------------------------

    def look(self, client: Client, peer: str, sender: str, now: float, *, recipients: int = 1) -> None:
        """Whether one more message to so many would be taken. Counts nothing. Raises Refusal 450 or 550."""
        if (quota := client.quota) is None:
            return
        who = _who(client, quota, peer, sender)
        full = self._full(client.name, who, quota, recipients, now)
        if full is None:
            return
        if quota.over == "hold" and not self._too_much(client.name, now):
            return
        raise self._refusal(client, quota, who, full)

    @contextmanager
    def taking(
        self, client: Client, message: NewMessage, sender: str, recipients: int, now: float
    ) -> Iterator[NewMessage]:
        """Count the message, around storing it; it comes back as it is to be stored. What fails was never counted.

        ``sender`` is the one that was asked for, ``recipients`` how many get it. Raises Refusal 450 or 550.
        """
        quota = client.quota
        assert quota is not None
        who = _who(client, quota, message.peer, sender)
        self.known[client.name] = quota
        full = self._full(client.name, who, quota, recipients, now)
        if full is None:
            amounts = {
                (what, rate.period.total_seconds()): amount
                for what, rates, amount in _numbers(quota, recipients)
                for rate in rates
            }
            spent = self._counted(client.name, who, amounts)
        elif quota.over != "hold" or self._too_much(client.name, now):
            raise self._refusal(client, quota, who, full)
        else:
            kilobytes = -(-len(message.raw) // 1000)
            spent = self._counted(_HOLDING, client.name, {("messages", _HOUR): 1, ("kilobytes", _HOUR): kilobytes})
            message = replace(message, held=_said(client, who, full))
        for ring, amount in spent:
            ring.add(amount, now)
        self.changed = True
        try:
            yield message
        except BaseException:
            for ring, amount in spent:
                ring.give_back(amount, now)
            raise
        if message.held:
            self.on_over(client.name, _bare(who), "hold", message.held)

    def _counted(self, name: str, who: str, amounts: Mapping[Kind, int]) -> list[tuple[Ring, int]]:
        """Where each of them counts."""
        table = self._tables.setdefault(name, {})
        rings = table.get(who) or {}
        remember(table, who, rings, KEYS)
        return [(rings.setdefault(kind, Ring(kind[1])), amount) for kind, amount in amounts.items()]

    def _refusal(self, client: Client, quota: Quota, who: str, full: _Full) -> Refusal:
        text = _said(client, who, full)
        over: Over = "refuse" if quota.over == "refuse" else "defer"
        self.on_over(client.name, _bare(who), over, text)
        code, enhanced = (550, "5.7.1") if over == "refuse" else (450, "4.7.1")
        also = ", and enough of it is held" if quota.over == "hold" else ""
        return Refusal(code, enhanced, f"{text}{also}; room again {when(full.wait)}", "rate_limited")

    def _full(self, name: str, who: str, quota: Quota, recipients: int, now: float) -> _Full | None:
        """The number that keeps it out longest."""
        rings = self._tables.get(name, {}).get(who, {})
        longest: _Full | None = None
        for what, rates, amount in _numbers(quota, recipients):
            for rate in rates:
                ring = rings.get((what, rate.period.total_seconds()))
                wait = ring.wait(amount, rate.count, now) if ring else 0.0 if amount <= rate.count else inf
                if wait > 0 and (longest is None or wait > longest.wait):
                    longest = _Full(what, rate, wait)
        return longest

    def _too_much(self, name: str, now: float) -> bool:
        """Whether so much of it is held that no more is taken."""
        rings = self._tables.get(_HOLDING, {}).get(name, {})
        most = {"messages": HELD, "kilobytes": HELD_KB}
        return any(ring.used(now) >= most[what] for (what, _), ring in rings.items())

    # -- for who looks ---------------------------------------------------------------------------------------------

    def used(self, name: str, quota: Quota, now: float) -> list[QuotaUse]:
        """Each number of a client's quota. Looks through all who count."""
        table, found = self._tables.get(name, {}), []
        for what, rates, _ in _numbers(quota, 1):
            for rate in rates:
                kind = what, rate.period.total_seconds()
                uses = ((rings[kind].used(now), who) for who, rings in table.items() if kind in rings)
                used, who = max(uses, default=(0, ""))
                found.append(QuotaUse(what, rate, used, _bare(who) if used else ""))
        return found

    # -- to be kept ------------------------------------------------------------------------------------------------

    def rings(self) -> Iterator[tuple[Key, Kind, Ring]]:
        """All that count, the least recently used first."""
        for name, table in self._tables.items():
            for who, rings in table.items():
                for kind, ring in rings.items():
                    yield (name, who), kind, ring
        for (name, period), ring in self.rates.rings.items():
            yield (name, _RATE), ("messages", period), ring

    def put_back(self, key: Key, kind: Kind, spent: Collection[tuple[int, int]], passed: float, now: float) -> None:
        """What was kept ``passed`` seconds ago."""
        name, who = key
        if who == _RATE:
            ring = self.rates.rings.setdefault((name, kind[1]), Ring(kind[1]))
        else:
            table = self._tables.setdefault(name, {})
            if who not in table and len(table) >= KEYS:
                return
            ring = table.setdefault(who, {}).setdefault(kind, Ring(kind[1]))
        ring.put_back(spent, passed, now)


_HOLDING = "*"  # no client has this name
_RATE = "rate"


def _numbers(quota: Quota, recipients: int) -> tuple[tuple[str, tuple[Rate, ...], int], ...]:
    return ("messages", quota.messages, 1), ("recipients", quota.recipients, recipients)


def _who(client: Client, quota: Quota, peer: str, sender: str) -> str:
    """For whom it counts, with what that is: other settings count something else."""
    if quota.per == "client":
        return ""
    if quota.per == "sender":
        return f"sender {comparable(sender) or '<>'}"
    if quota.per == "login" and client.login:
        return f"login {client.login}"
    return f"address {neighbour(peer) if peer else 'this machine'}"


def _bare(who: str) -> str:
    return who.partition(" ")[2]


def _said(client: Client, who: str, full: _Full) -> str:
    of = f"{_bare(who)} of client" if who else "Client"
    return f'{of} "{client.name}" has sent its {spelled(full.what, full.rate)} (clients.{client.name}.quota)'
