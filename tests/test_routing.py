"""Which backend may carry what for whom: one answer, whoever asks, and a refusal that names the fix."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import policy
from gateway.config.models import RouteSettings
from gateway.delivery.bounces import Bouncer
from gateway.delivery.retry import Decision
from gateway.intake import Rules, prepare
from gateway.message import FEATURES as FEATURE_NAMES
from gateway.message import Arrival
from gateway.model import CannotCarry, Capabilities, Client, Envelope, NewMessage, Recipient
from gateway.routing import WORDS, Freight, Routing, obstacle
from tests.builders import settings, spooled_message
from tests.fakes import START
from tests.spool_kit import REJECTED, At, opened

CLIENT = "app"


def line(*names: str, **patterns: tuple[str, ...]) -> RouteSettings:
    return RouteSettings(backend=names, **patterns)


def freight(**facts: Any) -> Freight:
    return Freight(**{"client": CLIENT, "sender": "a@x.example", "size": 1, **facts})


ROUTES = (
    line("office", recipients=("*@example.com",)),
    line("s2g", "smart", clients=("printers",)),
    line("null", senders=("",)),
    line("bulk", clients=("app",), senders=("*@news.example",), recipients=("*@*.example",)),
    line("smart"),
)


TABLES = [
    Routing(ROUTES, dict.fromkeys(("office", "s2g", "smart", "null", "bulk"), Capabilities(10))),
    Routing((line("one", "two"),), {"one": Capabilities(10, null_sender=False), "two": Capabilities(20, quoted=False)}),
    Routing((line("one", "two"),), {"one": Capabilities(10, senders=("*@x.example",)), "two": Capabilities(5)}),
    Routing(
        (line("one", "two", recipients=("*@example.com",)), line("two", senders=("", "a@*"))),
        {
            "one": Capabilities(30, lacks=frozenset(("signed",)), whole_bytes=10),
            "two": Capabilities(20, smtputf8=False),
        },
    ),
    Routing((line("own", "gone"),), {"own": Capabilities(20, own_token=True)}),
]
ASKED = st.builds(
    Freight,
    client=st.sampled_from(["app", "printers"]),
    sender=st.sampled_from(["", "a@x.example", "b@x.example", "a@y.example"]),
    size=st.sampled_from([1, 5, 6, 10, 11, 20, 21, 30, 31]),
    pin=st.sampled_from(["", "", "one", "two", "nowhere"]),
    smtputf8=st.booleans(),
    authors=st.lists(st.sampled_from(["a@x.example", "b@y.example", '"q@z"@x.example']), max_size=4).map(tuple),
    features=st.sampled_from([None, {}, {"signed": "here"}, {"signed": "there"}, {"report": ""}]),
    own_token=st.booleans(),
)


@given(
    st.integers(0, len(TABLES) - 1),
    st.lists(st.tuples(ASKED, st.sampled_from(["b@example.com", '"b@c"@example.com', "b@y.example"])), max_size=30),
)
def test_what_is_remembered_is_what_would_be_found(number: int, asked: list[tuple[Freight, str]]) -> None:
    """Whatever was asked before, of mail that differs in anything; a refusal speaks of the mail that is refused."""

    def found(table: Routing, one: Freight, recipient: str) -> tuple[str, ...]:
        try:
            return table.usable(one, recipient)
        except CannotCarry as error:
            return error.kind, error.enhanced, error.text

    table = TABLES[number]
    for one, recipient in asked:
        assert found(table, one, recipient) == found(Routing(table.routes, table.capabilities), one, recipient)


def test_who_makes_up_addresses_fills_no_memory() -> None:
    """Where routes ask for no addresses, they are nothing new; where they do, the last thousand answers are kept."""
    able = {"smart": Capabilities(10)}
    for table, most in (
        (Routing((line("smart"),), able), 10_000),
        (Routing((line("smart", recipients=("*@example.com",)),), able), 1_000_000),
    ):
        tracemalloc.start()
        for number in range(5000):
            table.usable(freight(sender=f"{number}@x.example"), f"{number}@example.com")
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert kept < most


@pytest.mark.parametrize(
    ("client", "pin", "sender", "recipient", "expected"),
    [
        ("printers", "", "a@x", "b@example.com", ("office",)),
        ("printers", "", "a@x", "b@example.org", ("s2g", "smart")),
        ("printers", "", "", "b@example.org", ("s2g", "smart")),
        ("printers", "box", "a@x", "b@example.com", ("box",)),
        ("app", "", "a@news.example", "b@sub.example", ("bulk",)),
        ("app", "", "a@news.example", "b@example", ("smart",)),
        ("app", "", "", "b@sub.example", ("null",)),
        ("app", "box", "", "b@sub.example", ("box",)),
        ("other", "", "a@news.example", "b@sub.example", ("smart",)),
    ],
)
def test_backends(client: str, pin: str, sender: str, recipient: str, expected: tuple[str, ...]) -> None:
    """The first line whose patterns all match, "" being the null sender; a pin wins over the table."""
    asked = freight(client=client, pin=pin, sender=sender)
    assert Routing(ROUTES, {}).backends(asked, recipient) == expected


@pytest.mark.parametrize(
    ("senders", "sender", "fits"),
    [
        (("",), "", True),
        (("",), "a@x", False),
        (("*@x",), "", False),
        (("*@x", ""), "", True),
        (("*@x", ""), "A@X", True),
        (("*",), "", True),
    ],
)
def test_the_null_sender_has_a_pattern_of_its_own(senders: tuple[str, ...], sender: str, fits: bool) -> None:
    """As config.example.yaml has it: senders: [""] is the line for bounces."""
    found = Routing((line("smart", senders=senders),), {}).backends(freight(sender=sender), "b@y")
    assert found == (("smart",) if fits else ())


@pytest.mark.parametrize("odd", ['"x@evil.example, b"@example.com', "=?utf-8?q?x=40evil.example=2C?=@example.com"])
def test_an_address_that_could_be_read_as_another(odd: str) -> None:
    """A client that may write to and as one domain is not to reach or show others by a provider's careless reading
    (CVE-2025-13033): where an API takes addresses as text, the next backend carries them, or the door refuses."""
    able = {"json": Capabilities(1000, quoted=False), "smtp": Capabilities(1000)}
    table = Routing((line("json", "smtp"),), able)
    assert table.usable(freight(), "b@example.com") == ("json", "smtp")
    assert table.usable(freight(), odd) == table.usable(freight(authors=(odd,)), "b@example.com") == ("smtp",)
    with pytest.raises(CannotCarry, match="could be read as another"):
        replace(table, routes=(line("json"),)).usable(freight(), odd)


def test_no_route() -> None:
    """A table that matches nothing gives nothing, and says for whom."""
    routing = Routing(ROUTES[:1], {"office": Capabilities(9)})
    assert routing.backends(freight(), "b@y") == ()
    with pytest.raises(CannotCarry) as refused:
        routing.usable(freight(), "b@y")
    assert (refused.value.kind, refused.value.text) == ("no_route", "<b@y>: no line of the setting routes matches")


ABLE = {
    "small": Capabilities(1000),
    "api": Capabilities(5000, null_sender=False, smtputf8=False),
    "smart": Capabilities(10_000),
}


@pytest.mark.parametrize(
    ("names", "size", "sender", "utf8", "expected"),
    [
        (["small", "smart"], 1000, "a@x", False, ("small", "smart")),
        (["small", "smart"], 1001, "a@x", False, ("smart",)),
        (["api", "smart"], 1, "", False, ("smart",)),
        (["api", "smart"], 1, "a@x", True, ("smart",)),
        (["gone", "api"], 1, "a@x", False, ("api",)),
        (["smart"], 10_001, "a@x", False, ("too_big", "5.3.4", '"smart" takes at most 10000 bytes')),
        (["small", "api"], 6000, "", True, ("too_big", "5.3.4", '"small" takes at most 1000 bytes')),
        (["api"], 1, "", False, ("null_sender", "5.7.1", '"api" cannot send with the null sender')),
        (["api"], 1, "a@x", True, ("utf8", "5.6.7", '"api" cannot carry non-ASCII addresses')),
        (["gone"], 1, "a@x", False, ("not_configured", "4.3.5", '"gone" is not configured')),
    ],
)
def test_usable(names: list[str], size: int, sender: str, utf8: bool, expected: tuple[str, ...]) -> None:
    """Backends that can carry it, in order; when none can, the first one's obstacle is the reason given."""
    routing, asked = Routing((line(*names),), ABLE), freight(size=size, sender=sender, smtputf8=utf8)
    if expected[0] in names:
        assert routing.usable(asked, "b@y") == expected
        return
    with pytest.raises(CannotCarry) as refused:
        routing.usable(asked, "b@y")
    assert (refused.value.kind, refused.value.enhanced) == expected[:2]
    assert expected[2] in refused.value.text


