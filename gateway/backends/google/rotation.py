"""Refresh tokens that Google replaces: which one counts now. Blocks, and belongs into a thread."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.backends.shared.base import NoAnswer, Signals
from gateway.backends.shared.stores import FileStore, Shared, Store, Unkept


class Rotation:
    """The refresh token in the file, or the one that has taken its place since.

    An instance that is alone writes that into the file. Several keep it in their spool, by the one in the file: where
    the file is another, somebody has signed in anew. What could not be written lives on in memory.
    """

    def __init__(
        self, backend: str, file: Path, shared: Shared | None, signals: Signals, read: Callable[[], Mapping[str, Any]]
    ) -> None:
        self._backend = backend
        self._file = FileStore(file)
        self._shared = shared
        self._signals = signals
        self._read = read
        self._filed = ""  # the one in the file
        self._before: bytes | None = None  # the one that was shared instead, when somebody last looked
        self._next = ("", "")  # the one that was kept, and the one that has replaced it

    def now(self, filed: str) -> str:
        """The one to use for that in the file. Raises Unreadable, Unkept."""
        self._filed = filed
        self._before = store.read() if (store := self._store()) else None
        kept = self._before.decode(errors="replace") if self._before else filed
        return self._next[1] if kept == self._next[0] else kept

    def replaced(self, info: Mapping[str, Any], token: str) -> None:
        """``token`` has taken its place. What by now is there from another hand is newer, and stays."""
        self._next = (self._before.decode(errors="replace") if self._before else self._filed), token
        try:
            if store := self._store():
                store.write(token.encode(), self._before)
            elif self._untouched():
                self._file.put(json.dumps({**info, "refresh_token": token}, indent=1).encode())
        except Unkept as error:
            self._signals.warning("refresh_token_not_saved", backend=self._backend, detail=str(error))

    def _untouched(self) -> bool:
        """Nobody has signed in anew meanwhile, or taken the file away."""
        try:
            return str(self._read().get("refresh_token") or "") == self._filed
        except NoAnswer:
            return False

    def _store(self) -> Store | None:
        digest = hashlib.sha256(self._filed.encode()).hexdigest()[:16]
        return self._shared(f"refresh-token:{self._backend}:{digest}") if self._shared and self._filed else None
