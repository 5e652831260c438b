"""One backend in words: how it stood, what a check found, and what the first message came to."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.cli import lifeline
from gateway.cli.common import Api
from gateway.cli.errors import TryAgain
from gateway.cli.plain import moment, relative, say, stamp
from gateway.health.words import number, state_word, unlike

Json = Mapping[str, Any]
_POLL = 0.2  # seconds between looks
_MARKS = {"good": "ok", "wrong": "WRONG", "untried": "not tried"}


def state_of(one: Json) -> str:
    """Stopped, next try 2026-11-20 10:15:00Z (in 40 s); Paused by root until it is resumed."""
    word, until = state_word(one["state"], one["who"]), moment(one["paused_until"])
    if one["state"] == "working":
        return word
    if one["state"] == "paused":
        return f"{word} until " + (f"{stamp(until)} ({relative(until)})" if until else "it is resumed")
    cause = f" ({one['paused_by']})" if one["state"] == "stopped" else ""
    return f"{word}{cause}, next try " + (f"{stamp(until)} ({relative(until)})" if until else "now")


def before(one: Json) -> Iterator[str]:
    """What the running service knows of it, before it is asked to look."""
    yield f"{one['name']}: {one['title']}"
    since = moment(one["since"])
    when = f", since {stamp(since)} ({relative(since)})" if since else ""
    yield f"  in the service: {state_of(one)}{when}; {number(one['queued'], 'message')} waiting"
    if one["owner"]:
        yield f"  worked by instance {one['owner']}"
    if heard := one["heard"]:
        words = lifeline.answer(heard) or heard["verdict"]
        at = moment(heard["at"])
        yield f"  heard last: {stamp(at)} ({relative(at)}) of {heard['id']}: {words}"
    yield f"  sent last: {relative(moment(one['last_success']))}"


def checked(name: str, found: Json) -> Iterator[str]:
    """A check with its steps; where the service found that the files on disk say otherwise, that too."""
    disk = "disk"
    if by := found.get("by"):
        yield f"  checked by instance {by}, which works it, on its machine"
        disk = f"the disk of {by}"
    if read := found.get("read"):
        yield f"  read anew from {disk}: {', '.join(read)}"
    elif not found["ok"] and "read" in found and not found["errors"]:
        yield f"  no secret of it has changed on {disk}; one that systemd hands over changes at a restart only"
    if differs := [key or "the whole section" for key in found.get("differs", ())]:
        yield f"  on {disk}, and not in force before gateway reload: {', '.join(differs)}"
    for error in found.get("errors", ()):
        yield f"  the settings on {disk} are wrong: {error}"
    if found.get("unlike"):
        yield f"  to do: {unlike(name, found['by'], found['read'], found['read_here'])}"
    yield f"{name}: {'ok' if found['ok'] else 'FAILED'}: {found['summary']}"
    for step in found["steps"]:
        said = f": {step['said']}" if step["said"] else "."
        yield f"  {_MARKS[step['result']]}: {step['text'].rstrip('.')}{said}"
    for key, value in found["facts"].items():
        yield f"  {key}: {value}"
    if found["fix"]:
        yield f"  to do: {found['fix']}"


def renewed(name: str, found: Json) -> Iterator[str]:
    """What came of the order to renew its certificate."""
    word = {"renewed": "renewed", "failed": "FAILED", "kept": "not begun", "waits": "added"}.get(found["result"], "")
    yield f"{name}: {word}: {found['summary']}"
    if found["trouble"] and found["trouble"] != found["summary"]:
        yield f"  failed last: {found['trouble']}"
    if found["fix"]:
        yield f"  to do: {found['fix']}"


def outcome(api: Api, name: str, since: str, seconds: float) -> tuple[str, int]:
    """What came of the first message that was tried by the backend since then, and the exit code."""
    never, began, left = threading.Event(), moment(since), seconds
    while True:
        one = api.get("backends")[name]
        heard = one["heard"] if one["heard"] and began and (moment(one["heard"]["at"]) or began) >= began else None
        if one["state"] in ("stopped", "slowed_down"):
            again = {"stopped": "stopped again", "slowed_down": "slowed down by its provider"}[one["state"]]
            to_do = f"\n{lifeline.to_do(one)}" if one["fix"] else ""
            return f"{name}: {again}: {one['reason']}{to_do}", 1
        if heard and heard["verdict"] == "sent":
            return f"{name} works: first message sent", 0
        if heard:
            words = lifeline.answer(heard) or heard["verdict"]
            return f"{name} answers, and did not take the first message ({heard['id']}): {words}", 0
        if not one["queued"] and not one["in_flight"]:
            return f"{name} is resumed. Nothing waits: nothing was tried", 0
        if left <= 0:
            wait = f"{number(one['queued'], 'message')} wait"
            return f"{name}: no outcome after {seconds:g} s, {wait}; look again: gateway backend check {name}", _LATER
        never.wait(_POLL)
        left -= _POLL


_LATER = TryAgain.exit_code


def ends(text: str, code: int) -> None:
    """Print, and end with this code."""
    say(text, err=code == _LATER)
    if code:
        raise SystemExit(code)