SENDERS = Capabilities(9000, senders=("noreply@example.com", "*@news.example"))
PARTS = Capabilities(
    9000, lacks=frozenset(("attachments", "headers")), remedies={"headers": "set x: drop on backends.{name}"}
)
DRAFTS = Capabilities(9000, whole_bytes=3000, lacks=frozenset(("signed",)))
FEATURES = [
    (SENDERS, {"authors": ("NoReply@example.com", "a@news.example")}, None),
    (SENDERS, {"authors": ()}, None),
    (
        SENDERS,
        {"authors": ("noreply@example.com", "evil@example.com")},
        (
            "sender",
            "5.7.1",
            '<evil@example.com>: backend "b" sends only as noreply@example.com, *@news.example; send from there '
            "(rewrite_sender), or add it to backends.b.senders if it may",
        ),
    ),
    (PARTS, {"features": None}, None),
    (PARTS, {"features": {"signed": "part 1"}}, None),
    (
        PARTS,
        {"features": {"attachments": "part 2: application/pdf report.pdf", "headers": "X-A"}},
        (
            "feature",
            "5.6.3",
            'attachments cannot be sent through backend "b" (part 2: application/pdf report.pdf); '
            "route this client to another backend",
        ),
    ),
    (
        PARTS,
        {"features": {"headers": "X-A"}},
        (
            "feature",
            "5.6.3",
            'header fields of their own cannot be sent through backend "b" (X-A); set x: drop on backends.b',
        ),
    ),
    (
        PARTS,
        {"features": {"attachments": ""}},
        ("feature", "5.6.3", 'attachments cannot be sent through backend "b"; route this client to another backend'),
    ),
    (DRAFTS, {"size": 3000, "features": {"signed": "part 1"}}, None),
    (
        DRAFTS,
        {"size": 3001, "features": {"signed": "part 1"}},
        (
            "feature",
            "5.6.3",
            'signed mail cannot be sent through backend "b" above 3000 bytes (part 1); '
            "route this client to another backend",
        ),
    ),
    (Capabilities(9000, own_token=True), {"own_token": True}, None),
    (
        Capabilities(9000, own_token=True),
        {"own_token": False},
        (
            "token",
            "5.7.1",
            'backend "b" sends only with the client\'s own token; log in with that (clients: login: b)',
        ),
    ),
]


