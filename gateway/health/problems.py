"""What needs somebody: computed from a snapshot, without asking anybody. Worst first."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from gateway.health.afterwards import addresses, unread
from gateway.health.of_clients import log_ins, over_quota
from gateway.health.problem import KINDS, Problem
from gateway.health.records import BackendNow, Ends, Snapshot
from gateway.health.words import SHUT, lasting, number, octets

STUCK = timedelta(minutes=30)
SOON = 7  # days
STEPPED = timedelta(days=1)  # so long a step of the clock is worth a look


def problems(seen: Snapshot) -> list[Problem]:
    """The bad ones first, within these in the order of KINDS."""
    found = [one for rule in _RULES for one in rule(seen)]
    order = list(KINDS)
    return sorted(found, key=lambda one: (one.severity != "bad", order.index(one.kind)))


def verdict(seen: Snapshot, found: list[Problem]) -> str:
    """The first line of everything: is it all right, or how much needs somebody."""
    if found:
        return f"{number(len(found), 'thing')} need{'s' if len(found) == 1 else ''} you."
    if not seen.running:
        return "No service is running."
    if seen.draining:
        return "The service is stopping."
    working = sum(one.state == "working" for one in seen.backends)
    oldest = min((one.oldest for one in seen.backends if one.oldest), default=None)
    which = _working(working, len(seen.backends))
    waits = f"the oldest waiting message is {lasting(seen.now - oldest)} old" if oldest else "nothing waits"
    return f"Everything is all right. {which}, {waits}."


def _working(working: int, of: int) -> str:
    if of == 1:
        return "The backend works" if working else "The backend rests"
    return f"All {of} backends work" if working == of else f"{working} of {of} backends work"


def _wait(count: int, until: str) -> str:
    """Most panic is doubt about what is lost."""
    if not count:
        return "Nothing waits for it now. Mail that comes in waits and is not lost."
    return (
        f"{number(count, 'message')} wait{'s' if count == 1 else ''}. {_they(count)} out by {_selves(count)} {until}."
    )


def _they(count: int) -> str:
    return "It goes" if count == 1 else "They go"


def _selves(count: int) -> str:
    return "itself" if count == 1 else "themselves"


def _stopped(seen: Snapshot) -> Iterator[Problem]:
    for one in seen.backends:
        if one.state == "stopped":
            place = _place(one.title)
            why = f"{place} does not accept us" if one.by == "misconfigured" else f"{place} is not reached"
            yield Problem(
                key=f"backend:{one.name}", kind="backend_stopped", severity="bad", backend=one.name,
                what=f"{one.name} cannot send: {why}.", since=one.since, said=one.said,
                cost=_wait(one.waiting, "as soon as it works"), fix=_repair(one), action="fix",
            )  # fmt: skip


def _place(title: str) -> str:
    """Microsoft 365 (noreply@example.com)"""
    label, _, more = title.partition(", ")
    return f"{label} ({more})" if more else label


def _repair(one: BackendNow) -> str:
    now = f"gateway backend fix {one.name}"
    return f"{_sentence(one.fix)} Then: {now}" if one.fix else f"See what is wrong, and try again: {now}"


def _dead(seen: Snapshot) -> Iterator[Problem]:
    if seen.running and not seen.draining and not seen.delivering:
        yield Problem(
            key="delivery", kind="delivery_dead", severity="bad", since=None,
            what="Nothing is sent: the delivery tasks have ended.", cost="Mail is taken and kept, and nothing is lost.",
            fix="Restart the service: systemctl restart gateway. The log says under bug why they ended.",
        )  # fmt: skip


def _spool(seen: Snapshot) -> Iterator[Problem]:
    disk = seen.disk
    if seen.running and not disk.writable:
        yield Problem(
            key="spool", kind="spool_unwritable", severity="bad", what="The spool cannot be written.", since=None,
            cost="No mail is taken: clients keep theirs and try again. What was accepted is"
            f" {'in the database' if disk.database else 'on disk'}.",
            fix="See spool_error in the log: journalctl -u gateway | grep spool_error",
        )  # fmt: skip
    elif disk.shut:
        yield Problem(
            key=f"door:{disk.shut}", kind="door_shut", severity="bad",
            what=f"No new mail is taken: {SHUT.get(disk.shut, disk.shut)}.",
            since=disk.since, fix=_sentence(disk.fix),
            cost="Clients are told to try again. What is in the queue is sent and makes room.",
        )  # fmt: skip
    elif disk.total and disk.free < 2 * disk.reserve:
        yield Problem(
            key="disk", kind="disk_low", severity="warn", since=None,
            what=f"The disk is nearly full: {octets(disk.free)} are free.",
            cost=f"Below {octets(disk.reserve)} no new mail is taken. Nothing is lost.",
            fix="Delete something else on this disk or enlarge it; limits.spool_free says how much stays free.",
        )  # fmt: skip


def _sentence(text: str) -> str:
    first, shown = text.partition(" ")[0], text.rstrip(".")
    if "." in first or "@" in first:  # an address or a host is written as it is
        return f"{shown}."
    return f"{shown[:1].upper()}{shown[1:]}." if text else ""


def _deaf(seen: Snapshot) -> Iterator[Problem]:
    for one in seen.listeners:
        if not one.accepting and not seen.draining:
            yield Problem(
                key=f"listener:{one.name}", kind="listener_deaf", severity="bad", since=None,
                what=f"Listener {one.name} does not listen on {one.bind}.",
                cost="Clients that use it cannot send. What was accepted is not touched.",
                fix="See who has the port (ss -ltnp), then: systemctl restart gateway",
            )  # fmt: skip


def _orphans(seen: Snapshot) -> Iterator[Problem]:
    for pile in seen.orphans:
        name, n = pile.backend, pile.count
        yield Problem(
            key=f"no_backend:{name}", kind="no_backend", severity="bad", since=pile.since, action="messages",
            what=f"{number(n, 'message')} wait{'s' if n == 1 else ''} for {name}, which is not configured.",
            cost="Nobody sends this mail. It is kept, and returned to its senders when retry.lifetime is over.",
            fix=f"Put backends.{name} back, or add a route that fits this mail, then: gateway reload",
        )  # fmt: skip


def _doubts(seen: Snapshot) -> Iterator[Problem]:
    for pile in seen.doubts:
        n, name = pile.count, pile.backend
        yield Problem(
            key=f"doubt:{name}", kind="in_doubt", severity="warn", since=pile.since, backend=name, action="messages",
            what=f"{number(n, 'message')} may or may not have arrived.",
            cost=f"{name} answered nothing after it had the whole message. {'It is' if n == 1 else 'They are'} held,"
            " so that nobody gets mail twice.",
            fix=f"Ask a recipient, then release or delete: gateway queue list --state held --backend {name}",
        )  # fmt: skip


def _damaged(seen: Snapshot) -> Iterator[Problem]:
    where, whose = ("in the database", "its disk") if seen.disk.database else ("on disk", "the disk")
    if n := seen.damaged:
        yield Problem(
            key="damaged", kind="damaged", severity="bad", since=None, action="messages",
            what=f"{number(n, 'message')} {'is' if n == 1 else 'are'} damaged {where}.",
            cost="This mail is not sent, for nobody knows what it said. Other mail is not touched.",
            fix=f"Look at {whose} (dmesg, smartctl -a), ask the sender to send again, then:"
            f" gateway queue show {seen.damaged_id or 'ID'}",
        )  # fmt: skip


def _ends(seen: Snapshot) -> Iterator[Problem]:
    for one in seen.ends:
        if (step := one.step(seen.now)) is not None and (step <= SOON or one.renews):
            yield ending(one, seen.now)


def ending(one: Ends, now: datetime) -> Problem:
    """What is to be said of it, however soon it ends."""
    step, of_backend = one.step(now), one.of.startswith("backend ")
    renewal = _RENEW["renews" if one.renews else one.kind].format(key=one.key, of=one.of.removeprefix("backend "))
    return Problem(
        key=f"ends:{one.key}", kind="ends", severity="bad" if step is not None and step <= 1 else "warn", since=None,
        what=_ending(one, now), cost=_LOST[one.kind], fix=_sentence(one.fix) or renewal, said=one.trouble,
        backend=one.of.removeprefix("backend ") if of_backend else "", action="check" if of_backend else "",
    )  # fmt: skip


def _ending(one: Ends, now: datetime) -> str:
    if one.ends_at <= now:
        return f"{one.what} of {one.of} has ended on {one.ends_at:%Y-%m-%d}."
    return f"{one.what} of {one.of} ends in {lasting(one.ends_at - now)}, on {one.ends_at:%Y-%m-%d}."


_LOST = {
    "certificate": "After that it is not trusted any more: mail waits, here or at its sender.",
    "secret": "After that the provider refuses us. Mail waits here, and nothing is lost.",
    "sign_in": "After that the provider refuses us. Mail waits here, and nothing is lost.",
    "key": "After that what is signed with it is refused.",
    "token": "After that the log-in is refused, and whoever uses it cannot send.",
}
_RENEW = {
    "renews": "It should have renewed itself. Try it now: gateway backend renew {of}",
    "certificate": "Put a new one into the file that {key} names. It is read by itself, or with: gateway reload",
    "secret": "Make a new one at the provider, put it into its file, then: gateway reload",
    "sign_in": "Sign in again with gateway auth, then: gateway reload",
    "key": "Replace the key that {key} names, then: gateway reload",
    "token": "Mint another and give it to its user: gateway token mint",
}


def _stuck(seen: Snapshot) -> Iterator[Problem]:
    for one in seen.stuck:
        yield Problem(
            key=f"stuck:{one.backend}", kind="queue_stuck", severity="warn", since=one.since, backend=one.backend,
            what=f"{one.backend} works, but a message has waited for {lasting(seen.now - one.since)}.", said=one.said,
            cost=f"It was tried {number(one.attempts, 'time')} and is tried again by itself. Other mail is sent.",
            fix=f"{_sentence(one.fix) or 'See why.'} To see it: gateway queue show {one.id}", action="messages",
        )  # fmt: skip


def _reload(seen: Snapshot) -> Iterator[Problem]:
    if seen.reload:
        yield Problem(
            key="reload", kind="reload_refused", severity="bad", since=seen.reload.at,
            what="The settings on disk are wrong.", said="\n".join(seen.reload.errors),
            cost="The service goes on with the old ones. It would not start again with these.",
            fix=f"{_to_correct(seen.reload.errors)} Then: gateway reload",
        )  # fmt: skip


def _to_correct(errors: Sequence[str]) -> str:
    if all(line.endswith(os.strerror(errno.EACCES)) for line in errors):  # a check by root would find nothing
        return "Let the user of the service read what is named here."
    return "Correct them until this finds nothing: gateway check-config."


def _pickups(seen: Snapshot) -> Iterator[Problem]:
    for one in seen.pickups:
        yield Problem(
            key=f"pickup:{one.name}", kind="pickup_unreadable", severity="bad", since=None, said=one.reason,
            what=f"Mail in {one.path} cannot be taken.", cost="It stays there until it can be, and nothing is lost.",
            fix="Give the user of the service the right to read and delete there, or look for its disk.",
        )  # fmt: skip


def _clock(seen: Snapshot) -> Iterator[Problem]:
    recent = [one for one in seen.steps if abs(seen.now - one.now_at) <= STEPPED]
    if recent:
        last = max(recent, key=lambda one: one.now_at)
        by = last.now_at - last.was_at
        way = "forward" if by > timedelta(0) else "back"
        yield Problem(
            key="clock", kind="clock_stepped", severity="warn", since=last.now_at,
            what=f"The clock of this machine was set {way} by {lasting(abs(by))}.",
            cost="No mail expires or waits because of it. Times in the log are wrong by as much.",
            fix="See that the machine gets its time from the network: timedatectl, chronyc tracking",
        )  # fmt: skip


def _settings(seen: Snapshot) -> Iterator[Problem]:
    if seen.differing:
        yield Problem(
            key="settings", kind="settings_differ", severity="warn", since=None, said="; ".join(seen.differing),
            what="Instances on one database have different settings.",
            cost="What becomes of mail depends on which of them takes and sends it. Nothing is lost.",
            fix="Let all of them have the same of what is named here. Then on each of them: gateway reload",
        )  # fmt: skip


def _descriptors(seen: Snapshot) -> Iterator[Problem]:
    if seen.descriptors:
        yield Problem(
            key="descriptors", kind="few_descriptors", severity="warn", since=seen.started_at,
            what="This process may open too few files.", said=seen.descriptors,
            cost="With many connections at once some clients are turned away and try again.",
            fix="Set LimitNOFILE= in the unit (systemctl edit gateway), or lower limits.connections, then restart.",
        )  # fmt: skip


def _bugs(seen: Snapshot) -> Iterator[Problem]:
    if one := seen.bugs:
        where = ", ".join(one.where)
        yield Problem(
            key="bug", kind="bug", severity="warn", since=one.since, said=f"in {where}" if where else "",
            what=f"Something unexpected happened {number(one.count, 'time')}.",
            cost="Mail that was accepted is kept and tried again.",
            fix='Report it with the lines from the log: journalctl -u gateway | grep \'"bug"\'. Gone after a restart.',
        )  # fmt: skip


_RULES: tuple[Callable[[Snapshot], Iterator[Problem]], ...] = (
    _stopped, _dead, _spool, _deaf, _orphans, _doubts, _damaged, _ends, _stuck, _reload, _pickups, over_quota, log_ins,
    _clock, _settings, _descriptors, unread, addresses, _bugs,
)  # fmt: skip
