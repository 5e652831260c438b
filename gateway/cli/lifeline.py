"""The whole life of a message in plain words: `gateway trace`, `queue show`, `send-test` and `demo` print it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.cli.plain import moment, span, stamp
from gateway.telling import STATES, people, spoken

Json = Mapping[str, Any]
addresses = people


def answer(row: Json) -> str:
    """The other side's own words, with the codes it gave in front."""
    return " ".join(filter(None, spoken(row["code"], row["enhanced"], row["detail"], row.get("said_by", ""))))


def state(row: Json) -> str:
    """Of a message in a list, in the words of the log and of --state."""
    return "in_doubt" if row["in_doubt"] else "sent" if row["state"] == "done" else str(row["state"])


def to_do(row: Json) -> str:
    """What a person has to do about an answer or about a backend that rests, "" for nothing."""
    return f"to do: {' '.join(row['fix'].split())}" if row.get("fix") else ""


def lines(detail: Json) -> Iterator[str]:
    """Who to whom, then each entry of its life with what belongs to it below."""
    names = [row["address"] for row in detail["recipients"]]
    state = STATES[detail["shown"]].word
    yield f"{detail['id']}  from {detail['sender'] or '<>'} to {addresses(names)}: {state}"
    for entry in detail["life"]:
        yield from _entry(entry)
    if any(entry["cut"] or entry["kind"] == "more" for entry in detail["life"]):
        yield f"  there is more: gateway trace {detail['id']} --all"


def _entry(entry: Json) -> Iterator[str]:
    at = moment(entry["at"])
    took = f"{entry['seconds']:.1f} s" if entry["seconds"] is not None else ""
    behind = ", ".join(filter(None, (f"as {entry['remote_id']}" if entry["remote_id"] else "", took)))
    yield f"  {stamp(at) if at else '=> now':20}  {entry['title']}" + (f" ({behind})" if behind else "")
    width = max((len(name) for name, _ in entry["facts"]), default=0)
    below = [f"{name:{width}}  {text}" for name, text in entry["facts"]]
    said = " ".join(filter(None, (entry["code"], entry["said"])))
    by_them = "they said: " if entry["said_by"] != "gateway" else ""
    below += [f"{by_them}{said}" if said else "", entry["meaning"], entry["note"], to_do(entry)]
    yield from (f"{'':24}{text}" for text in below if text)


def step(row: Json) -> str:
    """The machine's clock was set."""
    was, is_now = moment(row["was_at"]), moment(row["now_at"])
    if was is None or is_now is None:
        return ""
    seconds = (is_now - was).total_seconds()
    direction = "forward" if seconds > 0 else "back"
    return f"{stamp(is_now)}  this machine's clock was set {direction} by {span(abs(seconds))}, from {stamp(was)}"


def reason(backend: Json) -> str:
    """What the backend said; an operator gives no reason."""
    return "" if backend.get("paused_by") == "operator" else backend.get("reason", "")
