"""What ends, in one list: certificates, secrets, sign-ins, keys, and the tokens that were minted here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from gateway.config.document import dotted
from gateway.config.finding import Ending
from gateway.config.models import BackendSettings, Settings
from gateway.health.records import Ends
from gateway.spool import TokenRow

LASTING = timedelta(days=30)  # a token made for less was meant to end
_KINDS = {"certificate": "certificate", "secret": "secret", "sign-in": "sign_in"}  # by a word of what an Ending says

_RENEWS = "certificate_renew"
_RIGHTS = {
    _RENEWS: "certificate",
    "certificate_file": "certificate",
    "client_secret_expires": "secret",
    "client_secret": "secret",
}
_WORDS = {"certificate": "The certificate", "secret": "The client secret", "sign_in": "The sign-in"}


def ends(
    settings: Settings,
    endings: Sequence[Ending],
    heard: Mapping[tuple[str, str], float],
    tokens: Collection[TokenRow] = (),
    renewals: Mapping[str, tuple[str, str]] | None = None,
) -> tuple[Ends, ...]:
    """The first first. ``endings`` are those that files and settings tell; ``heard`` is what backends and listeners
    found out (events.Memory.ends), for those of which no file tells. ``renewals`` is what hinders keys that renew
    themselves, and what helps, by backend."""
    found = [_of_file(one) for one in endings]
    told = {one.of for one in found}
    for (kind, name), at in heard.items():
        place, known = ("backend", settings.backends) if kind == "credential" else ("listener", settings.listeners)
        if name in known and f"{place} {name}" not in told:
            setting, what = _right(settings.backends[name]) if kind == "credential" else ("", "certificate")
            found.append(_heard(setting, what, place, name, at))
    found += [_of_token(row, row.expires_at) for row in tokens if row.expires_at is not None]
    hinders = {f"backend {name}": why for name, why in (renewals or {}).items()}
    for index, one in enumerate(found):
        if one.renews and (why := hinders.get(one.of)):
            found[index] = replace(one, trouble=why[0], fix=why[1])
    return tuple(sorted(found, key=lambda one: (one.ends_at, one.key)))


def _right(section: BackendSettings) -> tuple[str, str]:
    """By what right it gets tokens: the setting, and the word for it; what else is good for a time is a sign-in."""
    sections = {"": section, "microsoft.": getattr(section, "microsoft", None)}
    given = (
        (f"{above}{name}", kind) for above, one in sections.items() for name, kind in _RIGHTS.items()
        if getattr(one, name, None)
    )  # fmt: skip
    return next(given, ("", "sign_in"))


def _heard(setting: str, kind: str, place: str, name: str, at: float) -> Ends:
    """With the key that its file has, where that is not read in time: nobody is told twice."""
    key, ends_at = ".".join(filter(None, (f"{place}s", name, setting))), datetime.fromtimestamp(at, UTC)
    renews = setting.endswith(_RENEWS)
    return Ends(key=key, kind=kind, what=_WORDS[kind], of=f"{place} {name}", ends_at=ends_at, renews=renews)


def _of_file(one: Ending) -> Ends:
    place, name = (str(one.keys[0]), str(one.keys[1])) if one.keys[0] != "auth" else ("keys", str(one.keys[2]))
    kind = next((kind for word, kind in _KINDS.items() if word in one.what), "key")
    what = f"{one.what[:1].upper()}{one.what[1:]}".removesuffix(" in it")
    of = f"{place.rstrip('s')} {name}"
    return Ends(key=dotted(one.keys), kind=kind, what=what, of=of, ends_at=one.ends, renews=one.renews)


def _of_token(row: TokenRow, ends_at: datetime) -> Ends:
    of = f"{row.subject} ({row.note})" if row.note else row.subject
    return Ends(key=f"token:{row.jti}", kind="token", what="The token", of=of, ends_at=ends_at)
