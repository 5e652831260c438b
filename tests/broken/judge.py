"""Whether each place names the true cause, says what is not lost, and sends nobody to the wrong place."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.broken.kit import WAITS, Ends, Place, Seen


def faults(seen: Seen) -> Iterator[str]:
    """What is silent, misleading, or contradicts another."""
    case = seen.case
    states = {Ends.STOPPED: "stopped", Ends.SLOWED: "slowed_down"}
    if seen.state != (wanted := states.get(case.ends, "working")):
        yield f"the backend is {seen.state}, not {wanted}"
    yield from _named("life", seen, seen.tried)
    if case.ends is Ends.STOPPED:
        yield from _named("status", seen, seen.status)
        yield from _named("life now", seen, seen.now)
        yield from () if re.search(WAITS, seen.status.cost) else ("status: does not say that mail waits",)
        yield from () if seen.alert == seen.status else (f"alert: not what status says: {seen.alert}",)
        for part in (seen.status.what.rstrip("."), seen.status.said[:60]):
            yield from () if part in seen.overview else (f"overview: lacks {part}",)
    elif case.ends is Ends.SLOWED:
        yield from _named("life now", seen, seen.now)
        yield from () if seen.until else ("backend: does not say until when",)
        yield from () if "tries again at" in seen.now.cost else ("life: does not say when it goes on",)
        yield from (
            () if not seen.alert and not seen.status else (f"alert or problem of what ends by itself: {seen.status}",)
        )
    elif case.ends is Ends.WAITS:
        yield from _named("status", seen, seen.status)
        yield from () if seen.alert == seen.status else (f"alert: not what status says: {seen.alert}",)
        yield from () if "other mail" in seen.status.cost.lower() else ("status: does not say that other mail goes on",)
        yield from () if "tried again" in seen.tried.cost else ("life: does not say that it is tried again",)
    else:
        yield from _named("life now", seen, seen.now)
        yield from () if not seen.status and not seen.alert else (f"a problem of one message: {seen.status}",)
        yield from (
            () if "was told" in seen.life or "told that" in seen.life else (f"life: was the sender told? {seen.life}",)
        )
    for part in (seen.tried.what, seen.tried.said.split("…")[0][:60], seen.tried.fix):
        yield from () if part in seen.page else (f"page: lacks {part}",)
    yield from _doctor(seen)


def _named(where: str, seen: Seen, place: Place) -> Iterator[str]:
    case = seen.case
    if not place:
        yield f"{where}: silent"
        return
    if not re.search(case.named, place.text):
        yield f"{where}: does not name it: {place.text}"
    if not re.search(case.cure, place.fix, re.IGNORECASE):
        yield f"{where}: wrong cure: {place.fix}"
    if case.never and (found := re.search(case.never, f"{place.what} {place.fix}", re.IGNORECASE)):
        yield f"{where}: leads astray by {found[0]!r}: {place.fix}"
    for lie in LIES:
        if lie in place.text:
            yield f"{where}: not true: {lie}"


LIES = ("They do not take this mail", "Connect call failed", "Their server does not answer")


def _doctor(seen: Seen) -> Iterator[str]:
    case = seen.case
    said = " ".join(f"{one.text} {one.fix}" for one in seen.doctor)
    if case.doctor:
        named, cure = (case.named, case.cure) if case.doctor == "same" else (case.doctor, "")
        if not re.search(named, said):
            yield f"doctor: does not name it: {said}"
        if not re.search(cure, said, re.IGNORECASE):
            yield f"doctor: wrong cure: {said}"
    elif case.ends in (Ends.STOPPED, Ends.SLOWED) and not re.search(case.named, said):
        yield f"doctor: contradicts: {said} {seen.unseen}"
    if case.never and (found := re.search(case.never, " ".join(one.fix for one in seen.doctor), re.IGNORECASE)):
        yield f"doctor: leads astray by {found[0]!r}: {said}"
    if re.search("Connect call failed", said):
        yield f"doctor: {said}"
