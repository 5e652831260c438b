"""The proposal lets in what was seen and nothing else, and says what it leaves open."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as tries
from hypothesis import strategies as some

from gateway.learn.book import Book
from gateway.learn.ear import Ear
from gateway.learn.proposal import Proposal, exact, propose
from gateway.learn.wording import section
from tests.fakes import FakeClock
from tests.learn.kit import Door, hear, settings, stranger

PEERS = [f"192.0.2.{n}" for n in (4, 5, 6, 7, 9, 200)] + ["10.1.2.3", "2001:db8::7", "2001:db8:1::9"]
ADDRESSES = [
    "scan@example.com",
    "Cron@host.example.com",
    "o'neil+x@example.org",
    '"a b"@example.com',
    "büro@exämple.net",
]
DOMAINS = ["example.com", "example.org", "sub.example.org", "exämple.net"]
MAILS = some.lists(
    some.tuples(
        some.sampled_from(PEERS), some.sampled_from(["", *ADDRESSES]), some.sampled_from(ADDRESSES),
        some.lists(some.sampled_from([f"u@{domain}" for domain in DOMAINS]), min_size=1, max_size=3),
    ), min_size=1, max_size=12,
)  # fmt: skip


def proposed(book: Book, folder: Path, more: str = "clients: {}\n") -> Proposal:
    return propose(book.all, book.others, settings(folder, more))


@tries(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(MAILS)
def test_it_lets_in_what_was_seen_and_nothing_else(
    tmp_path: Path, mails: list[tuple[str, str, str, list[str]]]
) -> None:
    """Pasted, it passes check-config; each mail goes through again; other peers, senders and domains do not.

    What is left to a person, for it sends as many domains, is not let in.
    """
    book, clock = Book(), FakeClock()
    for peer, sender, author, recipients in mails:
        hear(book, peer, sender, author, recipients, clock)
    found = proposed(book, tmp_path)
    text = section(found, written=False)
    door = Door(settings(tmp_path, text))
    doubtful = {peer for _, one in found.doubtful for peer in one.peers}
    for peer, sender, author, recipients in mails:
        assert bool(door.refusal(peer, sender, author, recipients)) == (peer in doubtful), text
    seen = {peer for peer, *_ in mails}
    for peer in seen - doubtful:
        to = [
            f"u@{domain}" for domain in DOMAINS if f"u@{domain}" in {r for p, *_, rs in mails for r in rs if p == peer}
        ]
        own = next(author for p, _, author, _ in mails if p == peer)
        assert door.refusal(peer, "other@example.com", own, to) == "sender_denied"
        assert door.refusal(peer, own, "other@example.com", to) == "sender_denied"
        assert door.refusal(peer, own, own, ["u@example.net"]) == "recipient_denied"
    for peer in {*PEERS, "192.0.2.8", "192.0.2.3", "2001:db8::8"} - seen:
        assert door.refusal(peer, "scan@example.com", "scan@example.com", ["u@example.com"]) == "relay_denied"


@pytest.mark.parametrize(
    ("peers", "networks"),
    [
        (["192.0.2.4", "192.0.2.5", "192.0.2.6", "192.0.2.7"], ("192.0.2.4/30",)),
        (["192.0.2.3", "192.0.2.4"], ("192.0.2.3", "192.0.2.4")),
        ([f"192.0.2.{n}" for n in range(256)], ("192.0.2.0/24",)),
        (["2001:db8::1", "192.0.2.1"], ("192.0.2.1", "2001:db8::1")),
    ],
)
def test_networks_are_never_wider_than_seen(peers: list[str], networks: tuple[str, ...]) -> None:
    """Neighbours become a network only where each of its addresses came."""
    assert exact(peers) == networks


def test_alike_addresses_are_one_client_and_the_neighbourhood_is_named(tmp_path: Path) -> None:
    """Five of a /24: one client with the five, and a comment says what the /24 would let in besides."""
    book, clock = Book(), FakeClock()
    for n in (1, 3, 5, 7, 9):
        hear(book, f"192.0.2.{n}", "a@example.com", "a@example.com", ["b@example.org"], clock)
    found = proposed(book, tmp_path)
    (one,) = found.clients
    assert one.networks == ("192.0.2.1", "192.0.2.3", "192.0.2.5", "192.0.2.7", "192.0.2.9")
    assert any("192.0.2.0/24" in line and "251 more" in line for line in one.about)


def test_what_was_refused_at_mail_leaves_recipients_open_and_says_so(tmp_path: Path) -> None:
    """Without hearing out nobody knows whom a stranger writes to."""
    book = Book()
    Ear("lan", book, FakeClock(), ()).refused(stranger("192.0.2.4", "a@example.com"))
    found = proposed(book, tmp_path)
    (one,) = found.clients
    assert (one.senders, one.recipients) == (("a@example.com",), None)
    assert any("recipients are left open" in line for line in one.open)
    assert any("--hear-out" in line for line in found.unseen)
    assert "recipients" not in yaml.safe_load(section(found, written=False))["clients"]["scanner"]


@pytest.mark.parametrize(
    ("mails", "word"),
    [
        ([(f"a@{n}.example", ["u@example.com"]) for n in range(4)], "domains or more"),
        ([("a@example.com", [f"u@{n}.example"]) for n in range(120)], "very many domains"),
    ],
)
def test_what_looks_like_an_infected_pc_is_left_to_a_person(
    tmp_path: Path, mails: list[tuple[str, list[str]]], word: str
) -> None:
    """It stands there commented out, with why: what is pasted does not let it in."""
    book, clock = Book(), FakeClock()
    for sender, recipients in mails:
        hear(book, "192.0.2.66", sender, sender, recipients, clock)
    found = proposed(book, tmp_path)
    ((why, one),) = found.doubtful
    text = section(found, written=False)
    assert (found.clients, one.peers) == ((), ("192.0.2.66",))
    assert word in why
    assert f"# NOT let in, for it {why}" in text
    assert Door(settings(tmp_path, text)).refusal("192.0.2.66", *mails[0][:1] * 2, ["u@example.com"]) == "relay_denied"


def test_strangers_of_the_internet_and_who_only_knocked_are_named_and_not_let_in(tmp_path: Path) -> None:
    """Of an open port 25 most is that."""
    book = Book()
    ear = Ear("lan", book, FakeClock(), ())
    ear.refused(stranger("8.8.8.8", "spam@example.net"))
    ear.connected("192.0.2.8")
    found = proposed(book, tmp_path)
    assert (found.clients, found.doubtful) == ((), ())
    assert [line.partition(":")[0] for line in found.others] == ["8.8.8.8", "192.0.2.8"]


def test_an_existing_client_hears_what_it_lacks(tmp_path: Path) -> None:
    """It is not made anew: the setting that refused is named, with what was wanted."""
    book = Book()
    refused = stranger("192.0.2.4", "b@example.com", reason="sender_denied", code=553, client="printers")
    Ear("lan", book, FakeClock(), ()).refused(refused)
    more = 'clients: {printers: {networks: ["192.0.2.0/24"], senders: ["a@example.com"]}}\n'
    found = proposed(book, tmp_path, more)
    assert found.clients == ()
    assert found.changes == (
        "clients.printers.senders: 192.0.2.4 is refused for it; it used b@example.com",
    )  # fmt: skip


def test_names_without_a_domain_get_one(tmp_path: Path) -> None:
    """Cron of an old machine writes as root to root."""
    book = Book()
    hear(book, "192.0.2.4", "root", "root", ["admin"], FakeClock())
    found = proposed(book, tmp_path)
    (one,) = found.clients
    assert (one.senders, one.recipients, one.default_domain) == (
        ("root@example.com",),
        ("*@example.com",),
        "example.com",
    )
    assert settings(tmp_path, section(found, written=False)).clients["scanner"].default_domain == "example.com"


def test_the_clients_that_hold_without_a_section_are_kept(tmp_path: Path) -> None:
    """A pasted section takes their place."""
    book = Book()
    hear(book, "192.0.2.4", "a@example.com", "a@example.com", ["b@example.org"], FakeClock())
    before = settings(tmp_path, "")
    found = propose(book.all, 0, before)
    after = settings(tmp_path, section(found, written=False))
    assert {name: after.clients[name] for name in before.clients} == dict(before.clients)
    assert set(after.clients) == {"localhost", "tokens", "scanner"}


def test_hostile_words_stay_in_their_comment(tmp_path: Path) -> None:
    """HELO, sender and user name of a stranger make no line of their own, and no setting."""
    book, clock = Book(), FakeClock()
    ear = Ear("lan", book, clock, ())
    evil = 'x\r\n  evil: {networks: ["0.0.0.0/0"]}\u202e\x1b[2J'
    ear.heard(stranger("192.0.2.4", f'a"\n: {evil}@example.com', helo=evil, text=evil))
    ear.refused(stranger("192.0.2.4", "", stage="auth", reason="auth_failed", user=evil))
    ear.recipient("192.0.2.4", f"u@{evil}")
    text = section(proposed(book, tmp_path), written=False)
    assert "evil:" not in "".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert not {"\x1b", "\u202e", "\r"} & set(text)
    assert "evil" not in settings(tmp_path, text).clients


@pytest.mark.parametrize(
    ("refused", "word"),
    [
        ({"stage": "connect", "reason": "tls_failed", "detail": "unsupported protocol"}, 'min_tls: "1.0"'),
        ({"tls": "TLSv1 AES128-SHA"}, 'lan.min_tls: "1.0"'),
        ({"tls": "TLSv1.1 AES128-SHA"}, 'lan.min_tls: "1.1"'),
        ({"stage": "auth", "reason": "tls_required", "user": "a@example.com"}, "without TLS"),
        (
            {"stage": "auth", "reason": "auth_failed", "user": "a@example.com", "tls": "TLSv1.2 X"},
            "gateway password mint",
        ),
        ({"stage": "data", "reason": "bad_newlines"}, "bare_newlines"),
        ({"stage": "command", "reason": "cross_protocol"}, "tls: implicit"),
        ({"reason": "bad_sequence", "text": "Send EHLO first"}, "missing_helo"),
    ],
)
def test_what_a_listener_lacks_is_named(tmp_path: Path, refused: dict[str, str], word: str) -> None:
    """For an old device the setting that it needs."""
    book = Book()
    Ear("lan", book, FakeClock(), ()).refused(stranger("192.0.2.4", "a@example.com", **refused))
    assert any(word in hint for hint in proposed(book, tmp_path).hints), proposed(book, tmp_path).hints
