"""Backend ``capture``: each message as an .eml file and its envelope as .json beside it. Delivers nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from gateway.backends.shared.base import UNBOUNDED, Context, limited, unrecorded
from gateway.checks import Check, good, untried, wrong
from gateway.config.finding import Examined, Finding
from gateway.config.models import BackendSettings
from gateway.files import unwritable, write_whole
from gateway.model import Capabilities, Outcome, Progress, Scope, SpooledMessage, Verdict, same_for_all
from gateway.pools import Pool

# Disks of others hang: those who wait for them need neither the loop's threads nor those that read mail.
_in_thread = Pool("capture", 4)
_UNTRIED = untried("Whether there is room for a large message")
_FIX = "let the service's user write there, or change directory"


class CaptureSettings(BackendSettings):
    """``directory`` may be relative to the state directory."""

    label: ClassVar[str] = "Files"
    type: Literal["capture"] = "capture"
    directory: Path = Path("captured")

    @property
    def known_as(self) -> Mapping[str, str]:
        return {"directory": str(self.directory)}

    def examine(self, name: str, state_dir: Path) -> Examined:
        why = unwritable(state_dir / self.directory, made=True)
        if why and not unwritable(state_dir, made=True):  # else that is what has to be corrected
            yield Finding(("directory",), why)


class Capture:
    """Writes ``<queue id>.eml`` with the exact bytes; a repeated delivery writes the same file again."""

    def __init__(self, name: str, settings: CaptureSettings, context: Context) -> None:
        self.name = name
        self.capabilities = limited(Capabilities(UNBOUNDED), settings)
        self._directory = context.state_dir / settings.directory

    async def send(self, message: SpooledMessage, raw: bytes, progress: Progress = unrecorded) -> dict[str, Outcome]:
        try:
            path = await _in_thread(partial(self._store, message, raw))
        except OSError as error:
            detail = f"cannot write to {self._directory}: {error.strerror or error}"
            outcome = Outcome(Verdict.DEFERRED, enhanced="4.3.1", detail=detail, scope=Scope.BACKEND, fix=_FIX)
            return same_for_all(message, outcome)
        outcome = Outcome(Verdict.SENT, enhanced="2.0.0", detail=f"captured in {path}", remote_id=path.name)
        return same_for_all(message, outcome)

    async def check(self) -> Check:
        """Writes and removes an empty file. The first mail makes the folder: who looks may be another user."""
        facts = {"directory": str(self._directory)}
        try:
            await _in_thread(self._probe)
        except OSError as error:
            said = error.strerror or str(error)
            steps = (wrong(f"{self._directory} cannot be written.", said), _UNTRIED)
            return Check(False, f"cannot write to {self._directory}: {said}", _FIX, facts, steps)
        steps = (good(f"A file was written to {self._directory} and removed."), _UNTRIED)
        return Check(True, f"files are written to {self._directory}", facts=facts, steps=steps)

    async def aclose(self) -> None:
        pass

    def _probe(self) -> None:
        there = next(one for one in (self._directory, *self._directory.parents) if one.exists())
        tempfile.TemporaryFile(dir=there).close()

    def _store(self, message: SpooledMessage, raw: bytes) -> Path:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        envelope = asdict(message.envelope)
        facts = {"id": message.id, "client": message.client, "received_at": message.received_at.isoformat()}
        path = self._path(message)
        write_whole(path, raw)
        write_whole(path.with_suffix(".json"), json.dumps({**facts, **envelope}, indent=1).encode() + b"\n")
        return path

    def _path(self, message: SpooledMessage) -> Path:
        """Plain for the first set of recipients of a message; another set never overwrites it."""
        plain = self._directory / f"{message.id}.eml"
        addresses = sorted(recipient.address for recipient in message.envelope.recipients)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            there = json.loads(plain.with_suffix(".json").read_bytes())["recipients"]
            if sorted(recipient["address"] for recipient in there) != addresses:
                digest = hashlib.sha256("\n".join(addresses).encode()).hexdigest()
                return plain.with_stem(f"{message.id}-{digest[:8]}")
        return plain
