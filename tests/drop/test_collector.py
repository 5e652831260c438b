"""Mail from folders: judged as from this machine, each file once, nothing lost, nobody left untold."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from gateway.drop import folder, letter
from gateway.drop.collector import AGAIN
from gateway.model import BadMessage, Client, SpoolFull
from gateway.quota import Quota, Rate
from tests import builders
from tests.drop.kit import HERE, MAIL, PLAIN, Rig, rig
from tests.fakes import breathe, until
from tests.test_line_ends import TABLE


async def test_what_gateway_sendmail_left_is_sent(tmp_path: Path) -> None:
    """To those of its envelope, with the time at which it was left there, and the file is gone."""
    async with rig(tmp_path) as at:
        at.drop("a@x.org", "blind@x.org", ret="HDRS", envid="one")
        at.age(next(at.places.new.iterdir()), 3600)
        await at.collector.look()
        await until(lambda: bool(at.backend.calls))
        (message, raw), *_ = at.backend.calls
        assert [one.address for one in message.envelope.recipients] == ["a@x.org", "blind@x.org"]
        assert (message.envelope.sender, message.envelope.ret, message.envelope.envid) == ("s@x.org", "HDRS", "one")
        assert b"Date: Fri, 20 Nov 2026 11:00:00 +0000\r\n" in raw
        assert raw.endswith(MAIL)
        assert at.lies() == []
        (accepted,) = at.logged("accepted")
        assert (accepted["listener"], accepted["client"], accepted["login"]) == (
            "maildrop", "localhost", f"user id {os.geteuid()}",
        )  # fmt: skip


async def test_a_date_of_ours_costs_no_mbox_line(tmp_path: Path) -> None:
    """It stays in the header as a field, as for a message that has a date of its own."""
    async with rig(tmp_path) as at:
        at.drop(raw=b"From s@x.org Fri Nov 20\r\n" + MAIL)
        await at.collector.look()
        await until(lambda: bool(at.backend.calls))
        (_, raw), *_ = at.backend.calls
        assert b"\r\nX-Mailbox-Line: From s@x.org Fri Nov 20\r\n" in raw
        assert raw.count(b"\r\nDate: ") == 1


REFUSALS: dict[str, tuple[Client | None, tuple[str, ...], str, bytes, list[tuple[str, str]], str]] = {
    "a recipient": (
        HERE, ("a@x.org", "b@y.org"), "s@x.org", MAIL, [("a@x.org", "sent"), ("b@y.org", "failed")], "told",
    ),
    "all recipients": (HERE, ("b@y.org",), "s@x.org", MAIL, [("b@y.org", "failed")], "told"),
    "From": (
        HERE, ("a@x.org",), "s@x.org", MAIL.replace(b"s@x.org", b"s@y.org"), [("a@x.org", "failed")], "told",
    ),
    "a long line": (HERE, ("a@x.org",), "s@x.org", MAIL + b"x" * 70_000 + b"\r\n", [("a@x.org", "failed")], "told"),
    "no header": (HERE, ("a@x.org",), "s@x.org", b"\r\nx\r\n", [("a@x.org", "failed")], "told"),
    "too many": (
        replace(HERE, max_recipients=1), ("a@x.org", "b@x.org"), "s@x.org", MAIL,
        [("a@x.org", "sent"), ("b@x.org", "failed")], "told",
    ),
    "too big": (replace(HERE, max_size=10), ("a@x.org",), "s@x.org", MAIL, [("a@x.org", "failed")], "told"),
    "the null sender": (HERE, ("b@y.org",), "", MAIL, [("b@y.org", "failed")], "null_sender"),
    # A bounce to them would be mail to whomever somebody likes.
    "the sender": (HERE, ("a@x.org",), "s@y.org", MAIL, [("a@x.org", "failed")], "sender_denied"),
    "everybody": (None, ("a@x.org",), "s@x.org", MAIL, [("a@x.org", "failed")], "relay_denied"),
}  # fmt: skip


@pytest.mark.parametrize(("client", "to", "sender", "raw", "states", "told"), REFUSALS.values(), ids=REFUSALS)
async def test_refusals_are_accounted_for(
    tmp_path: Path, client: Client | None, to: tuple[str, ...], sender: str, raw: bytes,
    states: list[tuple[str, str]], told: str,
) -> None:  # fmt: skip
    """Who is refused stands in the queue and in the log with the reason; the sender is told, or it is said why not."""
    async with rig(tmp_path, client=client) as at:
        at.drop(*to, raw=raw, sender=sender)
        await at.collector.look()
        assert at.lies() == []
        await until(lambda: len(at.backend.calls) == sum(s == "sent" for _, s in states) + (told == "told"))
        bounces = [call for call, _ in at.backend.calls if call.bounce]
        assert [one.envelope.recipients[0].address for one in bounces] == ["s@x.org"] * (told == "told")
        assert [line["reason"] for line in at.logged("bounce_suppressed")] == [told] * (told != "told")
        assert len(at.logged("rejected")) == 1
        (row,) = [row for row in await at.at.spool.find() if not row.bounce]
        while await at.states(row.id) != states:
            await breathe()


async def test_what_is_refused_for_now_waits(tmp_path: Path) -> None:
    """A full spool stops all, is said once, and the files are tried again after a while, each once."""
    async with rig(tmp_path) as at:

        async def full(_: object) -> None:
            raise SpoolFull("no room")

        put = at.collector.judge.put
        for n in range(55):
            at.drop(f"a{n}@x.org")
        at.change(put=full)
        await at.collector.look()
        await at.collector.look()
        assert [line["reason"] for line in at.logged("drop_waits")] == ["no room"]
        assert len(at.lies()) == 55
        assert 'gateway_dropped_files{folder="maildrop",state="waiting"} 55.0' in at.at.events.render("")[1].decode()
        at.change(put=put)
        await at.collector.look()
        assert len(await at.at.spool.find()) <= 10  # the others were taken already, and their time has not come
        at.at.clock.advance(AGAIN)
        await at.collector.look()
        assert at.lies() == []
        assert len(await at.at.spool.find()) == 55
        assert at.collector.reason == ""


async def test_the_rate_of_the_client_holds(tmp_path: Path) -> None:
    """What is beyond it waits, and is not refused."""
    async with rig(tmp_path, client=replace(HERE, rate=Rate(2, timedelta(minutes=1)))) as at:
        for n in range(3):
            at.drop(f"a{n}@x.org")
        await at.collector.look()
        assert len(await at.at.spool.find()) == 2
        assert "clients.localhost.rate" in at.collector.reason
        at.at.clock.advance(AGAIN + 5)
        await at.collector.look()
        assert len(await at.at.spool.find()) == 3


@pytest.mark.parametrize("over", ["hold", "defer", "refuse"])
async def test_the_quota_of_the_client_holds(tmp_path: Path, over: Any) -> None:
    """What is too many is held, waits in its folder, or fails and goes back; each user's mail counts for itself."""
    quota = Quota((Rate(2, timedelta(minutes=1)),), per="login", over=over)
    async with rig(tmp_path, client=replace(HERE, quota=quota)) as at:
        for n in range(4):
            at.drop(f"a{n}@x.org")
        await at.collector.look()
        states = sorted(row.state for row in await at.at.spool.find() if not row.id.startswith("B"))
        lies = [path for path in at.lies() if not path.endswith(".reason")]
        assert (states.count("held"), len(lies)) == {"hold": (2, 0), "defer": (0, 2), "refuse": (0, 0)}[over], states
        assert states.count("failed") == (2 if over == "refuse" else 0)
        if over == "defer":
            at.at.clock.advance(AGAIN + 62)
            await at.collector.look()
            assert at.lies() == []