@pytest.mark.parametrize(("able", "facts", "refusal"), FEATURES)
def test_what_a_message_is_made_of_decides_its_way(
    able: Capabilities, facts: dict[str, Any], refusal: tuple[str, str, str] | None
) -> None:
    """Nothing is dropped in silence: who cannot carry it is passed over, and the refusal says what, where and the fix.

    What nobody has looked at is no obstacle: the backend judges it itself.
    """
    asked = freight(**facts)
    both = Routing((line("b", "smart"),), {"b": able, "smart": Capabilities(10_000)})
    found = both.usable(asked, "b@y")
    unsure = asked.features is None and able.lacks  # nobody has looked: the other way is safe
    assert set(found) == ({"smart"} if refusal or unsure else {"b", "smart"})
    why = obstacle("b", able, asked)
    assert (why and (why.kind, why.enhanced, why.text)) == refusal
    if refusal:
        with pytest.raises(CannotCarry) as refused:
            Routing((line("b"),), {"b": able}).usable(asked, "b@y")
        assert (refused.value.kind, refused.value.enhanced, refused.value.text) == refusal


@pytest.mark.parametrize(
    ("features", "size", "expected"),
    [
        ({}, 5000, ("parts", "drafts", "smart", "more")),
        (None, 5000, ("smart", "more")),
        (None, 3000, ("drafts", "smart", "more")),
        (None, 9500, ("smart", "more")),
        ({"signed": ""}, 5000, ("parts", "smart", "more")),
    ],
)
def test_who_may_have_to_refuse_is_the_last_resort(
    features: dict[str, str] | None, size: int, expected: tuple[str, ...]
) -> None:
    """Where nobody has looked at the message: a refusal after 250 is a bounce. Else the order of the settings holds."""
    able = {"parts": PARTS, "drafts": DRAFTS, "smart": Capabilities(10_000), "more": Capabilities(10_000)}
    routing = Routing((line("parts", "drafts", "smart", "more"),), able)
    assert routing.usable(freight(features=features, size=size), "b@y") == expected


