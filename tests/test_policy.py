"""Decisions without side effects: every row of the rules in, one answer out, and every refusal names the fix."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import policy
from gateway.config.models import BounceSettings, RetrySettings, RouteSettings
from gateway.message import FEATURES as FEATURE_NAMES
from gateway.model import Client, Limits, Rate, Refusal

PRINTERS = Client("printers", senders=(("*@example.com",),), recipients=(("*@example.com", "boss@example.org"),))
NARROWED = Client("staff", senders=(("*@example.com",), ("bob@example.com", "*@example.net")))


@pytest.mark.parametrize(
    ("client", "address", "allowed"),
    [
        (Client("any"), "a@b.example", True),
        (Client("any", senders=(("*",),)), "a@b.example", True),
        (Client("none", senders=((),)), "a@b.example", False),
        (PRINTERS, "a@example.com", True),
        (PRINTERS, "A@EXAMPLE.COM", True),
        (PRINTERS, "a@sub.example.com", False),
        (PRINTERS, "a@example.com.evil", False),
        (NARROWED, "bob@example.com", True),
        (NARROWED, "eve@example.com", False),
        (NARROWED, "bob@example.net", False),
    ],
)
def test_may_send_as(client: Client, address: str, allowed: bool) -> None:
    """Every group needs a match: a claim narrows what the settings allow and never widens it."""
    assert policy.may_send_as(client, address) is allowed


@pytest.mark.parametrize(
    ("address", "allowed"),
    [("x@example.com", True), ("boss@example.org", True), ("x@example.org", False)],
)
def test_may_send_to(address: str, allowed: bool) -> None:
    """One matching pattern within a group is enough; no group at all means anybody."""
    assert policy.may_send_to(PRINTERS, address) is allowed
    assert policy.may_send_to(Client("any"), address)


@pytest.mark.parametrize(
    ("client", "mail_from", "header_from", "text"),
    [
        (PRINTERS, "a@example.com", ["b@example.com"], None),
        (PRINTERS, "", ["b@example.com"], None),
        (Client("any"), "a@b", [], None),
        (Client("any", senders=(("*",), ("a@b", "*"))), "a@b", ["x@y", "root"], None),
        (
            PRINTERS, "a@evil.example", ["b@example.com"],
            '<a@evil.example>: sender not allowed for client "printers"; add it to clients.printers.senders',
        ),
        (
            PRINTERS, "a@example.com", ["b@example.com", "a@evil.example"],
            '<a@evil.example>: sender not allowed for client "printers"; add it to clients.printers.senders',
        ),
        (
            PRINTERS, "", ["a@evil.example"],
            '<a@evil.example>: sender not allowed for client "printers"; add it to clients.printers.senders',
        ),
        (
            PRINTERS, "a@example.com", [],
            'From: no address in the header for client "printers"; clients.printers.senders needs one',
        ),
        (
            PRINTERS, "", [""],
            'From: no address in the header for client "printers"; clients.printers.senders needs one',
        ),
    ],
)  # fmt: skip
def test_check_sender(client: Client, mail_from: str, header_from: list[str], text: str | None) -> None:
    """Envelope and every From address must be allowed; the null sender is nobody's; unreadable From is refused."""
    if text is None:
        policy.check_sender(client, mail_from, header_from)
        return
    with pytest.raises(Refusal) as refused:
        policy.check_sender(client, mail_from, header_from)
    refusal = refused.value
    assert (refusal.code, refusal.enhanced, refusal.text, refusal.reason) == (553, "5.7.1", text, "sender_denied")


def test_a_header_with_two_readings_is_refused() -> None:
    """Where senders are restricted, what another reader could see must be what was checked."""
    with pytest.raises(Refusal, match=r"553 5\.7\.1 From or Sender: not one plain address per entry"):
        policy.check_sender(PRINTERS, "a@example.com", ["b@example.com"], plain=False)
    policy.check_sender(Client("any"), "a@b", ["x@y"], plain=False)


