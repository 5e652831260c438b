"""The same backends against independent programs: Postfix's smtp-sink, and Prism with SMTP2GO's own API description."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from gateway.backends.smtp.smarthost import Smtp, SmtpSettings
from gateway.backends.smtp2go import Smtp2go, Smtp2goSettings
from gateway.model import Verdict
from tests.backends import kit
from tests.backends.kit import KEY, RAW, spooled
from tests.flow.kit import free_port

SINK = shutil.which("smtp-sink", path=f"{os.environ['PATH']}:/usr/sbin")
PRISM = shutil.which("prism")
DESCRIPTION = os.environ.get("SMTP2GO_OPENAPI", "")


@contextlib.asynccontextmanager
async def running(port: int, *command: str, cwd: Path) -> AsyncIterator[None]:
    """A program that listens on ``port``, until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                await writer.wait_closed()
                break
            assert process.returncode is None
            await asyncio.sleep(0.02)
        yield
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.skipif(SINK is None, reason="smtp-sink is not installed (Debian package postfix)")
@pytest.mark.parametrize(
    ("flags", "verdict", "code"),
    [
        ((), Verdict.SENT, 250),
        (("-8",), Verdict.SENT, 250),
        (("-e",), Verdict.SENT, 250),
        (("-p",), Verdict.SENT, 250),
        (("-q", "mail"), Verdict.DEFERRED, None),
        (("-q", "rcpt"), Verdict.DEFERRED, None),
        (("-q", "data"), Verdict.DEFERRED, None),
        (("-q", "."), Verdict.IN_DOUBT, None),
        (("-Q", "mail"), Verdict.THROTTLED, 421),
        (("-Q", "."), Verdict.THROTTLED, 421),
        (("-r", "mail"), Verdict.DEFERRED, 450),
        (("-r", "rcpt"), Verdict.DEFERRED, 450),
        (("-r", "."), Verdict.DEFERRED, 450),
        (("-f", "mail"), Verdict.REJECTED, 500),
        (("-f", "rcpt"), Verdict.REJECTED, 500),
        (("-f", "data"), Verdict.REJECTED, 500),
        (("-f", "."), Verdict.REJECTED, 500),
    ],
)
async def test_postfix_smtp_sink_and_its_misbehaviours(
    tmp_path: Path, flags: tuple[str, ...], verdict: Verdict, code: int | None
) -> None:
    port = free_port()
    assert SINK is not None
    user = ("-u", "nobody") if os.getuid() == 0 else ()
    tmp_path.chmod(0o777)  # the sink gives up its rights before it writes
    async with (
        running(port, SINK, *user, "-d", "mail.%M", *flags, f"127.0.0.1:{port}", "100", cwd=tmp_path),
        kit.context(tmp_path) as context,
    ):
        settings = SmtpSettings(host="127.0.0.1", port=port, tls="none")
        way = Smtp("smart", settings, context)
        for number in range(2):
            outcome = (await way.send(spooled("b@x.example", queue_id=f"Q{number}"), RAW))["b@x.example"]
            assert (outcome.verdict, outcome.code) == (verdict, code), outcome
        await way.aclose()
    if verdict is Verdict.SENT:
        kept = [path.read_bytes() for path in tmp_path.glob("mail.*")]
        assert len(kept) == 2
        stored = RAW.replace(b"\r\n", b"\n")
        assert all(content.replace(b"\r\n", b"\n").rstrip(b"\n").endswith(stored.rstrip(b"\n")) for content in kept)


@pytest.mark.skipif(SINK is None, reason="smtp-sink is not installed (Debian package postfix)")
@pytest.mark.parametrize("flags", [("-8",), ("-e",), ()], ids=["no 8BITMIME", "HELO only", "8BITMIME"])
async def test_postfix_smtp_sink_gets_as_many_bits_as_it_takes(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """RFC 6152 3: what is read from its file is what was sent."""
    port = free_port()
    assert SINK is not None
    user = ("-u", "nobody") if os.getuid() == 0 else ()
    tmp_path.chmod(0o777)
    raw = "Subject: Grüße\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n.Grüße \r\n..\r\n".encode()
    async with (
        running(port, SINK, *user, "-d", "mail.%M", *flags, f"127.0.0.1:{port}", "100", cwd=tmp_path),
        kit.context(tmp_path) as context,
    ):
        way = Smtp("smart", SmtpSettings(host="127.0.0.1", port=port, tls="none"), context)
        assert (await way.send(spooled("b@x.example"), raw))["b@x.example"].verdict is Verdict.SENT
        await way.aclose()
    (file,) = tmp_path.glob("mail.*")
    arrived = file.read_bytes()
    assert arrived.isascii() is bool(flags)
    found = message_from_bytes(arrived, policy=policy.SMTP)
    read = found.get_payload(decode=True).replace(b"\r\n", b"\n")  # in 8 bits the file has lines of its own
    assert read.rstrip(b"\n") == ".Grüße \n..".encode()
    assert str(found["Subject"]) == "Grüße" or not flags


@pytest.mark.skipif(PRISM is None, reason="prism is not installed (npm @stoplight/prism-cli)")
@pytest.mark.skipif(not Path(DESCRIPTION).is_file(), reason="SMTP2GO_OPENAPI names no copy of the API description")
async def test_smtp2go_accepts_the_request_by_its_own_description(tmp_path: Path) -> None:
    port = free_port()
    assert PRISM is not None
    async with (
        running(port, PRISM, "mock", "-h", "127.0.0.1", "-p", str(port), DESCRIPTION, cwd=tmp_path),
        kit.context(tmp_path) as context,
    ):
        settings = Smtp2goSettings.model_validate({"api_key": KEY, "base_url": f"http://127.0.0.1:{port}"})
        way = Smtp2go("s2g", settings, context)
        outcomes = await way.send(spooled("b@x.example", "blind@x.example"), RAW)
        assert [outcome.verdict for outcome in outcomes.values()] == [Verdict.SENT, Verdict.SENT]