async def test_a_crash_between_commit_and_unlinking_sends_once(tmp_path: Path) -> None:
    """A file that was taken bears the queue id its message has: what the spool knows is not taken in again."""
    async with rig(tmp_path) as at:
        at.drop()
        at.drop("b@x.org")
        stop = folder.done
        kept: list[folder.File] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(folder, "done", kept.extend)
            await at.collector.look()
        assert len(kept) == 2
        assert len(at.lies()) == 2
        assert folder.done is stop
        at.at.clock.advance(AGAIN)
        await at.collector.look()
        assert at.lies() == []
        await at.at.queued("b", 0)
        assert len(at.backend.calls) == 2


async def test_a_crash_before_the_commit_loses_nothing(tmp_path: Path) -> None:
    """What lies there as taken comes first at the next start, under its own queue id."""
    async with rig(tmp_path) as at:
        at.drop()
        os.close(folder.lock(at.places) or -1)
        (file,) = folder.waiting(at.places)
        folder.take(at.places, [(file, "1K0PF0R192JS1")])
        await at.collector.look()
        assert [row.id for row in await at.at.spool.find()] == ["1K0PF0R192JS1"]


HOSTILE: dict[str, Callable[[Rig, str], object]] = {
    "fifo": lambda at, name: os.mkfifo(at.places.new / name),
    "link": lambda at, name: (at.places.new / name).symlink_to("/etc/passwd"),
    "link-to-a-folder": lambda at, name: (at.places.new / name).symlink_to("/etc"),
    "hard-link": lambda at, name: os.link(at.put(".other", b"x"), at.places.new / name),
    "socket": lambda at, name: _listen(at.places.new / name),
    "nothing": lambda at, name: at.put(name, b""),
    "no-envelope": lambda at, name: at.put(name, MAIL),
    "\udcff" * 250: lambda at, name: at.put(name, b"\0"),
}


