"""What ends, in one list: certificates, secrets, sign-ins, keys, and the tokens that were minted here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from gateway.config.document import dotted
from gateway.config.finding import Ending
from gateway.config.models import Settings
from gateway.health.records import Ends
from gateway.spool import TokenRow

LASTING = timedelta(days=30)  # a token made for less was meant to end
_KINDS = {"certificate": "certificate", "secret": "secret", "sign-in": "sign_in"}  # by a word of what an Ending says


def ends(
    settings: Settings,
    endings: Sequence[Ending],
    heard: Mapping[tuple[str, str], float],
    tokens: Collection[TokenRow] = (),
) -> tuple[Ends, ...]:
    """The first first. ``endings`` are those that files and settings tell; ``heard`` is what backends and listeners
    found out (events.Memory.ends), for those of which no file tells."""
    found = [_of_file(one) for one in endings]
    told = {one.of for one in found}
    for (kind, name), at in heard.items():
        place, known = ("backend", settings.backends) if kind == "credential" else ("listener", settings.listeners)
        if name in known and f"{place} {name}" not in told:
            found.append(_heard(kind, place, name, at))
    found += [_of_token(row, row.expires_at) for row in tokens if row.expires_at is not None]
    return tuple(sorted(found, key=lambda one: (one.ends_at, one.key)))


def _heard(kind: str, place: str, name: str, at: float) -> Ends:
    what = {"credential": ("sign_in", "The sign-in"), "certificate": ("certificate", "The certificate")}
    one, words = what[kind]
    ends_at = datetime.fromtimestamp(at, UTC)
    return Ends(key=f"{place}s.{name}", kind=one, what=words, of=f"{place} {name}", ends_at=ends_at)


def _of_file(one: Ending) -> Ends:
    place, name = (str(one.keys[0]), str(one.keys[1])) if one.keys[0] != "auth" else ("keys", str(one.keys[2]))
    kind = next((kind for word, kind in _KINDS.items() if word in one.what), "key")
    what = f"{one.what[:1].upper()}{one.what[1:]}".removesuffix(" in it")
    return Ends(key=dotted(one.keys), kind=kind, what=what, of=f"{place.rstrip('s')} {name}", ends_at=one.ends)


def _of_token(row: TokenRow, ends_at: datetime) -> Ends:
    of = f"{row.subject} ({row.note})" if row.note else row.subject
    return Ends(key=f"token:{row.jti}", kind="token", what="The token", of=of, ends_at=ends_at)
