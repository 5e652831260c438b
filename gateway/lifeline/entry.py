"""One line of a life."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

# Those of an attempt are its verdict (model.Verdict, interrupted, corrupt), or under_way.
KINDS = frozenset((
    "accepted", "made", "decided", "sent", "rejected", "deferred", "throttled", "misconfigured", "in_doubt",
    "interrupted", "corrupt", "under_way", "more", "moved", "rest", "told", "untold", "event", "act", "clock", "now",
))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What happened, when: None is now.

    ``title`` says it in a clause; ``facts`` are its details by name. ``said`` are the other side's own words and
    ``code`` the codes it gave (``said_by`` is gateway where the words are our own); ``meaning`` says them plainly,
    ``fix`` what somebody has to do, ``note`` what follows. ``link`` is the queue id of another message that it is
    about. ``tone`` is quiet, ok, warn or bad. ``seconds``: how long it took. ``cut``: some of it is longer.
    """

    at: datetime | None
    kind: str
    title: str
    facts: tuple[tuple[str, str], ...] = ()
    said: str = ""
    said_by: str = ""
    code: str = ""
    meaning: str = ""
    fix: str = ""
    note: str = ""
    link: str = ""
    backend: str = ""
    remote_id: str = ""
    seconds: float | None = None
    cut: bool = False
    tone: str = field(default="quiet", init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tone", _TONES.get(self.kind, "quiet"))


_TONES = {
    "accepted": "ok",
    "sent": "ok",
    "rejected": "bad",
    "corrupt": "bad",
    "deferred": "warn",
    "throttled": "warn",
    "misconfigured": "bad",
    "in_doubt": "warn",
    "interrupted": "warn",
    "untold": "warn",
    "rest": "warn",
}