def test_who_may_have_to_refuse_is_asked_where_there_is_no_other() -> None:
    """In the order of the settings."""
    routing = Routing((line("second", "first"),), dict.fromkeys(("first", "second"), PARTS))
    assert routing.usable(freight(features=None, size=5000), "b@y") == ("second", "first")


def test_ways_suit_every_recipient() -> None:
    """In the order of the first one's route; none where one of them has none."""
    routing = Routing(
        (line("office", "smart", "api", recipients=("*@a",)), line("smart", "office", recipients=("*@b", "*@c"))),
        {"office": Capabilities(9), "smart": Capabilities(9), "api": Capabilities(9)},
    )
    assert routing.ways(freight(), ["1@a"]) == ("office", "smart", "api")
    assert routing.ways(freight(), ["1@a", "1@b"]) == ("office", "smart")
    assert routing.ways(freight(), ["1@b", "1@a", "2@a"]) == ("smart", "office")
    for nowhere in (["1@a", "1@d"], ["1@d"], []):
        assert routing.ways(freight(), nowhere) == ()
    assert routing.ways(freight(size=10), ["1@a"]) == ()


def test_deliveries_give_each_recipient_to_the_first_that_can() -> None:
    """Every recipient is in exactly one, of those that work if any does; one that nobody can serve refuses all."""
    routing = Routing((line("office", recipients=("*@a",)), line("small", "smart", recipients=("*@b",))), ABLE)
    able = replace(routing, capabilities={**ABLE, "office": Capabilities(9000)})
    found = able.deliveries(freight(size=2000), ["1@a", "1@b", "2@a", "2@b"])
    assert found == {"office": ("1@a", "2@a"), "smart": ("1@b", "2@b")}
    works = able.deliveries(freight(), ["1@a", "1@b"], lambda name: name == "smart")
    assert works == {"office": ("1@a",), "smart": ("1@b",)}
    for routes, recipients, kind in ((able, ["1@a", "1@c"], "no_route"), (routing, ["1@b", "1@a"], "not_configured")):
        with pytest.raises(CannotCarry) as refused:
            routes.deliveries(freight(), recipients)
        assert refused.value.kind == kind


def test_alternatives() -> None:
    """Whatever stands beside it in some line, before or after it."""
    routing = Routing((line("a"), line("b", "c"), line("b")), {})
    assert [set(routing.alternatives(name)) for name in "abcd"] == [set(), {"c"}, {"b"}, set()]


def test_somebody_has_to_look_where_a_backend_minds() -> None:
    """Reading a message through costs time: not where every backend takes whatever comes."""
    assert not Routing((), {"a": Capabilities(9), "b": SENDERS}).particular
    assert Routing((), {"a": Capabilities(9), "b": DRAFTS}).particular


def test_every_feature_has_its_words() -> None:
    """A feature without a word would be a bug in the middle of a refusal."""
    assert set(WORDS) == FEATURE_NAMES


