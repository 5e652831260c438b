"""Decisions without side effects: every row of the rules in, one answer out, and every refusal names the fix."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml

from gateway import policy
from gateway.config.models import BounceSettings, RouteSettings
from gateway.model import Capabilities, Client, LoginToken, Refusal
from gateway.routing import Routing

PRINTERS = Client("printers", senders=(("*@example.com",),), recipients=(("*@example.com", "boss@example.org"),))
NARROWED = (("*@example.com",), ("bob@example.com", "*@example.net"))


@pytest.mark.parametrize(
    ("groups", "address", "expected"),
    [
        ((), "a@b.example", True),
        ((("*",),), "a@b.example", True),
        (((),), "a@b.example", False),
        (PRINTERS.senders, "a@example.com", True),
        (PRINTERS.senders, "A@EXAMPLE.COM", True),
        (PRINTERS.senders, "a@sub.example.com", False),
        (PRINTERS.senders, "a@example.com.evil", False),
        (PRINTERS.recipients, "x@example.com", True),
        (PRINTERS.recipients, "boss@example.org", True),
        (PRINTERS.recipients, "x@example.org", False),
        (NARROWED, "bob@example.com", True),
        (NARROWED, "eve@example.com", False),
        (NARROWED, "bob@example.net", False),
        ((("*", "!*@bad.example"),), "a@example.com", True),
        ((("*", "!*@bad.example"),), "a@BAD.example", False),
        ((("!boss@example.com", "*@example.com"),), "boss@example.com", False),
        ((("!boss@example.com", "*@example.com"),), "other@example.com", True),
        ((("boss@example.com", "!*@example.com"),), "boss@example.com", False),
        ((("!boss@example.com",),), "other@example.com", False),
        ((("*",), ("*", "!boss@example.com")), "boss@example.com", False),
        ((("*", "!boss@example.com"), ("boss@example.com",)), "boss@example.com", False),
    ],
)
def test_allowed(groups: tuple[tuple[str, ...], ...], address: str, expected: bool) -> None:
    """One pattern of a group is enough, every group needs one: a claim narrows what the settings allow."""
    assert policy.allowed(groups, address) is expected


@pytest.mark.parametrize(
    ("patterns", "address", "text"),
    [
        (("*", "!*@bad.example"), "a@bad.example", "(clients.x.recipients blocks it by !*@bad.example)"),
        (("*", "!*@bad.example"), "a%bad.example@relay.example", '"%" asks the host to pass it on'),
        (("*", "!*@bad.example"), "a!bad.example@relay.example", '"!" asks the host to pass it on'),
        (("*@*", "!*@bad.example"), "a%bad.example@relay.example", '"%" asks the host to pass it on'),
        (("*", "!*@bad.example", "a%b@relay.example"), "a%b@relay.example", None),
        (("*",), "a%bad.example@relay.example", None),
    ],
)
def test_a_blocked_recipient_is_not_reached_by_way_of_another_host(
    patterns: tuple[str, ...], address: str, text: str | None
) -> None:
    """The refusal names what blocks it; who may send to all but some may not name these behind another host."""
    client = Client("x", recipients=(patterns,))
    if text is None:
        return policy.check_recipient(client, address)
    with pytest.raises(Refusal) as refused:
        policy.check_recipient(client, address)
    assert (refused.value.code, text in refused.value.text) == (550, True), refused.value.text
    return None


DENIED = '<a@evil.example>: sender not allowed for client "printers"; add it to clients.printers.senders'
NOBODY = 'From: no address in the header for client "printers"; clients.printers.senders needs one'


@pytest.mark.parametrize(
    ("client", "mail_from", "header_from", "text"),
    [
        (PRINTERS, "a@example.com", ["b@example.com"], None),
        (PRINTERS, "", ["b@example.com"], None),
        (Client("any"), "a@b", [], None),
        (Client("any", senders=(("*",), ("a@b", "*"))), "a@b", ["x@y", "root"], None),
        (PRINTERS, "a@evil.example", ["b@example.com"], DENIED),
        (PRINTERS, "a@example.com", ["b@example.com", "a@evil.example"], DENIED),
        (PRINTERS, "", ["a@evil.example"], DENIED),
        (PRINTERS, "a@example.com", [], NOBODY),
        (PRINTERS, "", [""], NOBODY),
        (
            Client("x", senders=(("*", "!a@b.example"),)),
            "a@b.example",
            ["c@d"],
            '<a@b.example>: sender not allowed for client "x"; clients.x.senders blocks it by !a@b.example',
        ),
        (
            Client("x", senders=(("*",), ("*", "!a@b.example"))),
            "c@d",
            ["a@b.example"],
            '<a@b.example>: sender not allowed for client "x"; the token blocks it by !a@b.example',
        ),
    ],
)
def test_check_sender(client: Client, mail_from: str, header_from: list[str], text: str | None) -> None:
    """Envelope and every From address must be allowed; the null sender is nobody's; unreadable From is refused."""
    if text is None:
        policy.check_sender(client, mail_from, header_from)
        return
    with pytest.raises(Refusal) as refused:
        policy.check_sender(client, mail_from, header_from)
    refusal = refused.value
    assert (refusal.code, refusal.enhanced, refusal.text, refusal.reason) == (553, "5.7.1", text, "sender_denied")