ROUTES = [
    RouteSettings(backend=("office",), recipients=("*@example.com",)),
    RouteSettings(backend=("s2g", "smart"), clients=("printers",)),
    RouteSettings(backend=("null",), senders=("",)),
    RouteSettings(backend=("bulk",), clients=("app",), senders=("*@news.example",), recipients=("*@*.example",)),
    RouteSettings(backend=("smart",)),
]


@pytest.mark.parametrize(
    ("client", "pin", "sender", "recipient", "expected"),
    [
        ("printers", "", "a@x", "b@example.com", ("office",)),
        ("printers", "", "a@x", "b@example.org", ("s2g", "smart")),
        ("printers", "box", "a@x", "b@example.com", ("box",)),
        ("app", "", "a@news.example", "b@sub.example", ("bulk",)),
        ("app", "", "a@news.example", "b@example", ("smart",)),
        ("app", "", "", "b@sub.example", ("smart",)),
        ("other", "", "a@news.example", "b@sub.example", ("smart",)),
    ],
)
def test_route(client: str, pin: str, sender: str, recipient: str, expected: tuple[str, ...]) -> None:
    """The first line whose patterns all match; a pin wins over the table."""
    assert policy.route(ROUTES, client=client, pin=pin, sender=sender, recipient=recipient) == expected


def test_no_route() -> None:
    """A table that matches nothing gives nothing: the caller refuses."""
    assert policy.route(ROUTES[:1], client="c", pin="", sender="a@x", recipient="b@y") == ()


LIMITS = {
    "small": Limits(1000),
    "api": Limits(5000, null_sender=False, smtputf8=False),
    "smart": Limits(10_000),
}


@pytest.mark.parametrize(
    ("names", "size", "null", "utf8", "expected"),
    [
        (["small", "smart"], 1000, False, False, ("small", "smart")),
        (["small", "smart"], 1001, False, False, ("smart",)),
        (["api", "smart"], 1, True, False, ("smart",)),
        (["api", "smart"], 1, False, True, ("smart",)),
        (["gone", "api"], 1, False, False, ("api",)),
        (["smart"], 10_001, False, False, (552, "5.3.4", "too_big", '"smart" takes at most 10000 bytes')),
        (["small", "api"], 6000, True, True, (552, "5.3.4", "too_big", '"small" takes at most 1000 bytes')),
        (["api"], 1, True, False, (550, "5.7.1", "cannot_carry", '"api" cannot send with the null sender')),
        (["api"], 1, False, True, (553, "5.6.7", "cannot_carry", '"api" cannot carry non-ASCII addresses')),
        (["gone"], 1, False, False, (451, "4.3.5", "no_route", '"gone" is not configured')),
        ([], 1, False, False, (550, "5.7.1", "no_route", "no route for this recipient")),
    ],
)
def test_usable(names: list[str], size: int, null: bool, utf8: bool, expected: tuple[Any, ...]) -> None:
    """Backends that can carry it, in order; when none can, the first one's obstacle is the reason given."""
    if isinstance(expected[0], str):
        assert policy.usable(names, LIMITS, policy.Freight(size, null, utf8)) == expected
        return
    with pytest.raises(Refusal) as refused:
        policy.usable(names, LIMITS, policy.Freight(size, null, utf8))
    refusal = refused.value
    assert (refusal.code, refusal.enhanced, refusal.reason) == expected[:3]
    assert expected[3] in refusal.text