def test_a_backend_s_limit_names_itself_and_the_setting() -> None:
    """At MAIL and DATA the client hears whose limit it is, and what would allow more."""
    able = {"office": Capabilities(3000, size_hint="set large_messages: draft on backends.{name}")}
    routing = Routing((line("office"),), able)
    expected = ', the limit of backend "office"; set large_messages: draft on backends.office'
    assert routing.largest(Client("c"), 9000) == (3000, expected)
    assert routing.largest(Client("c"), 3000) == (3000, "")
    why = obstacle("office", able["office"], freight(size=3001))
    assert why is not None
    assert why.text.endswith('"office" takes at most 3000 bytes; set large_messages: draft on backends.office')


@pytest.mark.parametrize(
    ("client", "cap", "expected"),
    [
        (Client("printers"), 99_999, 10_000),
        (Client("other"), 99_999, 5000),
        (Client("printers"), 700, 700),
        (Client("printers", max_size=800), 99_999, 800),
        (Client("printers", max_size=0), 99_999, 0),
        (Client("printers", backend="small"), 99_999, 1000),
        (Client("printers", backend="gone"), 99_999, 99_999),
    ],
)
def test_largest(client: Client, cap: int, expected: int) -> None:
    """SIZE promises what some reachable backend takes: clients and pins are known by then, addresses are not.

    Only None is no limit: a limit of 0 must not widen.
    """
    routes = (line("small", recipients=("*@example.com",)), line("smart", clients=("printers",)), line("api", "gone"))
    assert Routing(routes, ABLE).largest(client, cap)[0] == expected


# -- one answer, whoever asks ------------------------------------------------------------------------------------------

BIG = 90_000  # more than a bounce is reckoned to be
AUTHOR, OTHER, YOU, THOU = "a@x.example", "b@x.example", "you@y.example", "dü@y.example"
MAIL = b"To: you@y.example\r\nSubject: s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\nhello\r\n"
REPORT = (
    b"To: you@y.example\r\nSubject: s\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nfailed\r\n"
    b"--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x.example\r\n--b--\r\n"
)


@dataclass(frozen=True)
class Facts:
    """Of one message, and what the first backend can; the second takes everything."""

    first: Capabilities
    kind: str = ""  # of the first one's no, "" where it takes the message
    sender: str = AUTHOR
    authors: tuple[str, ...] = (AUTHOR,)
    to: str = YOU
    raw: bytes = MAIL
    pin: str = ""
    secret: str = ""
    bounce: bool = True  # one of ours can be like this


ASKED = {
    "one author": Facts(Capabilities(BIG, senders=(AUTHOR,))),
    "one author, another may": Facts(Capabilities(BIG, senders=(OTHER,)), "sender"),
    "two authors": Facts(Capabilities(BIG, senders=("*@x.example",)), authors=(AUTHOR, OTHER), bounce=False),
    "two authors, only the first may": Facts(
        Capabilities(BIG, senders=(AUTHOR,)), "sender", authors=(AUTHOR, OTHER), bounce=False
    ),
    "two authors, only the second may": Facts(
        Capabilities(BIG, senders=(OTHER,)), "sender", authors=(AUTHOR, OTHER), bounce=False
    ),
    "null sender": Facts(Capabilities(BIG), sender=""),
    "null sender, it cannot": Facts(Capabilities(BIG, null_sender=False), "null_sender", sender=""),
    "smtputf8": Facts(Capabilities(BIG), to=THOU),
    "smtputf8, it cannot": Facts(Capabilities(BIG, smtputf8=False), "utf8", to=THOU),
    "a report": Facts(Capabilities(BIG, lacks=frozenset(("signed",))), sender="", raw=REPORT),
    "a report, it cannot": Facts(Capabilities(BIG, lacks=frozenset(("report",))), "feature", sender="", raw=REPORT),
    "a report, small enough": Facts(
        Capabilities(BIG, lacks=frozenset(("report",)), whole_bytes=BIG), sender="", raw=REPORT
    ),
    "attachments, it cannot": Facts(
        Capabilities(BIG, lacks=frozenset(("attachments",))), "feature", raw=REPORT, bounce=False
    ),
    "too big": Facts(Capabilities(100), "too_big"),
    "pinned to the first": Facts(Capabilities(BIG), pin="first"),
    "pinned to the first, it cannot": Facts(Capabilities(100), "too_big", pin="first"),
    "pinned to the second": Facts(Capabilities(BIG), pin="second"),
    "own token": Facts(Capabilities(BIG, own_token=True), secret="t0ken", bounce=False),
    "own token, pinned": Facts(Capabilities(BIG, own_token=True), secret="t0ken", pin="first", bounce=False),
    "own token, there is none": Facts(Capabilities(BIG, own_token=True), "token"),
    "own token, pinned, there is none": Facts(Capabilities(BIG, own_token=True), "token", pin="first"),
}