def _listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


async def test_what_is_no_mail_is_put_aside(tmp_path: Path) -> None:
    """Any user may write there: opened only if it is a plain file, never deleted, said once; others get their mail."""
    async with rig(tmp_path) as at:
        at.drop()
        for name, put in HOSTILE.items():
            put(at, name)
        await at.collector.look()
        await at.collector.look()
        assert at.lies() == sorted(["new/.other", *(f"corrupt/{name[:200]}" for name in HOSTILE)])
        assert len(at.logged("drop_corrupt")) == len(HOSTILE)
        assert len(await at.at.spool.find()) == 1
        assert at.collector.reason == ""


def _line(**changed: object) -> bytes:
    line = {"size": len(MAIL), "sender": "s@x.org", "recipients": ["a@x.org"], "notify": "", "ret": "", "envid": ""}
    return json.dumps(line | changed).encode() + b"\n" + MAIL


@pytest.mark.parametrize(
    "data",
    [
        b"",
        MAIL,
        b'{"sender": "a@x.org"',
        b"[" * 100_000 + b"\n",
        b"[1]\n",
        b"null\n",
        _line(recipients=[]),
        _line(recipients=None),
        _line(recipients=["a@x.org\r\nRCPT TO:<b@x.org>"]),
        _line(recipients=[["a@x.org"]]),
        _line(recipients="a@x.org"),
        _line(sender="s@x.org>"),
        _line(sender=0),
        _line(sender="\ud800@x.org"),
        _line(notify="a b"),
        _line(ret="ALL"),
        _line(envid="a\r\nb"),
        _line(size=1000),
        _line(size="1"),
        _line() + b"more",
    ],
)
def test_envelopes_are_not_believed(data: bytes) -> None:
    """Any user may write one."""
    with pytest.raises(BadMessage):
        letter.read(data, len(data))


def test_what_is_written_is_read() -> None:
    """An envelope comes back whole."""
    sent = builders.envelope("a@x.org", "ü@x.org", sender="", smtputf8=True, eightbit=True, ret="FULL", envid="a-b")
    sent = replace(sent, recipients=tuple(replace(one, notify="SUCCESS,FAILURE") for one in sent.recipients))
    raw = MAIL + "ü\r\n".encode()
    data = letter.write(sent, raw)
    assert letter.read(data, len(data)) == letter.Letter(sent, raw, len(raw))


async def test_a_writer_that_was_killed_leaves_nothing_for_ever(tmp_path: Path) -> None:
    """Names with a dot are still being written; after a day nobody does so any more."""
    async with rig(tmp_path) as at:
        at.put(".young", b"x", age=80_000)
        at.put(".old", b"x", age=90_000)
        await at.collector.look()
        assert at.lies() == ["new/.young"]


async def test_files_are_taken_in_their_order_and_all_of_them(tmp_path: Path) -> None:
    """More than are in memory at one time."""
    async with rig(tmp_path) as at:
        for n in range(60):
            at.drop(f"a{n}@x.org")
        for n, path in enumerate(sorted(at.places.new.iterdir(), key=lambda path: path.stat().st_mtime_ns)):
            at.age(path, 1000 - n)
        await at.collector.look()
        rows = await at.at.spool.find(limit=200)
        assert [row.recipients[0] for row in reversed(rows)] == [f"a{n}@x.org" for n in range(60)]