SENDERS = Limits(9000, senders=("noreply@example.com", "*@news.example"))
PARTS = Limits(
    9000, lacks=frozenset(("attachments", "headers")), remedies={"headers": "set x: drop on backends.{name}"}
)
DRAFTS = Limits(9000, whole_bytes=3000, lacks=frozenset(("signed",)))
FEATURES = [
    (SENDERS, {"authors": ("NoReply@example.com", "a@news.example")}, ""),
    (SENDERS, {"authors": ()}, ""),
    (
        SENDERS,
        {"authors": ("noreply@example.com", "evil@example.com")},
        '553 5.7.1 <evil@example.com>: backend "b" sends only as noreply@example.com, *@news.example; send from there '
        "(rewrite_sender), or add it to backends.b.senders if it may",
    ),
    (PARTS, {"needs": None}, ""),
    (PARTS, {"needs": {"signed": "part 1"}}, ""),
    (
        PARTS,
        {"needs": {"attachments": "part 2: application/pdf report.pdf", "headers": "X-A"}},
        '554 5.6.3 attachments cannot be sent through backend "b" (part 2: application/pdf report.pdf); '
        "route this client to another backend",
    ),
    (
        PARTS,
        {"needs": {"headers": "X-A"}},
        '554 5.6.3 header fields of their own cannot be sent through backend "b" (X-A); set x: drop on backends.b',
    ),
    (
        PARTS,
        {"needs": {"attachments": ""}},
        '554 5.6.3 attachments cannot be sent through backend "b"; route this client to another backend',
    ),
    (DRAFTS, {"size": 3000, "needs": {"signed": "part 1"}}, ""),
    (
        DRAFTS,
        {"size": 3001, "needs": {"signed": "part 1"}},
        '554 5.6.3 signed mail cannot be sent through backend "b" above 3000 bytes (part 1); '
        "route this client to another backend",
    ),
    (Limits(9000, own_token=True), {"token": True}, ""),
    (
        Limits(9000, own_token=True),
        {"token": False},
        '550 5.7.1 backend "b" sends only with the client\'s own token; log in with that (clients: login: b)',
    ),
]


@pytest.mark.parametrize(("limits", "freight", "refusal"), FEATURES)
def test_what_a_message_is_made_of_decides_its_way(limits: Limits, freight: dict[str, Any], refusal: str) -> None:
    """Nothing is dropped in silence: who cannot carry it is passed over, and the refusal says what, where and the fix.

    What nobody has looked at is no obstacle: the backend judges it itself.
    """
    both = {"b": limits, "smart": Limits(10_000)}
    asked = policy.Freight(**{"size": 1, "null_sender": False, "smtputf8": False, **freight})
    assert policy.usable(["b", "smart"], both, asked) == (("smart",) if refusal else ("b", "smart"))
    if refusal:
        with pytest.raises(Refusal) as refused:
            policy.usable(["b"], both, asked)
        assert str(refused.value) == refusal


API, OWN, SMTP = Limits(9, null_sender=False), Limits(9, null_sender=False, senders=("a@x.example",)), Limits(9)


@pytest.mark.parametrize(
    ("given", "limits", "said"),
    [
        ({}, [SMTP, API], ""),
        ({"mode": "off"}, [API], ""),
        ({}, [API], "null sender"),
        ({"from": "any@y.example"}, [API], ""),
        ({"from": "a@x.example"}, [OWN], ""),
        ({"from": "b@x.example"}, [OWN], "no backend sends as bounces.from b@x.example"),
        ({"from": "b@x.example"}, [OWN, SMTP], ""),
        ({"mode": "notice"}, [SMTP], "null sender"),
        ({"mode": "notice", "from": "b@x.example"}, [OWN], "bounces.from b@x.example"),
        ({"mode": "dsn", "from": "a@x.example"}, [OWN], "null sender"),
    ],
)
def test_no_bounces(given: dict[str, str], limits: list[Limits], said: str) -> None:
    """Who sets up Gmail or Graph alone is told that nobody would hear of failed mail, and what helps."""
    found = policy.no_bounces(BounceSettings.model_validate(given), {str(n): one for n, one in enumerate(limits)})
    assert (said in found) if said else found == ""
    assert not found or "set bounces.from" in found


def test_every_feature_has_its_words() -> None:
    """A feature without a word would be a bug in the middle of a refusal."""
    assert set(policy._WORDS) == FEATURE_NAMES


