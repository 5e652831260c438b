"""Learn mode at the door: it notes and changes nothing; who is heard out comes to the end, and gets nothing in."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.learn.learner import Learner
from gateway.learn.seen import Seen
from tests.smtp.kit import CLIENTS, MESSAGE, PASSWORD, Rig, rig

STRANGERS = {"copier": CLIENTS["copier"], "others": {"networks": ["192.0.2.0/24"]}}
HEAR = {"learn": {"hear_out": ["127.0.0.0/8"]}}
LOGIN = "AUTH PLAIN " + b64encode(b"\0me@example.com\0hush-hush").decode()


@asynccontextmanager
async def learning(
    learn: Any, clients: Mapping[str, Any] = STRANGERS, **more: Any
) -> AsyncIterator[tuple[Rig, Learner]]:
    async with rig(listener={"learn": learn, **more.pop("listener", {})}, clients=clients, **more) as one:
        learner = Learner(one.settings, one.clock, one.events)
        learner.update(one.settings)
        one.listener.site.learner = learner
        yield one, learner


def only(learner: Learner) -> Seen:
    (seen,) = learner.book.all
    return seen


DIALOGUES: list[list[tuple[str, str]]] = [
    [("EHLO c", "250"), ("MAIL FROM:<a@example.com>", "530"), ("RCPT TO:<b@example.org>", "503"), ("DATA", "503")],
    [("EHLO c", "250"), (LOGIN, "535"), ("MAIL FROM:<a@example.com>", "530"), ("QUIT", "221")],
    [("HELO c", "250"), ("RCPT TO:<b@example.org>", "503"), ("RSET", "250"), ("MAIL FROM:<>", "530")],
]


@pytest.mark.parametrize("learn", [False, True, {"hear_out": ["192.0.2.0/24"]}])
@pytest.mark.parametrize("dialogue", DIALOGUES)
async def test_the_dialogue_is_the_same_on_and_off(learn: Any, dialogue: list[tuple[str, str]]) -> None:
    """Whoever is in no network that is heard out hears what he always hears."""
    async with learning(learn) as (one, learner):
        peer = await one.connect()
        ehlo = await peer.ehlo()
        assert "AUTH" in ehlo  # the kit's peers come from this machine
        await peer.talk(*dialogue)
        assert one.messages == []
        assert bool(learner.book.all) is bool(learn)


async def test_accepted_mail_is_noted_as_it_was_asked_for() -> None:
    """Sender, header, domains, size, HELO, TLS, client: and neither body nor subject nor recipient."""
    async with learning(True, CLIENTS) as (one, learner):
        peer = await one.connect()
        text = b"From: X <x@example.net>\r\nSubject: secret-subject\r\n\r\nsecret-body\r\n"
        assert (await peer.deliver(text, "<a@example.com>", "<hidden@example.org>")).startswith("250")
        seen = only(learner)
        assert (seen.mails, seen.accepted, seen.heard, seen.blind, seen.headless) == (1, 1, 0, 0, 0)
        assert (seen.senders.seen, seen.authors.seen) == ({"a@example.com": 1}, {"x@example.net": 1})
        assert (seen.domains.seen, seen.helo.seen, seen.tls.seen) == ({"example.org": 1}, {"c": 1}, {"none": 1})
        assert (seen.clients.seen, seen.largest) == ({"localhost": 1}, len(text))
        assert not any(word in str(seen.plain()) for word in ("secret", "hidden"))


@pytest.mark.parametrize(
    ("clients", "sender", "recipient", "message", "key"),
    [
        (STRANGERS, "a@example.com", "b@example.org", MESSAGE, ("mail", 530, "5.7.0", "auth_required")),
        ({"l": {"networks": ["127.0.0.1"], "senders": ["x@example.com"]}}, "a@example.com", "b@example.org", MESSAGE,
         ("mail", 553, "5.7.1", "sender_denied")),
        ({"l": {"networks": ["127.0.0.1"], "recipients": ["*@example.com"]}}, "a@example.com", "b@example.org", MESSAGE,
         ("rcpt", 550, "5.7.1", "recipient_denied")),
        ({"l": {"networks": ["127.0.0.1"], "senders": ["a@example.com"]}}, "a@example.com", "b@example.org",
         b"From: other@example.com\r\n\r\nx\r\n", ("data", 553, "5.7.1", "sender_denied")),
    ],
)  # fmt: skip
async def test_each_refusal_is_noted_with_the_words_of_the_door(
    clients: Mapping[str, Any], sender: str, recipient: str, message: bytes, key: tuple[str, int, str, str]
) -> None:
    """Stage, code, enhanced code and reason; of a header that was refused who stands in it."""
    async with learning(True, clients) as (one, learner):
        peer = await one.connect()
        await peer.say("EHLO c")
        await peer.say(f"MAIL FROM:<{sender}>")
        await peer.say(f"RCPT TO:<{recipient}>")
        if (await peer.say("DATA")).startswith("354"):
            await peer.say(message + b".\r\n")
        seen = only(learner)
        assert set(seen.refusals) == {key}
        assert sender in seen.senders.seen
        assert ("other@example.com" in seen.authors.seen) is (key[0] == "data")


async def test_a_stranger_is_heard_out_and_nothing_gets_in() -> None:
    """MAIL, RCPT and DATA are answered as to a client, the end with 451; what he would have heard is known."""
    async with learning(HEAR["learn"]) as (one, learner):
        peer = await one.connect()
        for _ in range(2):
            assert (await peer.deliver(MESSAGE, "<a@example.com>", "<b@example.org>", "<c@example.net>")).startswith(
                "451 4.7.1 Learning only"
            )
        await peer.talk(("RCPT TO:<b@example.org>", "503"), ("QUIT", "221"))
        seen = only(learner)
        assert (one.messages, one.room.held, one.shared.memory.total) == ([], 0, 0)
        assert (seen.mails, seen.heard, seen.accepted, seen.recipients) == (2, 2, 0, 4)
        assert seen.domains.seen == {"example.org": 2, "example.net": 2}
        assert seen.authors.seen == {"a@example.com": 2}
        assert ("mail", 530, "5.7.0", "auth_required") in seen.refusals
        (line, _) = [each for each in one.logged() if each["event"] == "rejected" and each["stage"] == "data"]
        assert (line["reason"], line["code"], line["sender"]) == ("learning", 451, "a@example.com")
        assert "530 5.7.0" in line["detail"]
        assert one.metric("smtp_rejected_total", stage="data", reason="learning") == 2
        assert one.metric("learning") == 2


async def test_any_password_goes_on_and_is_kept_nowhere() -> None:
    """It makes no client of him: only his mail is heard, and refused."""
    async with learning(HEAR["learn"]) as (one, learner):
        peer = await one.connect()
        await peer.talk(("EHLO c", "250"), (LOGIN, "235"))
        assert (await peer.deliver()).startswith("451 4.7.1")
        seen = only(learner)
        assert (one.messages, seen.logins.seen, seen.clear_logins) == ([], {"me@example.com": 1}, 1)
        assert "hush" not in str(seen.plain()) + str(one.logged())
        right = b64encode(f"\0copier\0{PASSWORD}".encode()).decode()
        await peer.talk((f"AUTH PLAIN {right}", "235"))
        assert (await peer.deliver()).startswith("250")
        assert len(one.messages) == 1


async def test_who_may_send_is_treated_as_ever_where_networks_are_heard_out() -> None:
    """His mail is accepted, a wrong password is refused, and he is not drawn into logging in."""
    clients = {"localhost": {"networks": ["127.0.0.1"]}}
    async with learning(HEAR["learn"], clients) as (one, _):
        peer = await one.connect()
        assert "AUTH" not in await peer.ehlo()
        await peer.talk((LOGIN, "502"))
        assert (await peer.deliver()).startswith("250")


async def test_a_stranger_who_must_log_in_is_offered_it_without_any_client_that_could() -> None:
    """Else a device that always logs in would go away, and nobody would know what it sends."""
    clients = {"others": {"networks": ["192.0.2.0/24"]}}
    async with learning(HEAR["learn"], clients) as (one, _):
        peer = await one.connect()
        assert "AUTH PLAIN" in await peer.ehlo()
        await peer.talk((LOGIN, "235"), ("MAIL FROM:<a@example.com>", "250"))
    async with learning(HEAR["learn"], clients, listener={"auth": "off"}) as (one, _):
        assert "AUTH" not in await (await one.connect()).ehlo()


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        ([("RSET", "250")], False),
        ([("EHLO c", "250")], False),
        ([("MAIL FROM:<b@example.com>", "503")], True),
        ([("RCPT TO:<broken", "501")], True),
        ([("DATA", "451")], False),
    ],
)
async def test_what_is_heard_out_ends_as_a_transaction_does(steps: list[tuple[str, str]], left: bool) -> None:
    """Nothing of it reaches the next one."""
    async with learning(HEAR["learn"]) as (one, _):
        peer = await one.connect()
        await peer.talk(("EHLO c", "250"), ("MAIL FROM:<a@example.com>", "250"), *steps)
        assert (await peer.say("RCPT TO:<b@example.org>")).startswith("250" if left else "503")


async def test_whatever_is_wrong_with_it_is_no_reason_to_give_it_up() -> None:
    """Bare newlines, too large: noted, and answered 451, for afterwards the listener may take it."""
    async with learning(HEAR["learn"], limits={"max_size": "1kB"}) as (one, learner):
        peer = await one.connect()
        assert (await peer.deliver(b"From: a@example.com\r\n\r\n" + b"x\r\n" * 1000)).startswith("451 4.7.1")
        assert (await peer.deliver(b"From: a@example.com\n\nx\r\n")).startswith("451 4.7.1")
        assert {"too_big", "bad_newlines"} <= only(learner).reasons


async def test_it_stops_in_the_middle_of_a_connection() -> None:
    """From then on a stranger hears what he hears without it; what he began is refused at its end."""
    async with learning(HEAR["learn"]) as (one, learner):
        peer = await one.connect()
        await peer.envelope()
        learner.at = {}
        assert (await peer.say(MESSAGE + b".\r\n")).startswith("451 4.7.1")
        await peer.talk(("MAIL FROM:<a@example.com>", "530"))
        assert one.messages == []
