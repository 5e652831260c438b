"""A command line taken apart, once for all sessions: most say what many others said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Generic, TypeVar

from gateway.smtp import replies
from gateway.smtp.login import holds_answer

V = TypeVar("V")
LONGEST = 12288 + 32  # octets of a line, RFC 4954 4.5.6
_COMMAND = 2048  # octets of a command line, AUTH excepted
_REMEMBERED = 256  # octets of one that is remembered
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_FOREIGN = frozenset(b"GET POST PUT HEAD OPTIONS CONNECT DELETE PATCH TRACE PRI PROXY".split())
_STAGES = {b"MAIL": "mail", b"RCPT": "rcpt", b"DATA": "data", b"AUTH": "auth"}


class StrayLogin(Exception):
    """A line that is no AUTH holds a name and a password: nothing of it may be kept or quoted."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = stage


class Commands(Generic[V]):
    """The verbs by name. Called with a line, without its end, it gives what its verb stands for, the argument and the
    stage of the session that refusals are counted under. Raises Refusal, StrayLogin.

    Short lines that are in order are remembered, the last thousand. AUTH is not, for it may bring a password, nor is
    anything that is refused: it may be the answer of a client out of step.
    """

    def __init__(self, verbs: Mapping[bytes, V]) -> None:
        self._verbs = verbs
        self._known = lru_cache(maxsize=1024)(self._look)

    def __call__(self, line: bytes) -> tuple[V, bytes, str]:
        if len(line) > _REMEMBERED or line[:4].upper() == b"AUTH":
            return self._look(line)
        return self._known(line)

    def _look(self, line: bytes) -> tuple[V, bytes, str]:
        verb = line.partition(b" ")[0].upper()
        if verb in _FOREIGN or verb.endswith(b":") or not (verb[:1].isalpha() or verb == b""):
            raise replies.foreign(verb)
        if len(line) > (LONGEST if verb == b"AUTH" else _COMMAND):
            raise replies.too_long(verb)
        if found := _CONTROL.search(line):
            raise (replies.NUL if found[0] == b"\0" else replies.CONTROL)()
        if verb not in self._verbs:
            raise replies.UNKNOWN()
        stage = _STAGES.get(verb, "command")
        if verb != b"AUTH" and holds_answer(line):
            raise StrayLogin(stage)
        return self._verbs[verb], line[len(verb) :].strip(), stage
