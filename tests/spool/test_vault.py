"""A client's own token with its message: sealed on disk, there for every attempt, gone at the end."""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from gateway.events import Events
from gateway.spool.vault import Vault
from tests.builders import SENT
from tests.fakes import START
from tests.spool.test_open import child
from tests.spool_kit import DEFERRED, LEASE, REJECTED, At, of, opened, peer, settlement, statements

TOKEN = "eyJhbGciOiJIUzI1NiJ9." + "c2VjcmV0LXRva2Vu" * 100 + ".c2lnbmF0dXJl"  # larger than what a row keeps in its page


def on_disk(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


def sealed(directory: Path, ident: str) -> object:
    ((blob,),) = peer(directory, "SELECT sealed FROM message WHERE id = ?", ident)
    return blob


async def test_every_attempt_has_it_and_the_disk_does_not(tmp_path: Path) -> None:
    """In the first claim and after a deferral; a message without has none; the file, its log and copies are mute."""
    async with opened(tmp_path) as at:
        ident, other = await at.put(secret=TOKEN), await at.put()
        for turn in range(3):
            claims = await at.claim(now=START + turn * 2 * LEASE)
            assert {claim.message.id: claim.message.secret for claim in claims} == {ident: TOKEN, other: ""}
            assert {claim.message.id for claim in claims if claim.message.own_token} == {ident}
            assert TOKEN not in repr(claims)
            for claim in claims:
                await at.spool.settle(settlement(claim, DEFERRED))
        await at.spool.backup(tmp_path / "copy.db")
        found = on_disk(tmp_path)
        assert TOKEN.encode() not in found
        assert b"c2VjcmV0LXRva2Vu" not in found
        assert sealed(tmp_path, ident)
        assert sealed(tmp_path, other) is None
    assert b"c2VjcmV0LXRva2Vu" not in on_disk(tmp_path)
    assert TOKEN not in at.log.getvalue()


async def test_nobody_is_shown_it(tmp_path: Path, at: At) -> None:
    """Neither sealed nor open: not in the list, the life line, JSON, nor among the deliveries that only wait."""
    ident = await at.put(secret=TOKEN)
    (delivery,) = await at.waiting()
    assert (delivery.message.secret, delivery.message.own_token) == ("", True)
    detail = await at.show(ident)
    blob = sealed(tmp_path, ident)
    for text in (repr(await at.spool.find()), repr(detail), repr(asdict(detail))):
        assert "sealed" not in text
        assert "secret" not in text
        assert repr(blob) not in text


@pytest.mark.parametrize(
    ("outcomes", "state", "kept"),
    [
        ({"a@x.org": SENT, "b@x.org": SENT}, "done", False),
        ({"a@x.org": SENT, "b@x.org": REJECTED}, "failed", False),
        ({"a@x.org": SENT, "b@x.org": DEFERRED}, "queued", True),
    ],
)
async def test_it_ends_with_the_message(
    tmp_path: Path, at: At, outcomes: dict[str, object], state: str, kept: bool
) -> None:
    """Erased by the commit that ends the message, kept while one recipient waits."""
    ident = await at.put("a@x.org", "b@x.org", secret=TOKEN)
    (claim,) = await at.claim()
    await at.spool.settle(settlement(claim, outcomes))  # type: ignore[arg-type]
    assert (await at.states(ident))[0] == state
    assert (sealed(tmp_path, ident) is not None) is kept


async def test_a_hold_keeps_it_and_a_deletion_ends_it(tmp_path: Path, at: At) -> None:
    """Held, released and claimed it is there; deleted there is no row."""
    ident = await at.put(secret=TOKEN)
    await at.spool.hold(of(ident), START)
    await at.spool.release(of(ident), START)
    (claim,) = await at.claim()
    assert claim.message.secret == TOKEN
    await at.spool.delete(of(ident), START)
    assert peer(tmp_path, "SELECT * FROM message") == []


CRASH = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.spool_kit import opened
async def main():
    async with opened(Path(sys.argv[1])) as at:
        await at.put(secret=sys.stdin.readline().strip())
        await at.claim()
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_it_survives_a_kill(tmp_path: Path) -> None:
    """The key was on disk before the first message."""
    with child(CRASH, tmp_path) as process:
        process.communicate(TOKEN + "\n")
    async with opened(tmp_path) as at:
        (claim,) = await at.claim()
        assert (claim.message.secret, claim.message.doubtful) == (TOKEN, True)


@pytest.mark.parametrize(
    "spoil", [Path.unlink, lambda path: path.write_bytes(bytes(32)), lambda path: path.write_text("?")]
)
async def test_another_key_opens_nothing(tmp_path: Path, spoil: object) -> None:
    """Missing, wrong or cut off: the service starts and says so once; new mail has its token; the file is put aside."""
    async with opened(tmp_path) as at:
        old = [await at.put(secret=TOKEN) for _ in range(3)]
    spoil(tmp_path / "spool.key")  # type: ignore[operator]
    cut_off = (tmp_path / "spool.key").exists() and (tmp_path / "spool.key").read_text() == "?"
    async with opened(tmp_path) as at:
        new = await at.put(secret=TOKEN)
        claims = await at.claim()
        assert {claim.message.id: claim.message.secret for claim in claims} == {**dict.fromkeys(old, ""), new: TOKEN}
        (line,) = at.logged("unsealable")
        assert line["level"] == "warning"
        assert "spool.key" in line["detail"]
    assert (tmp_path / "spool.key.unusable").exists() is cut_off
    assert (tmp_path / "spool.key").stat().st_mode & 0o777 == 0o600


async def test_a_damaged_or_exchanged_one_opens_nothing(tmp_path: Path, at: At) -> None:
    """A flipped bit, a strange type or another message's token: "" and never somebody else's."""
    first, second, third = [await at.put(secret=TOKEN) for _ in range(3)]
    for ident, wrong in ((first, sealed(tmp_path, third)), (second, "text")):
        peer(tmp_path, "UPDATE message SET sealed = ? WHERE id = ?", wrong, ident)
    claims = await at.claim()
    assert {c.message.id: c.message.secret for c in claims} == {first: "", second: "", third: TOKEN}


@pytest.mark.parametrize("secret", ["x", "päss wörd", "\udcff\ud800", "x" * 100_000])
async def test_whatever_a_client_calls_a_password_comes_back(secret: str) -> None:
    """Also what is no UTF-8; two sealings never look alike."""
    vault = Vault(bytes(32), Events())
    blobs = [await asyncio.to_thread(vault.seal, "M1", secret) for _ in range(2)]
    assert blobs[0] != blobs[1]
    assert {vault.unseal("M1", blob) for blob in blobs} == {secret}
    assert {vault.unseal("M2", blob) for blob in blobs} == {""}
    assert vault.seal("M1", "") is None


_VALUE = re.compile(r"NULL|[xX]?'(?:[^']|'')*'|\b-?\d+\b")


async def test_messages_without_cost_no_statement(at: At) -> None:
    """The same statements in the same number, with a token and without."""
    counted = []
    for secret in ("", TOKEN):
        with statements() as seen:
            await at.put(secret=secret)
            await at.settle()
        counted.append([_VALUE.sub("?", text) for text in seen])
    assert len(counted[0]) > 5
    assert counted[0] == counted[1]
