"""The wiring as a whole: what was made before a failure is given back, and a stop is a stop whatever else goes on."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.app import App
from gateway.backends import Context, settings_types
from gateway.config import ConfigError
from gateway.config.loading import Loaded, load
from gateway.config.models import BackendSettings, PickupSettings
from gateway.doctor import Subject
from gateway.doctor.examine import LOOKS
from gateway.model import SpoolUnavailable
from gateway.service import serve
from gateway.spool import Filter
from tests.fakes import ScriptedBackend, until

BOX = "  {}: {{type: capture, concurrency: {}}}\n"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[ScriptedBackend]:
    """The backends that were made to send, in their order; those that are only examined do not count."""
    made: list[ScriptedBackend] = []

    def build(name: str, _settings: BackendSettings, context: Context) -> ScriptedBackend:
        backend = ScriptedBackend(name)
        if context.fetch:
            made.append(backend)
        return backend

    monkeypatch.setattr("gateway.backends.build", build)
    return made


def settings(
    folder: Path, boxes: str = BOX.format("box", 1), bind: str = "", level: str = "error", smtp: str = "127.0.0.1:0"
) -> Loaded:
    file = folder / "config.yaml"
    file.write_text(
        f"state_dir: {folder / 'state'}\nlisteners: {{local: {{bind: '{smtp}'}}}}\nlog: {{level: {level}}}\n"
        f"backends:\n{boxes}routes: [{{backend: box}}]\nhttp: {{bind: '{bind}'}}\n"
    )
    return load(file, {}, settings_types())


def spoil_the_key(folder: Path) -> Callable[..., Any]:
    """After the settings were judged, and before the keys are read."""

    def spoil(*_: object, **__: object) -> None:
        (folder / "state" / "token.key").write_text("no key")

    return spoil


async def test_a_start_that_fails_at_the_keys(
    tmp_path: Path, built: list[ScriptedBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backends that were made before are closed."""
    app = App(loaded := settings(tmp_path, BOX.format("box", 1) + BOX.format("spare", 1)), lambda: loaded)
    monkeypatch.setattr(app.events, "capture_libraries", spoil_the_key(tmp_path))
    with pytest.raises(ValueError, match=r"auth\.keys\.own"):
        await app.start()
    await app.stop(0)
    assert [(one.name, one.closed) for one in built] == [("box", True), ("spare", True)]


@pytest.mark.parametrize("which", ["http.bind", "listeners.local.bind"])
async def test_a_start_that_fails_at_a_port(tmp_path: Path, built: list[ScriptedBackend], which: str) -> None:
    """No dispatcher has taken over the backends: they are closed all the same. Whose setting it was is said."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        loaded = settings(tmp_path, bind=taken) if which == "http.bind" else settings(tmp_path, smtp=taken)
        app = App(loaded, lambda: loaded)
        with pytest.raises(OSError, match=f"cannot listen on {which} {taken}: port .* is taken by"):
            await app.start()
    await app.stop(0)
    assert [one.closed for one in built] == [True]


async def test_a_reload_that_fails_at_the_keys(
    tmp_path: Path, built: list[ScriptedBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made for it is closed; what is at work stays at work."""
    new = settings(tmp_path, BOX.format("box", 1) + BOX.format("spare", 1))
    app = App(settings(tmp_path), lambda: new)
    await app.start()
    try:
        monkeypatch.setattr("gateway.auth.ensure_own_key", spoil_the_key(tmp_path))
        with pytest.raises(ConfigError, match=r"auth\.keys\.own"):
            await app.reload()
        assert [(one.name, one.closed) for one in built] == [("box", False), ("spare", True)]
        assert app.dispatcher is not None
        assert list(app.dispatcher.status()) == ["box"]
    finally:
        await app.stop(0)
    assert [one.closed for one in built] == [True, True]


async def test_a_reload_tells_of_a_key_that_was_replaced_in_its_file(
    tmp_path: Path, built: list[ScriptedBackend]
) -> None:
    """The settings are as they were, and still what they name has changed: nothing else says that it was taken over."""
    app = App(loaded := settings(tmp_path), lambda: loaded)
    await app.start()
    try:
        assert await app.reload() == []
        (tmp_path / "state" / "token.key").unlink()
        assert await app.reload() == ["auth.keys.own: another key in its file"]
        assert await app.reload() == []
    finally:
        await app.stop(0)


