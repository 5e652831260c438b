"""Pure decisions: who may send what to whom, by which way, and when again. No I/O, no clock.

Every refusal names what was refused and the setting that allows it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from gateway.address import matches
from gateway.config.models import BounceSettings, RetrySettings, RouteSettings
from gateway.model import Client, Limits, Needs, Rate, Refusal

HOP_LIMIT = 100  # RFC 5321 6.3
OWN_HOP_LIMIT = 5
_RATE_KEYS = 10_000
_SLOTS = 60
# Features of a message (message.FEATURES) in the words of a refusal.
_WORDS = {
    "attachments": "attachments",
    "inline_images": "images within the text",
    "signed": "signed mail",
    "encrypted": "encrypted mail",
    "calendar": "calendar invitations",
    "attached_message": "attached messages",
    "report": "delivery reports",
    "reply_to": "a Reply-To that is not the From",
    "headers": "header fields of their own",
    "threading": "In-Reply-To and References",
    "both_bodies": "text and HTML together",
    "malformed": "malformed mail",
    "no_subject": "mail without a subject",
    "no_text": "mail without a text",
}


@dataclass(frozen=True, slots=True)
class Freight:
    """What a backend would have to carry. ``authors`` are the From addresses, () while they are not known.

    ``token``: whether the client's own token comes with it, or may.
    """

    size: int
    null_sender: bool
    smtputf8: bool
    authors: tuple[str, ...] = ()
    needs: Needs = None
    token: bool = True


def _every_group(groups: Sequence[Sequence[str]], address: str) -> bool:
    return all(any(matches(pattern, address) for pattern in group) for group in groups)


def may_send_as(client: Client, address: str) -> bool:
    """Every group (settings, token claim) must have a matching pattern; no group allows any sender."""
    return _every_group(client.senders, address)


def may_send_to(client: Client, address: str) -> bool:
    return _every_group(client.recipients, address)


def check_sender(client: Client, mail_from: str, header_from: Sequence[str], *, plain: bool = True) -> None:
    """Envelope sender and every header From address must be allowed; the null sender is nobody's address.

    Raises Refusal 553 5.7.1. A From without any address is refused where senders are restricted: readers would
    see a name that nobody checked; so where there is no From field at all, pass what will be written into it.
    ``plain`` says that no reader can find other addresses in From and Sender than those given.
    """
    if all("*" in group for group in client.senders):
        return
    for address in filter(None, (mail_from, *header_from)):
        if not may_send_as(client, address):
            raise _sender_denied(client, f"<{address}>: sender not allowed", f"add it to clients.{client.name}.senders")
    if not any(header_from):
        raise _sender_denied(client, "From: no address in the header", f"clients.{client.name}.senders needs one")
    if not plain:
        raise _sender_denied(client, "From or Sender: not one plain address per entry", "write Name <user@example.com>")


def _sender_denied(client: Client, what: str, fix: str) -> Refusal:
    return Refusal(553, "5.7.1", f'{what} for client "{client.name}"; {fix}', "sender_denied")


def route(routes: Sequence[RouteSettings], *, client: str, pin: str, sender: str, recipient: str) -> tuple[str, ...]:
    """Backends in failover order: the pin of a client or token, else the first route that matches; () is none."""
    if pin:
        return (pin,)
    for line in routes:
        if (
            (not line.clients or client in line.clients)
            and (not line.senders or any(matches(pattern, sender) for pattern in line.senders))
            and (not line.recipients or any(matches(pattern, recipient) for pattern in line.recipients))
        ):
            return line.backend
    return ()


def usable(names: Sequence[str], limits: Mapping[str, Limits], freight: Freight) -> tuple[str, ...]:
    """Those of ``names`` that can carry the message, in order. Raises the first one's Refusal when none can."""
    refusals = {name: _obstacle(name, limits.get(name), freight) for name in names}
    left = tuple(name for name, refusal in refusals.items() if refusal is None)
    if not left:
        raise next(filter(None, refusals.values()), Refusal(550, "5.7.1", "no route for this recipient", "no_route"))
    return left


def _obstacle(name: str, limits: Limits | None, freight: Freight) -> Refusal | None:
    if limits is None:
        return Refusal(451, "4.3.5", f'backend "{name}" is not configured', "no_route")
    if freight.size > limits.max_bytes:
        text = f'message of {freight.size} bytes is too big, backend "{name}" takes at most {limits.max_bytes} bytes'
        return Refusal(552, "5.3.4", f"{text}{_hint(name, limits)}", "too_big")
    if limits.own_token and not freight.token:
        text = f'backend "{name}" sends only with the client\'s own token; log in with that (clients: login: {name})'
        return Refusal(550, "5.7.1", text, "cannot_carry")
    if freight.null_sender and not limits.null_sender:
        return Refusal(550, "5.7.1", f'backend "{name}" cannot send with the null sender <>', "cannot_carry")
    if freight.smtputf8 and not limits.smtputf8:
        return Refusal(553, "5.6.7", f'backend "{name}" cannot carry non-ASCII addresses (SMTPUTF8)', "cannot_carry")
    return _stranger(name, limits, freight.authors) or _loss(name, limits, freight)