def test_a_backend_s_limit_names_itself_and_the_setting() -> None:
    """At MAIL and DATA the client hears whose limit it is, and what would allow more."""
    limits = {"office": Limits(3000, size_hint="set large_messages: draft on backends.{name}")}
    found = policy.largest([RouteSettings(backend=("office",))], limits, Client("c"), 9000)
    assert found == (3000, ', the limit of backend "office"; set large_messages: draft on backends.office')
    assert policy.largest([RouteSettings(backend=("office",))], limits, Client("c"), 3000) == (3000, "")


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
    routes = [
        RouteSettings(backend=("small",), recipients=("*@example.com",)),
        RouteSettings(backend=("smart",), clients=("printers",)),
        RouteSettings(backend=("api", "gone")),
    ]
    assert policy.largest(routes, LIMITS, client, cap)[0] == expected


RETRY = RetrySettings(delays=("1m", "5m", "1h"), jitter=0.2)


@given(st.integers(0, 100), st.integers())
def test_next_delay(attempts: int, seed: int) -> None:
    """The list in order, its last entry for ever, each within the jitter."""
    minutes = {0: 1, 1: 1, 2: 5}.get(attempts, 60)
    delay = policy.next_delay(RETRY, attempts, random.Random(seed))
    assert 0.8 * timedelta(minutes=minutes) <= delay <= 1.2 * timedelta(minutes=minutes)


def test_next_delay_differs() -> None:
    """Jitter: a thousand messages deferred at once do not come back at once."""
    rng = random.Random(1)
    assert len({policy.next_delay(RETRY, 1, rng) for _ in range(100)}) > 90


@pytest.mark.parametrize(
    ("received", "own", "loop"), [(99, 4, False), (100, 0, True), (5, 5, True), (0, 0, False), (4, 4, False)]
)
def test_is_loop(received: int, own: int, loop: bool) -> None:
    """A hundred hops, or five through this host (RFC 5321 6.3)."""
    assert policy.is_loop(received, own) is loop


@given(
    st.lists(st.floats(0, 30, allow_nan=False), max_size=200),
    st.integers(1, 20),
    st.sampled_from([1, 60, 3600]),
    st.floats(0, 1e6),
)
def test_rate_is_never_exceeded(gaps: list[float], count: int, period: int, start: float) -> None:
    """In no window of the period are there more than ``count`` events, and no refusal lasts much beyond it."""
    window, rate = policy.RateWindow(), Rate(count, timedelta(seconds=period))
    now, allowed = start, []
    for gap in gaps:
        now += gap
        if window.allow("k", rate, now):
            allowed.append(now)
        else:
            recent = [moment for moment in allowed if now - moment <= period * (1 + 2 / 60)]
            assert len(recent) >= count
    for first, later in zip(allowed, allowed[count:], strict=False):
        assert later - first >= period * (1 - 1e-9)


@pytest.mark.parametrize(("second", "allowed"), [(59.9, False), (60.01, False), (61.0, True)])
def test_rate_at_the_edge_of_its_period(second: float, allowed: bool) -> None:
    """An event late in its sixtieth still counts when the period's last sixtieth has begun."""
    window, rate = policy.RateWindow(), Rate(1, timedelta(seconds=60))
    assert window.allow("k", rate, 0.99)
    assert window.allow("k", rate, second) is allowed


def test_rate_keys_are_apart_and_bounded() -> None:
    """One client's flood is not another's, and ten thousand keys are remembered at most."""
    window, rate = policy.RateWindow(), Rate(1, timedelta(seconds=60))
    assert window.allow("a", rate, 0.0)
    assert not window.allow("a", rate, 1.0)
    assert window.allow("b", rate, 1.0)
    for number in range(9_998):
        window.allow(str(number), rate, 2.0)
    assert not window.allow("a", rate, 3.0)
    window.allow("one more", rate, 4.0)
    assert len(window._slots) == 10_000
    assert not window.allow("a", rate, 5.0), "recently used keys stay"
    assert window.allow("b", rate, 5.0), "the least recently used one is forgotten"
