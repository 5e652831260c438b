"""capture: exact bytes on disk, whole or not at all, and the same name for the same delivery."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.capture import Capture, CaptureSettings
from gateway.model import Recipient, Verdict
from tests.backends import kit
from tests.backends.kit import RAW, spooled


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Capture]:
    async with kit.context(tmp_path) as context:
        yield Capture("box", CaptureSettings(), context)


async def test_the_file_holds_the_bytes_and_the_json_the_envelope(box: Capture, tmp_path: Path) -> None:
    raw = b"no header at all\n\xff\x00\r."
    message = spooled(
        Recipient("ü@x.example", notify="NEVER", orcpt="rfc822;a"), sender="", smtputf8=True, envid="E1", ret="HDRS"
    )
    outcome = (await box.send(message, raw))["ü@x.example"]
    file = tmp_path / "captured" / "Q1.eml"
    assert (outcome.verdict, outcome.code, outcome.enhanced) == (Verdict.SENT, None, "2.0.0")
    assert (outcome.remote_id, outcome.detail) == ("Q1.eml", f"captured in {file}")
    assert file.read_bytes() == raw
    assert json.loads(file.with_suffix(".json").read_text()) == {
        "id": "Q1",
        "client": "localhost",
        "received_at": "2026-11-20T12:00:00+00:00",
        "sender": "",
        "recipients": [{"address": "ü@x.example", "notify": "NEVER", "orcpt": "rfc822;a"}],
        "smtputf8": True,
        "eightbit": False,
        "ret": "HDRS",
        "envid": "E1",
        "original": "",
    }


async def test_only_the_owner_may_read(box: Capture, tmp_path: Path) -> None:
    await box.send(spooled(), RAW)
    modes = {
        path.name: oct(path.stat().st_mode & 0o777)
        for path in [tmp_path / "captured", *(tmp_path / "captured").iterdir()]
    }
    assert modes == {"captured": "0o700", "Q1.eml": "0o600", "Q1.json": "0o600"}


async def test_a_repeated_delivery_writes_the_same_file_and_other_recipients_another(
    box: Capture, tmp_path: Path
) -> None:
    for message in (
        spooled("a@x.example", "b@x.example"),
        spooled("c@x.example"),
        spooled("b@x.example", "a@x.example"),
    ):
        for attempt in (1, 2):
            await box.send(message, RAW + b"%d" % attempt)
    files = sorted(path.name for path in (tmp_path / "captured").iterdir())
    other = hashlib.sha256(b"c@x.example").hexdigest()[:8]
    assert files == [f"Q1-{other}.eml", f"Q1-{other}.json", "Q1.eml", "Q1.json"]
    assert {(tmp_path / "captured" / name).read_bytes() for name in files if name.endswith("eml")} == {RAW + b"2"}


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"recipients": 3}', b'{"recipients": [{}]}', b"\xff"])
async def test_a_broken_json_beside_it_does_not_stop_a_delivery(box: Capture, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "captured").mkdir()
    (tmp_path / "captured" / "Q1.json").write_bytes(damage)
    assert (await box.send(spooled(), RAW))["b@x.example"].verdict is Verdict.SENT
    assert (tmp_path / "captured" / "Q1.eml").read_bytes() == RAW


@pytest.mark.parametrize("step", ["fsync", "replace"])
async def test_a_full_disk_defers_and_leaves_nothing_half_written(
    box: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    await box.send(spooled(), b"first")
    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), full)
    outcome = (await box.send(spooled(), b"second"))["b@x.example"]
    assert (outcome.verdict, outcome.code, outcome.enhanced) == (Verdict.DEFERRED, None, "4.3.1")
    assert outcome.detail == f"cannot write to {tmp_path / 'captured'}: No space left on device"
    assert sorted(path.name for path in (tmp_path / "captured").iterdir()) == ["Q1.eml", "Q1.json"]
    assert (tmp_path / "captured" / "Q1.eml").read_bytes() == b"first"


async def test_data_then_name_then_directory_are_synced_in_that_order(
    box: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash leaves the old file or the new one: the name changes only after the data is on disk."""
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watch_fsync(handle: int) -> None:
        steps.append("sync directory" if Path(f"/proc/self/fd/{handle}").is_dir() else "sync file")
        fsync(handle)

    def watch_replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(Path, "replace", watch_replace)
    await box.send(spooled(), RAW)
    assert steps == ["sync file", "rename", "sync directory"] * 2


async def test_an_absolute_directory_stays_where_it_is(tmp_path: Path) -> None:
    async with kit.context(tmp_path / "state") as context:
        box = Capture("box", CaptureSettings(directory=tmp_path / "elsewhere"), context)
        await box.send(spooled(), RAW)
        assert (tmp_path / "elsewhere" / "Q1.eml").exists()
        assert (await box.check()).facts == {"directory": str(tmp_path / "elsewhere")}