async def test_folders_come_and_go_with_a_reload(tmp_path: Path, built: list[ScriptedBackend]) -> None:
    """One that is added is looked at, one that is taken out is left alone, and the service stops."""
    loaded, out = settings(tmp_path), tmp_path / "out"
    out.mkdir()
    (out / "a.eml").write_bytes(b"From: s@x.org\nTo: a@x.org\n\nx\n")
    os.utime(out / "a.eml", (0, 0))
    app = App(loaded, lambda: loaded)
    await app.start()
    try:
        assert app.drop is not None
        assert app.drop.reasons == {"maildrop": ""}
        more = {"pickup": {"out": PickupSettings(directory=out)}}
        loaded = replace(loaded, settings=loaded.settings.model_copy(update=more))
        assert "pickup.out: added" in await app.reload()
        await until(lambda: [call.envelope.sender for call, _ in built[0].calls] == ["s@x.org"])
        loaded = replace(loaded, settings=loaded.settings.model_copy(update={"pickup": {}}))
        await app.reload()
        await until(lambda: app.drop is not None and app.drop.reasons == {"maildrop": ""})
    finally:
        await app.stop(0)


async def test_a_reload_when_the_service_stops(tmp_path: Path, built: list[ScriptedBackend]) -> None:
    """It comes to nothing: no worker is opened on a spool that is closed."""
    reading, stopped = threading.Event(), threading.Event()
    new = settings(tmp_path, BOX.format("box", 2))

    def slow() -> Loaded:
        reading.set()
        stopped.wait()
        return new

    app = App(settings(tmp_path), slow)
    await app.start()
    reload = asyncio.create_task(app.reload())
    try:
        await until(reading.is_set)
        await app.stop(0)
    finally:
        stopped.set()
    with pytest.raises(SpoolUnavailable, match="the gateway is stopping"):
        await reload
    assert [one.closed for one in built] == [True]
    assert app.dispatcher is not None
    assert app.dispatcher.status() == {}


async def test_a_stop_that_is_hurried_at_its_first_step(
    tmp_path: Path, built: list[ScriptedBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk of a folder hangs, and a client is silent in mid-message: neither is waited for any more."""
    asked, answered, lock = threading.Event(), threading.Event(), fcntl.flock

    def hang(descriptor: int, operation: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name != "spool.lock":
            asked.set()
            answered.wait()
        lock(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", hang)
    app = App(loaded := settings(tmp_path), lambda: loaded)
    await app.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", app.listeners["local"].port)
        writer.write(b"EHLO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n")
        await reader.readuntil(b"354 ")
        await until(asked.is_set)
        stopping = asyncio.create_task(app.stop())
        await until(lambda: app.draining)
        await asyncio.sleep(0)
        stopping.cancel()
        ended, _ = await asyncio.wait({stopping}, timeout=20)  # either alone would be given 30
        assert ended
        assert await reader.read()
        writer.close()
    finally:
        answered.set()


async def test_a_limit_of_files_that_cannot_be_raised(
    tmp_path: Path, built: list[ScriptedBackend], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As on macOS: the service runs with what there is, and says that it may be too little."""

    def refuse(*_: object) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    loaded = settings(tmp_path, level="warning")
    code = await serve(loaded, load=lambda: loaded, on_ready=lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert (code, [one.closed for one in built]) == (0, [True])
    assert "this process may have 256 (ulimit -n)" in capfd.readouterr().err


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What hears sd_notify(3)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield heard


async def test_systemctl_status_shows_the_verdict(
    tmp_path: Path, built: list[ScriptedBackend], systemd: socket.socket
) -> None:
    """Whoever types that first reads what ``gateway status`` says first."""
    loaded = settings(tmp_path)
    serving = asyncio.create_task(serve(loaded, load=lambda: loaded))
    lines: list[str] = []
    while not any(line.startswith("STATUS=Everything is all right.") for line in lines):
        lines += (await asyncio.to_thread(systemd.recv, 4096)).decode().splitlines()
    assert lines.index("READY=1") < len(lines) - 1
    os.kill(os.getpid(), signal.SIGTERM)
    assert await serving == 0


async def test_systemd_waits_for_a_long_start(
    tmp_path: Path, built: list[ScriptedBackend], systemd: socket.socket
) -> None:
    """An upgrade of a large spool that is cut off would begin anew for ever: more time is asked for meanwhile."""
    loaded = settings(tmp_path)
    stop = partial(os.kill, os.getpid(), signal.SIGTERM)
    assert await serve(loaded, load=lambda: loaded, on_ready=lambda _: stop()) == 0
    assert systemd.recv(4096) == b"EXTEND_TIMEOUT_USEC=120000000"
    assert systemd.recv(4096).startswith(b"READY=1")


async def test_a_stop_ends_the_doctor_before_what_it_looks_at(
    tmp_path: Path, built: list[ScriptedBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is under way is cut off while the spool is still open, and no other begins."""
    seen: list[bool] = []
    begun = asyncio.Event()

    async def look(subject: Subject, _tell: object) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            assert subject.spool is not None
            seen.append(await subject.spool.count(Filter()) == 0)

    monkeypatch.setitem(LOOKS, "spool", look)
    app = App(loaded := settings(tmp_path), lambda: loaded)
    await app.start()
    app.doctor.start("ann", ["spool"])
    await begun.wait()
    await app.stop(0)
    assert seen == [True]
    assert (app.doctor.under_way, app.doctor.last) == (None, None)