async def test_a_disk_that_hangs_holds_up_its_folder_alone(tmp_path: Path) -> None:
    """It is said, nobody else asks it, and the service can stop."""
    go = threading.Event()
    async with rig(tmp_path) as at:
        with mock.patch("fcntl.flock", side_effect=lambda *_: go.wait()):
            looking = asyncio.create_task(at.collector.look())
            await until(at.collector.places.taken.exists)
            assert (at.collector.hangs, at.collector.reason) == (False, "")
            at.at.clock.advance(11)
            assert (at.collector.hangs, at.collector.reason) == (True, "its disk does not answer")
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
            assert not at.collector.hangs
            go.set()


async def test_nothing_is_smuggled_behind_a_bare_line_end(tmp_path: Path) -> None:
    """What gateway-sendmail did not write so is made what it would have written."""
    async with rig(tmp_path) as at:
        at.put("x", _line(size=len(MAIL) + 11) + b"one\n.\ntwo\r\n")
        await at.collector.look()
        await until(lambda: bool(at.backend.calls))
        assert at.backend.calls[0][1].endswith(b"hello\r\none\r\n.\r\ntwo\r\n")


async def test_a_share_without_locks(tmp_path: Path) -> None:
    """Network file systems know no locks, or cannot sync a folder: mail is taken all the same."""
    async with rig(tmp_path, PLAIN) as at:
        at.put("a.eml", MAIL)
        cannot = OSError(errno.ENOTSUP, "Operation not supported")
        with (
            mock.patch("fcntl.flock", side_effect=cannot),
            mock.patch("gateway.drop.folder.sync_folder", side_effect=cannot),
        ):
            await at.collector.look()
        assert (at.lies(), at.collector.reason) == ([], "")


async def test_two_services_do_not_work_in_one_folder(tmp_path: Path) -> None:
    """The second waits until the first is gone."""
    async with rig(tmp_path) as at:
        at.drop()
        descriptor = folder.lock(at.places)
        assert descriptor is not None
        await at.collector.look()
        assert (len(at.lies()), at.collector.reason) == (1, "another service is at work in this folder")
        os.close(descriptor)
        await at.collector.look()
        assert at.lies() == []


# -- an operator's folder --------------------------------------------------------------------------------------------


async def test_a_plain_file_is_sent_to_whom_its_header_names(tmp_path: Path) -> None:
    """As sendmail -t: To, Cc and Bcc, the last removed; and not before its writer has left it alone for a while."""
    async with rig(tmp_path, PLAIN) as at:
        at.put("a.eml", b"From: s@x.org\nTo: a@x.org\nBcc: b@x.org\n\nx\n")
        at.put("young.eml", MAIL, age=4)
        at.put("b.eml.tmp", MAIL)
        at.put("Thumbs.db", b"\0\1\2")
        (at.places.new / "folder").mkdir()
        await at.collector.look()
        assert at.lies() == ["corrupt/Thumbs.db", "new/b.eml.tmp", "new/young.eml"]
        await until(lambda: bool(at.backend.calls))
        (message, raw), *_ = at.backend.calls
        assert [one.address for one in message.envelope.recipients] == ["a@x.org", "b@x.org"]
        assert raw.endswith(b"From: s@x.org\r\nTo: a@x.org\r\n\r\nx\r\n")
        assert (at.places.new / "folder").is_dir()


async def test_a_file_larger_than_any_may_be(tmp_path: Path) -> None:
    """It is not read as a whole: its sender gets a bounce, its header is in the queue, the file is kept."""
    async with rig(tmp_path, PLAIN) as at:
        limits = at.collector.judge.rules.limits.model_copy(update={"max_size": 10_000})
        at.change(rules=replace(at.collector.judge.rules, limits=limits))
        with at.put("big.eml", MAIL).open("ab") as file:
            file.truncate(3_000_000)  # sparse
        at.age(at.places.new / "big.eml", 60)
        await at.collector.look()
        assert at.lies() == ["corrupt/big.eml"]
        (row,) = [row for row in await at.at.spool.find() if not row.bounce]
        assert row.state == "failed"
        assert await at.at.spool.raw(row.id) == MAIL[: MAIL.index(b"hello")]
        await until(lambda: [call.bounce for call, _ in at.backend.calls] == [True])