class Silent:
    """Takes the place of Events."""

    def bounced(self, *_: object) -> None:
        pass

    bounce_suppressed = bounced


def at_the_door(facts: Facts, routing: Routing) -> NewMessage:
    """Under the name that our own bounces go by, so that the routes cannot tell them apart."""
    raw = f"From: {', '.join(facts.authors)}\r\n".encode() + facts.raw
    envelope = Envelope(facts.sender, (Recipient(facts.to),), smtputf8=facts.to == THOU)
    client = Client(policy.BOUNCES, backend=facts.pin, secret=facts.secret)
    arrival = Arrival("M1", START, listener="", peer="", helo="", protocol="local")
    return prepare(raw, envelope, client, arrival, Rules.of(settings(), routing))


def our_bounce(facts: Facts, routing: Routing) -> NewMessage | None:
    """To whoever gets the message of these facts."""
    bounces = {"mode": "notice" if facts.sender else "dsn", "from": facts.authors[0], "backend": facts.pin or None}
    failed = Recipient("gone@z.example")
    sent = Envelope(facts.to, (failed,), smtputf8=facts.to == THOU)
    original = spooled_message(id="M0", envelope=sent, size=len(MAIL), client=CLIENT)
    ids, rng = (lambda: "M2"), random.Random(1)
    bouncer = Bouncer(settings(bounces=bounces), routing, Silent(), ids, rng)  # type: ignore[arg-type]
    decision = Decision({failed.address: "failed"}, {failed.address: REJECTED}, failed=(failed.address,))
    found = bouncer.bounces(original, MAIL, "smart", decision, START).messages
    return found[0] if found else None


async def stored(at: At, message: NewMessage) -> Freight:
    """What is known of it in the spool, where its backend is gone."""
    addresses = tuple(recipient.address for recipient in message.envelope.recipients)
    await at.spool.put(replace(message, deliveries={"gone": addresses}))
    (delivery,) = [one for one in await at.waiting("gone") if one.message.id == message.id]
    return Freight.of(delivery.message)


@pytest.mark.parametrize("facts", ASKED.values(), ids=ASKED.keys())
async def test_the_same_facts_have_the_same_answer(tmp_path: Path, facts: Facts) -> None:
    """The door before 250, failover and the adoption of orphans after it, and bounces: who takes it, or why nobody."""
    able = {"first": facts.first, "second": Capabilities(1_000_000)}
    lax = dict.fromkeys(able, Capabilities(1_000_000, lacks=frozenset(("encrypted",))))  # somebody looks, all can
    first = ("first",) if not facts.kind and facts.pin != "second" else ()
    for names in (("first", "second"), ("first",)):
        routing = Routing((line(*names),), able)
        taken = first + (("second",) if facts.pin == "second" or ("second" in names and not facts.pin) else ())
        async with opened(tmp_path / "".join(names)) as at:
            before = await stored(at, at_the_door(facts, replace(routing, capabilities=lax)))
            assert routing.ways(before, [facts.to]) == taken
            if taken:
                assert at_the_door(facts, routing).deliveries == {taken[0]: (facts.to,)}
            else:
                with pytest.raises(CannotCarry) as refused:
                    at_the_door(facts, routing)
                assert refused.value.kind == facts.kind
            if facts.bounce:
                bounce = our_bounce(facts, routing)
                assert (bounce.deliveries if bounce else {}) == ({taken[0]: (facts.to,)} if taken else {})
                assert bounce is None or routing.ways(await stored(at, bounce), [facts.to]) == taken
