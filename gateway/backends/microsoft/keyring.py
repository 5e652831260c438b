"""What is kept of a certificate that renews itself: the key in use, the next one, and those that are to go.

One for an application and the certificate that it was given at first, whoever uses it: backends that name the same
file, and instances that share a spool. A new ``certificate_file`` begins anew.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from gateway.backends.microsoft import certificate, keypair
from gateway.backends.microsoft.certificate import Pair, Source
from gateway.backends.shared.stores import Shared, Store, Unreadable, kept_as

_REMEMBERED = 400  # characters of what was said at a failure


@dataclass(frozen=True, slots=True)
class Key:
    """``id`` is what Entra calls it; "" is not known."""

    id: str
    certificate: str
    private_key: str = field(repr=False)

    @property
    def pair(self) -> Pair:
        """Raises ValueError."""
        return keypair.again(self.certificate, self.private_key)


@dataclass(frozen=True, slots=True)
class State:
    """Times are in seconds since 1970, 0 for never. ``current`` None: the key in certificate_file.

    ``asked`` is when Entra was last asked to take a key, ``unsure`` whether the answer was lost, ``tries`` how often
    the next one gave no token. ``old`` are ids of keys to be removed, ``busy`` is until when somebody is at it.
    """

    current: Key | None = None
    next: Key | None = None
    unsure: bool = False
    old: tuple[str, ...] = ()
    asked: float = 0.0
    switched: float = 0.0
    cleaned: float = 0.0
    busy: float = 0.0
    tries: int = 0
    trouble: str = ""
    fix: str = ""

    def failed(self, trouble: str, fix: str) -> State:
        return replace(self, trouble=trouble[:_REMEMBERED], fix=fix[:_REMEMBERED])


@dataclass(frozen=True, slots=True)
class Kept:
    """``value`` is as it was read, to be replaced by nobody else's; ``pair`` is good now."""

    store: Store
    value: bytes | None = field(repr=False)
    state: State
    pair: Pair


@dataclass(frozen=True, slots=True)
class Keyring:
    """All of it blocks and belongs into a thread."""

    source: Source
    client_id: str
    folder: Path
    shared: Shared | None

    def pair(self) -> Pair:
        """That to ask for tokens with. Raises certificate.Unusable, Unkept.

        Where what is kept is damaged, the first one: it may still be good.
        """
        first = self._first()
        try:
            return self._kept(first).pair
        except Unreadable:
            return first

    def look(self) -> Kept:
        """Raises certificate.Unusable, Unkept, Unreadable."""
        return self._kept(self._first())

    def _first(self) -> Pair:
        files = [file for file in (self.source.certificate, self.source.key) if file]
        with suppress(OSError):
            return _read(self.source, tuple((one.st_mtime_ns, one.st_size) for one in map(Path.stat, files)))
        return certificate.read(self.source)  # which says why it cannot be read

    def _kept(self, first: Pair) -> Kept:
        store = self._store(first)
        if (value := store.read()) is None:
            return Kept(store, None, State(), first)
        try:
            state = _state(value)
            return Kept(store, value, state, state.current.pair if state.current else first)
        except (ValueError, TypeError, LookupError, AttributeError):
            raise Unreadable(f"{store.shown}: damaged") from None

    def _store(self, first: Pair) -> Store:
        name = hashlib.sha256(self.client_id.lower().encode() + keypair.der(first)).hexdigest()[:16]
        return kept_as(f"certificate:{name}", self.folder / f"certificate-{name}.json", self.shared)


@lru_cache(maxsize=16)
def _read(source: Source, _stamps: tuple[tuple[int, int], ...]) -> Pair:
    """Once as long as the files stay as they are: it takes a tenth of a second."""
    return certificate.read(source)


def put(kept: Kept, state: State) -> Kept | None:
    """``state`` in the place of what was read; None where somebody else was faster. Blocks. Raises Unkept."""
    value = json.dumps(asdict(state), sort_keys=True).encode()
    pair = state.current.pair if state.current else kept.pair
    return Kept(kept.store, value, state, pair) if kept.store.write(value, kept.value) else None


def _state(value: bytes) -> State:
    given: dict[str, Any] = json.loads(value)
    for name in ("current", "next"):
        given[name] = Key(**given[name]) if given.get(name) else None
    return State(**{**given, "old": tuple(given.get("old", ()))})