def _stranger(name: str, limits: Limits, authors: Sequence[str]) -> Refusal | None:
    """An author that the backend cannot send as."""
    for author in authors if limits.senders else ():
        if not _every_group((limits.senders,), author):
            shown = ", ".join(limits.senders[:3]) + " ..." * (len(limits.senders) > 3)
            text = f'<{author}>: backend "{name}" sends only as {shown}; send from there (rewrite_sender), or'
            return Refusal(553, "5.7.1", f"{text} add it to backends.{name}.senders if it may", "sender_denied")
    return None


def _loss(name: str, limits: Limits, freight: Freight) -> Refusal | None:
    """What would be lost on the way: nobody is to find out by its absence."""
    if freight.needs is not None and freight.size > limits.whole_bytes:
        above = f" above {limits.whole_bytes} bytes" if limits.whole_bytes else ""
        for feature, where in freight.needs.items():
            if feature not in limits.lacks:
                continue
            text = f'{_WORDS[feature]} cannot be sent through backend "{name}"{above}{where and f" ({where})"}'
            remedy = limits.remedies.get(feature, "").format(name=name)
            return Refusal(554, "5.6.3", f"{text}; {remedy or 'route this client to another backend'}", "cannot_carry")
    return None


def no_bounces(bounces: BounceSettings, limits: Mapping[str, Limits]) -> str:
    """Why no backend could send a report to a sender; "" where one can. Which one it would be, the routes decide."""
    if bounces.mode == "off" or (bounces.mode != "notice" and any(found.null_sender for found in limits.values())):
        return ""
    fix = "set bounces.from to an address that a backend may send as, or add an smtp backend for bounces.backend"
    if bounces.mode == "dsn" or not bounces.sender:
        return f"no backend can send with the null sender, so senders would not hear of mail that fails; {fix}"
    if all(_stranger(name, found, (bounces.sender,)) for name, found in limits.items()):
        return f"no backend sends as bounces.from {bounces.sender}, so senders would not hear of mail that fails; {fix}"
    return ""


def _hint(name: str, limits: Limits) -> str:
    return f"; {limits.size_hint.format(name=name)}" if limits.size_hint else ""


def largest(routes: Sequence[RouteSettings], limits: Mapping[str, Limits], client: Client, cap: int) -> tuple[int, str]:
    """Bytes for SIZE: the most that any backend this client may reach takes, within ``cap`` and its own limit.

    And what a refusal adds where that is a backend's limit: which one, and the setting that would allow more.
    """
    lines = (line for line in routes if not line.clients or client.name in line.clients)
    names = {client.backend} if client.backend else {name for line in lines for name in line.backend}
    own = cap if client.max_size is None else min(cap, client.max_size)
    best = max((name for name in sorted(names) if name in limits), key=lambda name: limits[name].max_bytes, default="")
    if not best or limits[best].max_bytes >= own:
        return own, ""
    return limits[best].max_bytes, f', the limit of backend "{best}"{_hint(best, limits[best])}'


def next_delay(retry: RetrySettings, attempts: int, rng: random.Random) -> timedelta:
    """Pause after ``attempts`` (1 or more) tries; the last delay repeats, jitter keeps a crowd from coming at once."""
    delay = retry.delays[min(max(attempts, 1), len(retry.delays)) - 1]
    return delay * rng.uniform(1 - retry.jitter, 1 + retry.jitter)


def is_loop(received: int, own: int) -> bool:
    """``received`` fields in all, ``own`` of them written by this host (RFC 5321 6.3)."""
    return received >= HOP_LIMIT or own >= OWN_HOP_LIMIT


class RateWindow:
    """At most ``count`` events in any ``period``, for each key. Counts by sixtieths of the period, so it is strict and
    small: a refusal may last a sixtieth longer than it had to. The least recently used key is forgotten first.
    """

    def __init__(self) -> None:
        self._slots: dict[str, dict[int, int]] = {}

    def allow(self, key: str, rate: Rate, now: float) -> bool:
        """Count one event at ``now`` (monotonic seconds), unless that would exceed the rate."""
        current = int(now * _SLOTS / rate.period.total_seconds())
        slots = {slot: n for slot, n in self._slots.pop(key, {}).items() if slot >= current - _SLOTS}
        allowed = sum(slots.values()) < rate.count
        if allowed:
            slots[current] = slots.get(current, 0) + 1
        self._slots[key] = slots
        if len(self._slots) > _RATE_KEYS:
            del self._slots[next(iter(self._slots))]
        return allowed
