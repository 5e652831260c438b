"""The ways out: how each stands, what it said, and what an operator does with it."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from gateway.checks import Step, Use
from gateway.health.gather import gather
from gateway.health.problems import problems
from gateway.health.records import BackendNow, Snapshot
from gateway.health.words import lasting, number, unlike
from gateway.http import backends
from gateway.http.pages.standing import tag
from gateway.http.pages.text import Times
from gateway.http.pages.visit import View, Visit
from gateway.http.problem import fields_of
from gateway.spool import AnswerRow, CheckRow

_SHOWN = 3  # answers of each on the page of all
_ANSWERS = 50
_IS = {
    "working": "works", "slowed_down": "is slowed down", "paused": "is paused", "stopped": "is stopped",
    "": "waits for the service",
}  # fmt: skip
_STEPS = {"good": ("tick", "ok", ""), "wrong": ("octagon", "bad", ""), "untried": ("question", "quiet", "Not tried: ")}


async def page(visit: Visit) -> View:
    only = visit.asked_part.partition("-")[2]
    seen = await gather(visit.service)
    shown = await _shown(visit, seen, only, _SHOWN)
    if visit.asked_part:
        return View(template="backend_part.html", values={"section": "backends", "one": shown[0]})
    values = {"section": "backends", "backends": shown, "heading": _heading(shown)}
    return View(template="backends.html", values=values, needs=len(problems(seen)))


def _heading(shown: list[dict[str, Any]]) -> str:
    """The worst state that there is."""
    for state, word in (("stopped", "stopped"), ("paused", "paused"), ("slowed_down", "slowed down")):
        if n := sum(one["state"] == state for one in shown):
            return f"{n} of {number(len(shown), 'backend')} {'is' if n == 1 else 'are'} {word}"
    if any(one["state"] == "" for one in shown):
        return "No service is running"
    return "The backend works" if len(shown) == 1 else f"All {len(shown)} backends work"


async def backend(visit: Visit) -> View:
    name = _name(visit)
    seen = await gather(visit.service)
    (one,) = await _shown(visit, seen, name, _ANSWERS)
    values = {"section": "backends", "one": one, "heading": f"{name} {_IS[one['state']]}"}
    return View(template="backend.html", values=values, needs=len(problems(seen)))


async def _shown(visit: Visit, seen: Snapshot, only: str, answers: int) -> list[dict[str, Any]]:
    """All of them, the worst first, or ``only`` this one."""
    service, times = visit.service, visit.times
    if only and only not in service.settings.backends:
        raise HTTPException(404, f"There is no backend {only}.")
    checks = await service.spool.checks()
    doubts = {one.backend: one.count for one in seen.doubts}
    standing = service.dispatcher.status() if service.dispatcher else {}
    found = []
    for one in (one for one in seen.backends if only in ("", one.name)):
        more: dict[str, Any] = {"checked": None, "concurrency": 0, "uses": [], "owner": ""}
        if (status := standing.get(one.name)) is not None:
            more |= {"concurrency": status.concurrency, "uses": [_use(use) for use in status.uses]}
            more["owner"] = status.owner
        if (row := checks.get(one.name)) is not None:
            more |= _checked(row, unfolded=visit.text("checked") == one.name or one.state == "stopped")
        last = await service.spool.answers(one.name, answers)
        found.append(_view(one, times, doubts.get(one.name, 0)) | {"answers": [_answer(row) for row in last]} | more)
    return found


def _view(one: BackendNow, times: Times, doubts: int) -> dict[str, Any]:
    return {
        **fields_of(one), "tag": tag(one.state, one.who), "sentence": _sentence(one, doubts, times),
        "provider": one.title.partition(",")[0], "said": one.said if one.by != "operator" else "",
        "oldest_age": (times.now - one.oldest).total_seconds() if one.oldest else 0.0,
    }  # fmt: skip


def _sentence(one: BackendNow, doubts: int, times: Times) -> str:
    """Cause, effect, cure, in this order."""
    since = times.text(one.since, seconds=False) if one.since else ""
    until = times.text(one.until) if one.until else ""
    who, waits = one.title.partition(",")[0] or one.name, _waits(one, times)
    if one.state == "stopped":
        cause = f"{who} {'does not accept us' if one.by == 'misconfigured' else 'is not reached'}"
        again = f"Tried again by itself, next at {until}." if until else "Tried again by itself."
        return f"{cause}{f' since {since}' if since else ''}.{waits} {again}"
    if one.state == "paused":
        by, ends = f" by {one.who}" if one.who else "", f" until {until}" if until else ", until somebody resumes it"
        doubtful = f" {number(doubts, 'message')} {'is' if doubts == 1 else 'are'} held in doubt." if doubts else ""
        return f"Paused{by} at {since}{ends}.{waits}{doubtful}"
    if one.state == "slowed_down":
        asked = f"{who} asked to wait until {until}." if until else "It is tried with one message at a time."
        return f"{asked} Nothing to do. If this comes back often, set a lower rate.{waits}"
    return ""


def _waits(one: BackendNow, times: Times) -> str:
    if not one.waiting:
        return ""
    oldest = f", the oldest for {lasting(times.now - one.oldest)}" if one.oldest else ""
    return f" {number(one.waiting, 'message')} wait{'s' if one.waiting == 1 else ''}{oldest}."


_PERIODS = {1: "This second", 60: "This minute", 3600: "This hour", 86400: "Today", 0: "At once"}


def _use(use: Use) -> dict[str, Any]:
    label = _PERIODS.get(int(use.seconds), f"In {use.seconds:g} s")
    part = use.used / use.most if use.most else 0.0
    return {"label": label, "text": f"{use.used:,.0f} of {use.most:,.0f} {use.unit}", "part": part}


def _checked(row: CheckRow, *, unfolded: bool) -> dict[str, Any]:
    check = row.check
    steps = check.steps or (Step("good" if check.ok else "wrong", check.summary, ""),)
    counts = {kind: sum(step.result == kind for step in steps) for kind in _STEPS}
    words = {"good": "good", "wrong": "wrong", "untried": "not tried"}
    shown = [dict(zip(("icon", "tone", "lead"), _STEPS[step.result], strict=True), **fields_of(step)) for step in steps]
    return {
        "checked": row, "steps": shown, "show_check": unfolded,
        "check_words": ", ".join(f"{n} {words[kind]}" for kind, n in counts.items() if n),
    }  # fmt: skip


_MEANS = {
    "sent": "Sent", "rejected": "Refused for good", "deferred": "Put off, tried again",
    "throttled": "Asked to slow down", "misconfigured": "Refuses us", "in_doubt": "No answer: it may have been sent",
    "interrupted": "Interrupted: it may have been sent",
}  # fmt: skip


def _answer(row: AnswerRow) -> dict[str, Any]:
    said = " ".join(filter(None, (str(row.code) if row.code else "", row.enhanced, row.detail))) or row.remote_id
    to = row.recipients[0] if row.recipients and row.verdict == "rejected" else ""
    return {
        "at": row.ended_at, "answer": said or "-", "means": _MEANS.get(row.verdict, row.verdict), "fix": row.fix,
        "to": to, "id": row.message_id,
    }  # fmt: skip


# -- what is done ----------------------------------------------------------------------------------------------------


async def check(visit: Visit) -> Response:
    return await _try(visit, fix=False)


async def fix(visit: Visit) -> Response:
    """Read changed secrets, check, resume what is good; never said to work before a check has passed."""
    return await _try(visit, fix=True)


async def pause(visit: Visit) -> Response:
    name, lasts = _name(visit), visit.text("for")
    await backends.order(visit.service, visit.request, name, "pause", lasts)
    ends = f"for {lasts}" if lasts else "until you resume it"
    return visit.go("/ui/backends", done=visit.say(f"{name} is paused {ends}. Its mail waits and is not lost."))


async def resume(visit: Visit) -> Response:
    name = _name(visit)
    text = f"{name} is resumed: what waited is tried now. The next answer shows whether it works."
    try:
        await backends.order(visit.service, visit.request, name, "resume")
    except HTTPException as error:  # somebody was faster, or pressed twice
        if error.status_code != 409:
            raise
        text = f"{name} works: there was nothing to resume."
    return visit.go("/ui/backends", done=visit.say(text))


def _name(visit: Visit) -> str:
    """Raises HTTPException where there is no such backend."""
    name = str(visit.request.path_params["name"])
    if name not in visit.service.settings.backends:
        raise HTTPException(404, f"There is no backend {name}.")
    return name


async def _try(visit: Visit, *, fix: bool) -> Response:
    name = _name(visit)
    found = await backends.check_now(visit.service, visit.request, name, fix=fix)
    read = _read(name, found)
    if found.ok:
        text = f"{name} passed the check and is resumed." if fix else f"{name} passed the check: {found.summary}."
        return visit.go("/ui/backends", done=visit.say(text + read), checked=name)
    text = f"{name} {'is still stopped' if fix else 'does not work'}: {found.summary}.{read}"
    done = visit.say(text, "bad", link=f"#check-{name}", link_text="See the steps of the check.")
    return visit.go("/ui/backends", done=done, checked=name)


def _read(name: str, found: backends.CheckedNow) -> str:
    """Which secrets were read from their changed files, and what waits for a reload."""
    if found.errors:
        return " The settings on disk have errors, so no changed secret was read."
    text = f" Checked by instance {found.by}, which works it." if found.by else ""
    text += f" Read anew: {', '.join(found.read)}." if found.read else ""
    if found.unlike:
        text += f" To do: {unlike(name, found.by, found.read, found.read_here)}."
    if found.differs:
        text += f" On disk it differs in {', '.join(filter(None, found.differs)) or name}: reload to take that."
    return text