TOKEN = LoginToken("app", "billing", "", None, None)
NO_CLAIM = "the token has no address for clients.staff.senders (claim email or sub)"
BILLING = Client("staff", senders=(("*@example.com",), ("b@example.com", "c@example.com")), token=TOKEN)


@pytest.mark.parametrize(
    ("client", "sender", "fix"),
    [
        (BILLING, "x@example.org", "add it to clients.staff.senders"),
        (BILLING, "a@example.com", "the token allows only b@example.com, c@example.com, so it takes another token"),
        (replace(BILLING, senders=((),)), "a@x", NO_CLAIM),
        (replace(BILLING, senders=(("*",), ())), "a@x", "the token allows only nobody, so it takes another token"),
        (Client("box", senders=(("*",), ("me@x",)), secret="t"), "a@x", "this login is for me@x only"),
    ],
)  # fmt: skip
def test_a_refused_sender_is_told_what_would_help(client: Client, sender: str, fix: str) -> None:
    """The setting where the settings say no; what came with the login, where no setting can help."""
    with pytest.raises(Refusal) as refused:
        policy.check_sender(client, sender, [sender])
    assert refused.value.text.endswith(f'for client "{client.name}"; {fix}')


TO = Client("to", recipients=(("*@example.com", "*@*.example.org", "lotus%eu@example.net", "boss@*"),))
EVERYBODY = Client("all", recipients=(("*",), ("*@*",)))
PASSED_ON = '"{}" asks the host to pass it on; write the address itself into clients.to.recipients'
RECIPIENTS = [
    (TO, "user@example.com", ""),
    (TO, "user+tag=x@example.com", ""),
    (TO, "user%evil.example@example.com", PASSED_ON.format("%")),
    (TO, "evil.example!user@example.com", PASSED_ON.format("!")),
    (TO, '"user@evil.example"@example.com', PASSED_ON.format("@")),
    (TO, "user%evil.example@a.example.org", PASSED_ON.format("%")),
    (TO, "lotus%eu@example.net", ""),
    (TO, "LOTUS%EU@Example.net", ""),
    (TO, "boss@evil.example", ""),
    (TO, "user%example.com@evil.example", "clients.to.recipients"),
    (EVERYBODY, "user%evil.example@example.com", ""),
    (EVERYBODY, "evil.example!user@example.com", ""),
    (Client("none"), "user%evil.example@example.com", ""),
    (Client("c", recipients=(("*",), ("a@x",)), token=TOKEN), "b@x", "the token allows only a@x"),
]


@pytest.mark.parametrize(("client", "address", "why"), RECIPIENTS, ids=[f"{r[0].name} {r[1]}" for r in RECIPIENTS])
def test_check_recipient(client: Client, address: str, why: str) -> None:
    """A route in a local part leads out of the domain that is allowed: only the address itself, or all, allows it."""
    if not why:
        policy.check_recipient(client, address)
        return
    with pytest.raises(Refusal) as refused:
        policy.check_recipient(client, address)
    refusal = refused.value
    text = f'<{address}>: recipient not allowed for client "{client.name}" ({why})'
    assert (refusal.code, refusal.enhanced, refusal.text, refusal.reason) == (550, "5.7.1", text, "recipient_denied")


def test_a_header_with_two_readings_is_refused() -> None:
    """Where senders are restricted, what another reader could see must be what was checked."""
    with pytest.raises(Refusal, match=r"553 5\.7\.1 From or Sender: not one plain address per entry"):
        policy.check_sender(PRINTERS, "a@example.com", ["b@example.com"], plain=False)
    policy.check_sender(Client("any"), "a@b", ["x@y"], plain=False)


API, OWN, SMTP = (
    Capabilities(9, null_sender=False),
    Capabilities(9, null_sender=False, senders=("a@x.example",)),
    Capabilities(9),
)
ALL = ({"backend": ["0", "1"]},)  # to the first that can
APPS = {"clients": ["app"], "backend": ["1"]}
INSIDE = {"recipients": ["*@inside.example"], "backend": ["0"]}
REST = {"backend": ["1"]}