async def test_a_folder_that_is_gone_is_waited_for(tmp_path: Path) -> None:
    """A share that is not there now: said once, and taken up when it is back."""
    async with rig(tmp_path, PLAIN) as at:
        await at.collector.look()
        await at.collector.look()
        assert len(at.logged("drop_waits")) == 1
        assert "No such file or directory" in at.collector.reason
        at.put("a.eml", MAIL)
        await at.collector.look()
        assert (at.lies(), at.collector.reason) == ([], "")


async def test_a_folder_prepared_by_somebody_else_is_refused(tmp_path: Path) -> None:
    """In a folder that others may write, "taken" may be a link to where files are wanted."""
    async with rig(tmp_path, PLAIN) as at:
        at.put("a.eml", MAIL)
        at.places.taken.symlink_to(tmp_path)
        await at.collector.look()
        assert "is no folder of user id" in at.collector.reason
        assert "new/a.eml" in at.lies()


AB = ["a@x.org", "b@x.org"]


@pytest.mark.parametrize(
    ("file", "recipients", "sender"),
    [
        (b"X-Sender: s@x.org\r\nX-Receiver: a@x.org\r\nX-Receiver: <b@x.org>\r\nTo: c@x.org\r\n\r\nx", AB, "s@x.org"),
        (b"X-Receiver: a@x.org\r\nFrom: s@x.org\r\nTo: c@x.org\r\n\r\nx", ["a@x.org"], "s@x.org"),
        (b"From: s@x.org\nTo: c@x.org\nX-Sender: e@x.org\nX-Receiver: e@x.org\n\nx", ["c@x.org"], "s@x.org"),
        (b"From: o@x.org, p@x.org\nSender: s@x.org\nTo: Group: a@x.org, b@x.org;\n\nx", AB, "s@x.org"),
        (b"From: root\nTo: a\n\nx", ["a"], "root"),  # for the settings to complete
        (b"From x Mon Jan 1\nFrom: s@x.org\nResent-To: b@x.org\nTo: a@x.org\n\nx", ["b@x.org"], "s@x.org"),
        (b"From: s@x.org\rTo: a@x.org\r\rx", ["a@x.org"], "s@x.org"),
        (b"From: s@x.org\r\r\nTo: a@x.org\r\r\n\r\r\nx", ["a@x.org"], "s@x.org"),
        (b"From: s@x.org\n\rTo: a@x.org\n\r\n\rx", ["a@x.org"], "s@x.org"),
        (b"From: s@x.org\nSubject: a\rBcc: b@x.org\nTo: a@x.org\n\nx", ["a@x.org"], "s@x.org"),
        (b"To: a@x.org\n\nx", None, ""),
        (b"From: s@x.org\n\nx", None, ""),
        (b"From: s@x.org\nTo: a@x.org, somebody else\n\nx", None, ""),
        (b"X-Sender: s@x.org\nX-Receiver: a b\n\nx", None, ""),
        (b"", None, ""),
        (b"To: " + b"x" * 200_000, None, ""),
    ],
)
def test_envelopes_of_plain_files(file: bytes, recipients: list[str] | None, sender: str) -> None:
    """X-Sender and X-Receiver are the envelope where they come first, as .NET writes them; nothing is guessed."""
    if recipients is None:
        with pytest.raises(BadMessage):
            PLAIN.read(file, len(file))
        return
    found = PLAIN.read(file, len(file))
    assert [one.address for one in found.envelope.recipients] == recipients
    assert found.envelope.sender == sender
    assert found.size == len(found.raw)
    assert found.raw.endswith(b"x\r\n")
    assert found.raw.lower().startswith(b"x-") is False


@pytest.mark.parametrize(("sent", "kept", "postfix"), TABLE.values(), ids=TABLE)
def test_line_ends_of_plain_files(sent: bytes, kept: bytes, postfix: bytes | None) -> None:
    """A file with odd line ends is read whole: its first fields end as its others do."""
    end = b"\n" if b"\n" in sent[:-1] else b"\r"
    file = end.join((b"From: s@x.org", b"To: a@x.org", sent))
    assert PLAIN.read(file, len(file)).raw == b"From: s@x.org\r\nTo: a@x.org\r\n" + kept
