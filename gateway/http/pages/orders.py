"""Acting on messages: a page that asks first where that is due, the deed, and the progress of long work."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from starlette.exceptions import HTTPException
from starlette.responses import Response

from gateway.http.pages.asking import AT_ONCE, TYPED, VERBS, Ask, Done, carry, of_work
from gateway.http.pages.messages import counted, list_url, wanted_of
from gateway.http.pages.visit import View, Visit
from gateway.http.work import Work
from gateway.spool import Cut, Filter, MessageRow

_NAMED = 1000  # messages whose clients are counted


async def all_found(visit: Visit) -> View:
    """What can be done to all that a list found, up to the newest that its page knew."""
    query = visit.request.query_params
    wanted, upto = wanted_of(query), query.get("upto", "")
    total = await visit.service.spool.total(replace(wanted.filter(visit, wanted.by), upto=upto), 1001)
    values = {
        "section": "messages", "wanted": wanted, "upto": upto, "total": counted(total.number, more=total.more),
        "verbs": VERBS, "back": list_url(wanted), "hidden": {n: v for n, v in wanted.query.items() if v},
    }  # fmt: skip
    return View(template="all.html", values=values)


async def ask(visit: Visit) -> View | Response:
    """Changes nothing where it asks; what needs no asking is done at once."""
    verb = visit.text("verb")
    if verb == "resend":
        verb = "again"
    if verb not in VERBS:
        raise HTTPException(400, f"There is no act {verb}. There are {', '.join(VERBS)}.")
    found = _asked(visit, verb)
    if not found.ids and not found.given:
        return View(template="chosen.html", values={"section": "messages", "back": list_url(found.wanted)}, status=400)
    await _count(visit, found)
    if not found.words.asks and found.ids and len(found.ids) <= AT_ONCE:
        return await _do(visit, _kept(visit, found, _pressed(visit)), "")
    return await _page(visit, found, visit.desk.keep_ask(visit.person.key, found))


def _asked(visit: Visit, verb: str) -> Ask:
    wanted = wanted_of({name[2:]: values[0] for name, values in visit.form.items() if name.startswith("f_")})
    if ids := tuple(dict.fromkeys(visit.texts("id"))):
        return Ask(verb, wanted, ids, one=visit.text("one") == "1")
    if visit.text("all") != "1" or not visit.text("upto"):
        return Ask(verb, wanted)
    which = wanted.filter(visit, wanted.by)
    given = {
        "state": which.state, "client": which.client, "backend": which.backend, wanted.by or "address": wanted.q,
        "since": which.since.isoformat() if which.since else "",
        "until": which.until.isoformat() if which.until else "", "upto": visit.text("upto"),
    }  # fmt: skip
    return Ask(verb, wanted, given={name: value for name, value in given.items() if value})


async def _count(visit: Visit, found: Ask) -> None:
    if found.ids:
        found.count = len(found.ids)
        return
    totals = [await visit.service.spool.total(one) for one in found.filters(visit.service)]
    found.count, found.more = sum(one.number for one in totals), any(one.more for one in totals)


def _pressed(visit: Visit) -> str:
    """The same button of the same page with the same ticks is the same press; a page that was loaded again is not."""
    said = "\n".join(f"{name}={value}" for name, values in sorted(visit.form.items()) for value in values)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _kept(visit: Visit, found: Ask, number: str) -> Ask:
    """What was pressed before, if it was."""
    if (before := _asked_before(visit, number)) is not None:
        return before
    visit.desk.put_ask(visit.person.key, number, found)
    return found


def _asked_before(visit: Visit, number: str) -> Ask | None:
    found = visit.desk.find_ask(visit.person.key, number)
    return found if isinstance(found, Ask) else None


async def _page(visit: Visit, found: Ask, number: str, wrong: str = "") -> View:
    rows = await _rows(visit, found)
    backends = visit.service.dispatcher.status() if visit.service.dispatcher is not None else {}
    ways = Counter(name for row in rows for name in row.backends)
    resting = [name for name, _ in ways.most_common() if name in backends and backends[name].paused_by]
    clients = Counter(row.client or "the gateway" for row in rows) if len(rows) >= found.count else Counter[str]()
    values = {
        "section": "messages", "ask": found, "number": number, "wrong": wrong,
        "title": found.words.title.format(found.named), "from_clients": clients.most_common(5),
        "which": _which(visit, found), "oldest": min(rows, key=lambda row: row.id, default=None),
        "typed": str(found.count) if found.verb == "delete" and found.count >= TYPED else "",
        "resting": resting[:1], "back": _back(found), "backends": list(visit.service.settings.backends),
        "hidden": {f"f_{name}": value for name, value in found.wanted.query.items() if value},
        "open": not rows or any(row.state in ("queued", "held") for row in rows), "label": _label(found),
        "none": not found.count,
    }  # fmt: skip
    return View(template="ask.html", values=values, status=422 if wrong else 200)


def _label(found: Ask) -> str:
    """Names the act and how many it is for."""
    verb = found.words.title.rstrip("?")
    return verb.format(found.named)


async def _rows(visit: Visit, found: Ask) -> Sequence[MessageRow]:
    """Those it is about, where they are few; else the oldest."""
    spool = visit.service.spool
    if found.ids:
        return (await spool.page(Filter(ids=found.ids[:_NAMED]), Cut(limit=_NAMED))).messages
    limit = _NAMED if found.count <= _NAMED else 1
    pages = [await spool.page(one, Cut(limit=limit, oldest=True)) for one in found.filters(visit.service)]
    return [row for page in pages for row in page.messages]


def _which(visit: Visit, found: Ask) -> str:
    if found.ids:
        return ", ".join(found.ids[:3]) + (f" and {len(found.ids) - 3:,} more" if len(found.ids) > 3 else "")
    words = [f"{name} {value}" for name, value in found.given.items() if name != "upto"]
    return ", ".join([*(words or ["all that this is for"]), f"accepted up to {visit.times.text(visit.times.now)}"])


def _back(found: Ask) -> str:
    return f"/ui/messages/{found.ids[0]}" if found.one else list_url(found.wanted)


async def do(visit: Visit) -> View | Response:
    """Needs the number that ``ask`` made; it works once, and shows what it did as often as it is pressed."""
    number = visit.text("number")
    found = _asked_before(visit, number)
    if found is None:
        raise HTTPException(
            409, "Nothing was done: the question is too old, or the service was started anew. Ask again."
        )
    typed = visit.text("typed").replace(",", "").replace(".", "")
    if found.doing is None and found.verb == "delete" and found.count >= TYPED and typed != str(found.count):
        return await _page(visit, found, number, f"Type {found.count:,} to go on. Nothing was done.")
    return await _do(visit, found, visit.text("backend"))


async def _do(visit: Visit, found: Ask, backend: str) -> Response:
    try:
        done = await carry(visit, found, backend)
    except Exception:
        found.doing = None  # it may be pressed again, and goes on with what is left
        raise
    return _told(visit, found, done)


def _told(visit: Visit, found: Ask, done: Done) -> Response:
    if done.work:
        return visit.go(f"/ui/work/{done.work}")
    link = f"/ui/messages/{done.copy}" if done.copy else ""
    number = visit.say(done.text, done.tone, link=link, link_text=f"Show the copy {done.copy}" if done.copy else "")
    if found.one and found.verb != "delete":
        return visit.go(f"/ui/messages/{found.ids[0]}", done=number)
    return visit.go("/ui/messages", **found.wanted.query, done=number)


# -- long work ---------------------------------------------------------------------------------------------------


def _work(visit: Visit) -> Work:
    given = visit.request.path_params["n"]
    found = visit.service.works.get(int(given)) if given.isascii() and given.isdigit() and len(given) < 10 else None
    if found is None:
        raise HTTPException(404, "This work is not known: it is remembered for a while, and not over a restart.")
    return found


async def work(visit: Visit) -> View:
    found = _work(visit)
    words, share = of_work(found)
    spent = ((found.ended_at or visit.service.clock.now()) - found.started_at).total_seconds()
    left = spent / share - spent if 0 < share < 1 and not found.ended_at else None
    values = {
        "section": "messages",
        "work": found,
        "words": words,
        "share": share,
        "left": left,
        "result": _result(found),
    }
    return View(template="work.html", values=values)


def _result(found: Work) -> list[str]:
    return [f"{one.count:,} left alone: {one.why}" for one in (found.result.why if found.result else ())]


async def stop(visit: Visit) -> Response:
    """After the step that it is at; what was done holds."""
    found = _work(visit)
    visit.service.works.stop(found)
    return visit.go(f"/ui/work/{found.id}")
