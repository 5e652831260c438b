"""What every registered backend keeps, whatever it speaks. A backend without a harness here fails the first test."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.backends import BACKENDS, Context, build, settings_types
from gateway.checks import Step
from gateway.config.models import BackendSettings
from gateway.message import redirected
from gateway.model import Backend, SaidBy, Scope, Verdict
from tests.backends import json_fakes, kit
from tests.backends.gmail_fake import REFRESH, GoogleFake, authorized_user_info, stored
from tests.backends.gmail_fake import error as gmail_error
from tests.backends.graph_fake import CLIENT, MAILBOX, TENANT, GraphFake
from tests.backends.graph_fake import SECRET as GRAPH_SECRET
from tests.backends.graph_fake import error as graph_error
from tests.backends.json_fakes import Js2mailFake, JsonFake, JustemailsFake, MailpassFake, TempMailFake
from tests.backends.kit import KEY, RAW, Request, Smtp2goFake, SmtpFake, Web, http, spooled

SECRET = "hunter2-hunter2-hunter2"


@dataclass
class Bench:
    """A backend with its far side: what it takes to build it, what arrived, and how to take the far side away.

    ``carried`` is what must arrive of a message: all of it, but where the API has no place for MIME. ``answer`` makes
    the far side say nothing but that, and with True its identity provider as well, if there is one.
    """

    settings: dict[str, Any]
    arrived: Callable[[], list[bytes]]
    away: dict[str, Any]  # settings under which nobody answers
    secret: str = ""
    carried: Callable[[bytes], bytes] = bytes
    ids: bool = True  # whether the provider gives mail a name
    says: SaidBy = "http"  # whose words its answers are
    web: Web | None = None
    answer: Callable[[int, bool], None] = lambda status, tokens: None
    refuse: Callable[[bytes, bytes], None] = lambda address, answer: None  # ``answer`` whatever ``address`` stands in


def refusing(web: Web) -> Callable[[bytes, bytes], None]:
    usual = web.handler

    def change(address: bytes, answer: bytes) -> None:
        def handler(request: Request) -> bytes | Awaitable[bytes | None]:
            longest = max(re.findall(rb"[A-Za-z0-9+/]{60,}=*", request.body), key=len, default=b"")
            return answer if address in request.body + base64.b64decode(longest) else usual(request)

        web.handler = handler

    return change


def answering(web: Web) -> Callable[[int, bool], None]:
    usual = web.handler

    def change(status: int, tokens: bool) -> None:
        def handler(request: Request) -> bytes | Awaitable[bytes | None]:
            spared = not tokens and re.search(r"token|oauth2|openid", request.path)
            return usual(request) if spared else http(status, {"error": {"code": "Odd", "message": "as you like"}})

        web.handler = handler

    return change


@contextlib.asynccontextmanager
async def capture(context: Context) -> AsyncIterator[Bench]:
    blocked = context.state_dir / "file"
    blocked.touch()
    directory = context.state_dir / "captured"
    yield Bench(
        {"type": "capture", "directory": "captured"},
        lambda: [path.read_bytes() for path in sorted(directory.glob("*.eml"))],
        {"directory": str(blocked / "below")},
        says="gateway",
    )


@contextlib.asynccontextmanager
async def smtp(_: Context) -> AsyncIterator[Bench]:
    async with SmtpFake(offers=(*kit.ALL, "AUTH PLAIN LOGIN")) as server:
        yield Bench(
            {
                "type": "smtp",
                "host": "127.0.0.1",
                "port": server.port,
                "tls": "none",
                "username": "u",
                "password": SECRET,
            },
            lambda: [transaction.body for transaction in server.done],
            {"port": 1},
            SECRET,
            says="smtp",
            answer=lambda status, _: server.replies.update({"MAIL": [f"{status} as you like"]}),
            refuse=lambda address, _: server.replies.update(
                {f"RCPT TO:<{address.decode()}>": ["550 5.1.1 no such user"]}
            ),
        )


@contextlib.asynccontextmanager
async def smtp2go(_: Context) -> AsyncIterator[Bench]:
    fake = Smtp2goFake()
    async with Web(fake) as web:
        yield Bench(
            {"type": "smtp2go", "api_key": KEY, "base_url": web.url + "/v3"},
            lambda: [raw for _, raw in fake.delivered],
            {"base_url": "http://127.0.0.1:1/v3"},
            KEY,
            web=web,
            answer=answering(web),
            refuse=refusing(web),
        )


@contextlib.asynccontextmanager
async def gmail(context: Context) -> AsyncIterator[Bench]:
    fake = GoogleFake(context.clock)
    async with Web(fake) as web:
        yield Bench(
            {
                "type": "gmail",
                "mailbox": "me",
                "authorized_user_file": stored(context.state_dir, authorized_user_info()),
                "api_base": web.url,
                "token_url": web.url + "/token",
            },
            lambda: [delivery.raw for delivery in fake.delivered],
            {"api_base": "http://127.0.0.1:1", "token_url": "http://127.0.0.1:1/token"},
            REFRESH,
            web=web,
            answer=answering(web),
            refuse=refusing(web),
        )


@contextlib.asynccontextmanager
async def graph(_: Context) -> AsyncIterator[Bench]:
    fake = GraphFake()
    async with Web(fake) as web:
        yield Bench(
            {
                "type": "graph",
                "tenant": TENANT,
                "client_id": CLIENT,
                "client_secret": GRAPH_SECRET,
                "mailbox": MAILBOX,
                "mailbox_rate": "1000/minute",
                "api_base": web.url,
                "authority": web.url,
            },
            lambda: [raw for _, raw in fake.delivered],
            {"api_base": "http://127.0.0.1:1", "authority": "http://127.0.0.1:1"},
            GRAPH_SECRET,
            web=web,
            answer=answering(web),
            refuse=refusing(web),
        )


def subject_and_text(raw: bytes) -> bytes:
    """The message with no other field than its subject, as the standard library reads it."""
    message = message_from_bytes(raw)
    subject = message["subject"] or "(no subject)"
    return f"Subject: {subject}\r\n\r\n".encode() + message.get_payload(decode=True)


def as_message(subject: str, text: str) -> bytes:
    assert "\r" not in text, "lines end in LF"
    lines = text.replace("\n", "\r\n")
    return f"Subject: {subject or '(no subject)'}\r\n\r\n{lines}".encode()


def fields_only(
    kind: type[JsonFake], secret: str, **settings: Any
) -> Callable[[Context], AbstractAsyncContextManager[Bench]]:
    """For APIs that take subject and text."""

    @contextlib.asynccontextmanager
    async def harness(_: Context) -> AsyncIterator[Bench]:
        fake = kind()
        async with Web(fake) as web:
            yield Bench(
                {"type": fake.kind, "base_url": web.url + fake.root, **fake.settings(), **settings},
                lambda: [as_message(*shown) for shown in fake.texts()],
                {"base_url": "http://127.0.0.1:1"},
                secret,
                subject_and_text,
                ids=fake.kind != "temp_mail",
                web=web,
                answer=answering(web),
                refuse=refusing(web),
            )

    return harness


HARNESS = {
    "capture": capture,
    "gmail": gmail,
    "graph": graph,
    "js2mail": fields_only(Js2mailFake, json_fakes.SECRET),
    "justemails": fields_only(JustemailsFake, json_fakes.SECRET),
    "mailpass": fields_only(MailpassFake, json_fakes.SECRET),
    "smtp": smtp,
    "smtp2go": smtp2go,
    "temp_mail": fields_only(TempMailFake, json_fakes.TOKEN, empty_subject="fill"),
}
KINDS = sorted(BACKENDS)


def make(bench: Bench, context: Context, **changes: Any) -> Backend:
    values = bench.settings | changes
    settings = settings_types()[values["type"]].model_validate(values)
    return build("way", settings, context)


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[Context]:
    async with kit.context(tmp_path) as value:
        yield value


@pytest.fixture(params=KINDS)
async def bench(request: pytest.FixtureRequest, context: Context) -> AsyncIterator[Bench]:
    async with HARNESS[request.param](context) as value:
        yield value


def test_every_registered_backend_is_tested_here() -> None:
    assert set(HARNESS) == set(BACKENDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_settings_know_their_type_and_refuse_unknown_keys(kind: str) -> None:
    settings = settings_types()[kind]
    assert issubclass(settings, BackendSettings)
    with pytest.raises(ValidationError) as error:
        settings.model_validate({"type": "other", "tennant": "x"})
    places = {(problem["loc"], problem["type"]) for problem in error.value.errors()}
    assert {(("type",), "literal_error"), (("tennant",), "extra_forbidden")} <= places


@pytest.mark.parametrize("key", ["abc\ndef", "a\r\nHost: x", "schl\u00fcssel", ""])
@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_no_header_can_carry_is_a_wrong_setting(kind: str, key: str) -> None:
    """Said at the start as what it is: sent, it would look like a server that is away. It is not shown."""
    settings = settings_types()[kind]
    for name in {"api_key", "token"}.intersection(settings.model_fields):
        with pytest.raises(ValidationError) as error:
            settings.model_validate({"type": kind, name: key})
        assert [problem["msg"] for problem in error.value.errors() if problem["loc"] == (name,)] == [
            "Value error, must be one line of ASCII characters, and nothing else"
        ]


async def test_a_message_arrives_byte_for_byte_and_every_recipient_is_answered(bench: Bench, context: Context) -> None:
    backend = make(bench, context)
    assert backend.name == "way"
    outcomes = await backend.send(spooled("b@x.example"), RAW)
    assert {address: outcome.verdict for address, outcome in outcomes.items()} == {"b@x.example": Verdict.SENT}
    assert all(bool(outcome.remote_id) == bench.ids and outcome.detail for outcome in outcomes.values())
    assert {outcome.said_by for outcome in outcomes.values()} == {bench.says}
    assert bench.arrived() == [bench.carried(RAW)]
    await backend.aclose()


async def test_many_messages_at_once_all_arrive_once(bench: Bench, context: Context) -> None:
    backend = make(bench, context, concurrency=4)
    bodies = [RAW.replace(b"hello", b"number %d" % number) for number in range(30)]
    results = await asyncio.gather(
        *(backend.send(spooled(queue_id=f"Q{number}"), body) for number, body in enumerate(bodies)),
    )
    assert {outcome.verdict for outcomes in results for outcome in outcomes.values()} == {Verdict.SENT}
    assert sorted(bench.arrived()) == sorted(map(bench.carried, bodies))
    await backend.aclose()


@pytest.mark.parametrize(
    "body",
    [
        b"lone\nfeeds\r\nand\rreturns\r\n",
        b"end\r\n\n.\n\r\nMAIL FROM:<evil@x.example>\r\n",
        b"end\n.\r\nnext",
        b"\r.\r\n\r\r.\r\r\n",
        b".\r\n..\r\n.a\r\n\r\n.",
    ],
)
async def test_nothing_but_crlf_leaves_and_one_message_stays_one(bench: Bench, context: Context, body: bytes) -> None:
    """Outbound smuggling: RFC 5321 2.3.8. capture keeps the bytes as they are."""
    backend = make(bench, context)
    raw = b"From: a@corp.example\r\nTo: b@x.example\r\n\r\n" + body
    assert (await backend.send(spooled("b@x.example"), raw))["b@x.example"].verdict is Verdict.SENT
    (arrived,) = bench.arrived()
    if bench.settings["type"] == "capture":
        assert arrived == raw
        return
    expected = bench.carried(raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n"))
    assert arrived.removesuffix(b"\r\n") == expected.removesuffix(b"\r\n")
    await backend.aclose()


@pytest.mark.parametrize(
    "raw", [b"", b"\r\n", b"no header", b"\xff\x00\r\n\r\n\xfe", b"To: " + b"(" * 5000, b"To: <\r\n" * 10_000 + b"\r\n"]
)
async def test_no_message_is_too_odd_to_be_answered(bench: Bench, context: Context, raw: bytes) -> None:
    """``send`` raises for nothing expected, and forgets nobody."""
    backend = make(bench, context)
    message = spooled("b@x.example", "ü@x.example", "B@X.example", smtputf8=True, eightbit=True)
    assert set(await backend.send(message, raw)) == {"b@x.example", "ü@x.example", "B@X.example"}
    await backend.aclose()


async def test_with_nobody_there_everything_waits(bench: Bench, context: Context) -> None:
    """Nothing can have been sent: DEFERRED, which rests the backend and costs the message nothing."""
    backend = make(bench, context, **bench.away)
    outcomes = await backend.send(spooled("b@x.example", "c@x.example"), RAW)
    assert set(outcomes) == {"b@x.example", "c@x.example"}
    for outcome in outcomes.values():
        assert (outcome.verdict, outcome.scope) == (Verdict.DEFERRED, Scope.BACKEND)
        assert (outcome.code, outcome.said_by) == (None, "gateway")
        assert outcome.enhanced.startswith("4.")
        assert outcome.detail
    check = await backend.check()
    assert not check.ok
    assert check.summary
    assert check.fix
    await backend.aclose()


STATUSES = (200, 201, 202, 204, 301, 400, 401, 402, 403, 404, 407, 408, 409, 413, 422, 425, 429)


@pytest.mark.parametrize("tokens", [False, True], ids=["API", "all"])
@pytest.mark.parametrize("status", [*STATUSES, 450, 451, 500, 502, 503, 504, 507, 535, 550, 599])
async def test_whatever_is_answered_the_outcome_says_whom_it_is_about(
    bench: Bench, context: Context, status: int, tokens: bool
) -> None:
    """Only codes that were received, a scope and an enhanced code that fit the verdict; and so does what to do."""
    bench.answer(status, tokens)
    backend = make(bench, context)
    outcomes = kit.kept(await backend.send(spooled("b@x.example", "blind@x.example"), RAW))
    assert set(outcomes) == {"b@x.example", "blind@x.example"}
    for outcome in outcomes.values():
        assert outcome.verdict is Verdict.SENT or outcome.code in (None, status)
    await backend.aclose()


# Who cannot be mailed, in the words of each provider that takes several in one call. js2mail documents none.
BAD = "root@bad"
ONE_BAD: dict[str, bytes] = {
    "gmail": gmail_error(400, "invalidArgument", "Invalid To header"),
    "graph": graph_error(
        400, "ErrorInvalidRecipients", f"At least one recipient is not valid., Recipient '{BAD}' is not"
    ),
    "js2mail": http(400, {"error": "BAD_REQUEST", "message": "a recipient is not valid"}),
    "mailpass": http(400, {"success": False, "error": {"code": "VALIDATION_ERROR", "message": "cc: invalid address"}}),
    "smtp": b"",
    "smtp2go": http(200, {"request_id": "r", "data": {"succeeded": 0, "failed": 1, "failures": ["invalid address"]}}),
}


@pytest.mark.parametrize("kind", sorted(ONE_BAD))
async def test_one_bad_recipient_costs_the_others_nothing(kind: str, context: Context) -> None:
    """Nothing was sent, so the others get it in further calls, once each, and nobody is told of a failure but his."""
    people = ["a@x.example", "b@x.example", BAD, *(f"c{number}@x.example" for number in range(9))]
    raw = f"From: a@corp.example\r\nTo: {', '.join(people)}\r\nSubject: s\r\n\r\nhello\r\n".encode()
    async with HARNESS[kind](context) as bench:
        bench.refuse(BAD.encode(), ONE_BAD[kind])
        backend = make(bench, context)
        outcomes = kit.kept(await backend.send(spooled(*people), raw))
        await backend.aclose()
        arrived = bench.arrived()
    assert {address for address, outcome in outcomes.items() if outcome.verdict is Verdict.SENT} == {*people} - {BAD}
    assert (outcomes[BAD].verdict, outcomes[BAD].scope) == (Verdict.REJECTED, Scope.RECIPIENT)
    if kind in ("gmail", "graph", "smtp2go"):  # whose calls show whom they were for
        mailed = [address for one in arrived for address in re.findall(rb"[\w]+@[\w.]+", b" ".join(to_of(one)))]
        assert sorted(mailed) == sorted(address.encode() for address in people if address != BAD)


def to_of(raw: bytes) -> list[bytes]:
    message = message_from_bytes(raw)
    return [str(value).encode() for name in ("to", "cc", "bcc") for value in message.get_all(name, [])]


async def test_mail_for_a_test_address_reaches_nobody_else(bench: Bench, context: Context) -> None:
    """``redirect_to``, by a backend that reads the header as by any other: who was asked for stands in no To or Cc."""
    people = [b"c@real.example", b"d@real.example", b"e@real.example"]
    raw = b"From: a@corp.example\r\nTo: C <%b>\r\nCc: %b\r\nSubject: s\r\n\r\nhello\r\n" % (people[0], people[1])
    raw = redirected(raw, "test@x.example", [one.decode() for one in people])
    sent: list[bytes] = []
    if bench.web is not None:
        usual = bench.web.handler

        def handler(request: Request) -> bytes | Awaitable[bytes | None]:
            sent.append(request.body)
            return usual(request)

        bench.web.handler = handler
    backend = make(bench, context)
    outcomes = await backend.send(spooled("test@x.example"), raw)
    await backend.aclose()
    assert {address: outcome.verdict for address, outcome in outcomes.items()} == {"test@x.example": Verdict.SENT}
    (arrived,) = bench.arrived()
    if b"X-Envelope-To" in arrived:
        assert to_of(arrived) == [b"test@x.example"]
    else:
        assert not any(one in body for one in people for body in sent)


async def test_check_says_what_is_there_and_sends_nothing(bench: Bench, context: Context) -> None:
    backend = make(bench, context)
    check = await backend.check()
    assert check.ok, check
    assert check.facts
    assert bench.arrived() == []
    await backend.aclose()


def told(steps: Sequence[Step]) -> list[str]:
    """The results, once each in their order; every text is a sentence."""
    assert [step.text for step in steps if not step.text.endswith(".")] == []
    return list(dict.fromkeys(step.result for step in steps))


async def test_a_check_tells_its_steps_and_what_it_did_not_try(bench: Bench, context: Context) -> None:
    """All of them good, or the last that was made is wrong, in the other side's words; and no check shows what only a
    sent message shows."""
    backend, away = make(bench, context), make(bench, context, **bench.away)
    assert told((await backend.check()).steps) == ["good", "untried"]
    bench.answer(401, True)
    refused = make(bench, context)
    for one in (away, refused) if bench.says == "http" else (away,):
        check = await one.check()
        assert not check.ok
        assert told(check.steps) in (["wrong", "untried"], ["good", "wrong", "untried"])
        [failed] = [step for step in check.steps if step.result == "wrong"]
        assert failed.said
        assert failed.said in check.summary
    for one in (backend, away, refused):
        await one.aclose()


async def test_max_size_lowers_the_limit_and_never_raises_it(bench: Bench, context: Context) -> None:
    own = make(bench, context).capabilities.max_bytes
    assert make(bench, context, max_size="1MB").capabilities.max_bytes == 1_000_000
    assert make(bench, context, max_size="5000GB").capabilities.max_bytes == own


async def test_secrets_show_nowhere(bench: Bench, context: Context) -> None:
    if not bench.secret:
        assert bench.settings["type"] == "capture"
        return
    settings = settings_types()[bench.settings["type"]].model_validate(bench.settings)
    backend = make(bench, context, **bench.away)
    outcomes = await backend.send(spooled(), RAW)
    shown = f"{settings!r} {settings} {settings.model_dump_json()} {outcomes} {await backend.check()}"
    assert bench.secret not in shown


async def test_closing_twice_is_harmless_and_a_closed_backend_still_answers_for_all(
    bench: Bench, context: Context
) -> None:
    backend = make(bench, context)
    await backend.send(spooled(), RAW)
    await backend.aclose()
    await backend.aclose()
    assert set(await backend.send(spooled("b@x.example", "c@x.example"), RAW)) == {"b@x.example", "c@x.example"}
    await backend.aclose()
