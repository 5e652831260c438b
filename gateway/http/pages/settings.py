"""The last run of the doctor, the settings in force, and the reload of their file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.responses import Response

from gateway.config import ConfigError
from gateway.config.inforce import Setting
from gateway.doctor import Busy
from gateway.doctor.finding import AREAS
from gateway.health.gather import gather
from gateway.health.problems import problems
from gateway.http import api, settings
from gateway.http.pages.standing import ending
from gateway.http.pages.visit import View, Visit
from gateway.http.service import running

_MOST = 150  # rows on a page
_LONG = 120  # characters of a value that is one line


@dataclass(frozen=True, slots=True)
class Row:
    """A setting as it is shown."""

    key: str
    text: str
    secret: bool
    origin: str
    default_text: str


async def page(visit: Visit) -> View:
    doctor, in_force = visit.service.doctor, visit.service.in_force
    report, q, everything = doctor.last, visit.text("q")[:200], visit.text("all") == "1"
    found = report.findings if report else ()
    serious = [one for one in found if one.level in ("bad", "warn", "note")]
    shown, hidden = settings.chosen(visit.service, q=q, everything=everything)
    path, seen = in_force.loaded.path, await gather(visit.service)
    values = {
        "section": "settings", "report": report, "under_way": doctor.under_way, "watched": bool(visit.asked_part),
        "heading": _heading(len([one for one in serious if one.level != "note"]), bool(report)),
        "whole": report is not None and len(report.areas) == len(AREAS), "findings": serious,
        "good": [one for one in found if one.level == "good"],
        "unseen": [one for one in found if one.level == "unknown"],
        "show": visit.text("good") == "1", "reload": in_force.failed,
        "ends": [ending(one, seen.now) for one in seen.ends],
        "read_at": in_force.read_at, "file": str(path) if path else "", "q": q, "all": everything, "hidden": hidden,
        "rows": [_row(one) for one in shown[:_MOST]], "more": max(0, len(shown) - _MOST),
        "sentence": partial(_sentence, _names(visit)),
    }  # fmt: skip
    return View(template="settings.html", values=values, needs=len(problems(seen)))


def _names(visit: Visit) -> set[str]:
    """What begins a sentence as it is written in the file."""
    settings = visit.service.settings
    return {*settings.backends, *settings.listeners, *settings.clients}


def _sentence(names: set[str], text: str, about: str = "") -> str:
    """With a capital, unless it begins with a name, as "example.com: the SPF record ...". What it is ``about``, as
    "backends.office", is named, if it is not in it."""
    if about and (name := about.partition(".")[2] if about.partition(".")[2] in names else about) not in text:
        return f"{name}: {text}"
    first = text.partition(" ")[0]
    named = first in names or not first.isalpha()
    return text if named else f"{text[:1].upper()}{text[1:]}"


def _heading(findings: int, looked: bool) -> str:
    if not looked:
        return "The doctor has not looked yet"
    return f"Doctor: {findings or 'no'} finding{'' if findings == 1 else 's'}"


def _row(one: Setting) -> Row:
    default = _text(one.default) if one.changed and one.default is not None else ""
    return Row(one.key, _text(one.value), one.secret, one.origin, default)


def _text(value: Any) -> str:
    """As the file would say it."""
    return json.dumps(value, ensure_ascii=False)


async def look(visit: Visit) -> Response:
    """Begin a run; the page tells how far it is."""
    running(visit.service)
    try:
        visit.service.doctor.start(visit.actor.name)
    except Busy as error:
        return visit.go("/ui/settings", done=visit.say(f"{str(error)[:1].upper()}{str(error)[1:]}.", "warn"))
    return visit.go("/ui/settings")


async def reload(visit: Visit) -> Response:
    """What changed, what needs a restart, or every error with its line."""
    try:
        lines = await api.reload_now(visit.service, visit.request)
    except ConfigError:
        return visit.go("/ui/settings", done=visit.say("Nothing was changed: the file is wrong, see below.", "bad"))
    later = [line for line in lines if line.endswith("needs a restart")]
    text = f"The settings were read again: {'; '.join(lines)}." if lines else "Read again: nothing has changed."
    return visit.go("/ui/settings", done=visit.say(text, "warn" if later else "ok"))