@pytest.mark.parametrize(
    ("given", "capabilities", "routes", "said"),
    [
        ({}, [SMTP, API], ALL, ""),
        ({}, [API, SMTP], ALL, ""),
        ({"mode": "off"}, [API], ALL, ""),
        ({"mode": "off"}, [SMTP], (), ""),
        ({}, [API], ALL, "can send with the null sender"),
        ({"from": "any@y.example"}, [API], ALL, ""),
        ({"from": "a@x.example"}, [OWN], ALL, ""),
        ({"from": "b@x.example"}, [OWN], ALL, "sends as bounces.from b@x.example"),
        ({"from": "b@x.example"}, [OWN, SMTP], ALL, ""),
        ({"mode": "notice"}, [SMTP], ALL, "notice without bounces.from"),
        ({"mode": "notice", "from": "b@x.example"}, [OWN], ALL, "bounces.from b@x.example"),
        ({"mode": "dsn", "from": "a@x.example"}, [OWN], ALL, "null sender"),
        # A pin goes past the routes, also past none; what is not configured sends nothing.
        ({"backend": "1"}, [API, SMTP], ({"backend": ["0"]},), ""),
        ({"backend": "1"}, [API, SMTP], (), ""),
        ({"backend": "0"}, [API, SMTP], ALL, "null sender"),
        ({"backend": "2"}, [API, SMTP], ALL, "null sender"),
        ({"backend": "0", "from": "a@x.example"}, [OWN, SMTP], (), ""),
        # Somebody could send it, but no route leads there.
        ({}, [API, SMTP], ({"backend": ["0"]},), "no backend that a route or bounces.backend leads to"),
        ({}, [API, SMTP], (APPS,), "no backend that a route or bounces.backend leads to"),
        ({}, [API, SMTP], (APPS, {"backend": ["0"]}), "no backend that a route or bounces.backend leads to"),
        ({}, [API, SMTP], ({"clients": ["gateway"], "backend": ["1"]}, {"backend": ["0"]}), ""),
        ({}, [API, SMTP], ({"senders": [""], "backend": ["1"]}, {"backend": ["0"]}), ""),
        ({}, [API, SMTP], ({"senders": ["*@x.example"], "backend": ["1"]}, {"backend": ["0"]}), "null sender"),
        ({}, [API, SMTP], (), "no backend that a route or bounces.backend leads to"),
        # Whoever mail comes from is who a bounce goes to, so every route counts, down to one that takes the rest.
        ({}, [API, SMTP], (INSIDE, REST), "not every sender has a route"),
        ({}, [SMTP, API], (INSIDE, REST), "not every sender has a route"),
        ({"from": "a@x.example"}, [API, SMTP], (INSIDE, REST), ""),
        ({}, [API, SMTP], (REST, INSIDE), ""),
        ({}, [SMTP], (INSIDE,), "not every sender has a route"),
        ({"backend": "0"}, [SMTP], (INSIDE,), ""),
        ({}, [SMTP], (INSIDE, {"recipients": ["*"], "backend": ["0"]}), ""),
    ],
)
def test_no_bounces(
    given: dict[str, str], capabilities: list[Capabilities], routes: tuple[dict[str, Any], ...], said: str
) -> None:
    """Who sets up Gmail or Graph alone, or no way there for bounces, is told that nobody would hear of failed mail."""
    routing = Routing(
        tuple(RouteSettings.model_validate(line) for line in routes),
        {str(n): able for n, able in enumerate(capabilities)},
    )
    found = policy.no_bounces(BounceSettings.model_validate(given), "relay.example.com", routing)
    assert (said in found) if said else found == ""
    assert not found or "; write bounces: {" in found


@pytest.mark.parametrize(
    ("capabilities", "line"),
    [
        ([OWN], "write bounces: {from: a@x.example}"),
        ([Capabilities(9, null_sender=False, senders=("*@y.example",))], "write bounces: {from: postmaster@y.example}"),
        ([API], "write bounces: {from: noreply@example.com}, with an address that your provider lets you send as"),
        ([Capabilities(9, null_sender=False, own_token=True), SMTP], "write bounces: {backend: 1}"),
        ([Capabilities(9, null_sender=False, own_token=True)], 'write bounces: {mode: "off"} if that is meant, or'),
    ],
)
def test_the_line_that_lets_senders_hear(capabilities: list[Capabilities], line: str) -> None:
    """Pasted, it helps: an address that a backend sends as, or the backend that takes reports as they are."""
    routing = Routing((RouteSettings(backend=("0",)),), {str(n): able for n, able in enumerate(capabilities)})
    found = policy.no_bounces(BounceSettings(), "relay.example.com", routing)
    assert line in found
    pasted = yaml.safe_load(re.search(r"bounces: \{.*?\}", found)[0])["bounces"]  # type: ignore[index]
    if "from" in pasted or "backend" in pasted:
        pasted = {key: str(value) for key, value in pasted.items()}
    assert policy.no_bounces(BounceSettings.model_validate(pasted), "relay.example.com", routing) == ""


def test_a_bounce_without_a_from_is_the_postmaster_s() -> None:
    """So a backend that sends as him will do, and one that sends as others will not."""
    own = BounceSettings.model_validate({})
    for senders, silent in ((("*@relay.example.com",), False), (("a@x.example",), True)):
        routing = Routing((RouteSettings(backend=("0",)),), {"0": Capabilities(9, senders=senders)})
        assert bool(policy.no_bounces(own, "relay.example.com", routing)) is silent
