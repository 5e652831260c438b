"""What each provider tells beyond the check, against its strict fake: nothing is sent, nothing unseen is guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.shared.probe import Observed, Probed
from gateway.doctor.finding import KEYS
from gateway.names import Names
from tests.backends import gmail_fake, graph_fake, json_fakes, test_smtp
from tests.backends.gmail_fake import authorized_user_info, service_account_info
from tests.backends.graph_fake import MAILBOX
from tests.backends.kit import Smtp2goFake, SmtpFake, http
from tests.names_kit import NameServer

LARGEST = 35_000_000


def levels(found: Sequence[Observed]) -> list[tuple[str, str]]:
    assert all(one.key in KEYS for one in found)
    assert all(one.fix for one in found if one.level != "good")
    return [(one.key, one.level) for one in found]


# -- Microsoft ---------------------------------------------------------------------------------------------------------

GOOD, EVERY = ("permission_good", "good"), ("permission_excess", "note")


@pytest.mark.parametrize(
    ("settings", "permissions", "rbac", "expected"),
    [
        ({}, "Mail.Send", False, [GOOD, EVERY]),
        ({"mailbox": "sender"}, "Mail.Send", False, [GOOD]),
        ({"mailbox": "sender"}, "Mail.Send Mail.Read", False, [GOOD]),
        ({"mailbox": "sender"}, "Mail.Send Mail.ReadWrite", False, [GOOD, EVERY]),
        ({"mailbox": "sender"}, "Mail.Send Directory.ReadWrite.All", False, [GOOD, EVERY]),
        ({"mailbox": "sender", "safe_send": True}, "Mail.Send Mail.ReadWrite", False, [GOOD]),
        ({"mailbox": "sender", "safe_send": True}, "Mail.Send", False, [("permission_unseen", "unknown")]),
        ({}, "", True, [("permission_unseen", "unknown")]),
        ({"client_secret": "wrong"}, "Mail.Send", False, []),
    ],
)
async def test_permissions_of_microsoft(
    tmp_path: Path, settings: dict[str, Any], permissions: str, rbac: bool, expected: list[tuple[str, str]]
) -> None:
    """Those of the token; what RBAC in Exchange grants is not in it, so its absence proves nothing."""
    async with graph_fake.open_way(tmp_path, **settings) as way:
        way.fake.permissions, way.fake.rbac = permissions, rbac
        found = await way.backend.probes().permissions(LARGEST)
        assert levels(found) == expected
        assert way.fake.delivered == []
    for one in found:
        if one.key == "permission_unseen":
            assert one.paste.startswith("Test-ServicePrincipalAuthorization -Identity ")


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        (http(200, {"id": "x"}), "mailbox_good"),
        (graph_fake.error(404, "Request_ResourceNotFound"), "mailbox_missing"),
        (graph_fake.error(403, "Authorization_RequestDenied"), "mailbox_unseen"),
    ],
)
async def test_mailboxes_of_microsoft(tmp_path: Path, answer: bytes, key: str) -> None:
    """With Mail.Send alone nobody may look: that is no fault. Send As is never told."""
    async with graph_fake.open_way(tmp_path) as way:
        way.fake.answers["profile"] = [answer]
        found = await way.backend.probes().may_send_as([MAILBOX, "sales@corp.example"])
    assert [one.key for one in found] == [key, "sender_unseen"]
    assert found[1].paste == "Get-RecipientPermission -Identity sales@corp.example"


@pytest.mark.parametrize(
    ("cloud", "part"),
    [
        ("global", "spf.protection.outlook.com"),
        ("usgov", "spf.protection.office365.us"),
        ("china", "spf.protection.partner.outlook.cn"),
    ],
)
async def test_traces_of_microsoft(tmp_path: Path, cloud: str, part: str) -> None:
    """Each cloud sends from addresses of its own."""
    async with graph_fake.open_way(tmp_path, cloud=cloud) as way:
        traces = await way.backend.probes().traces("corp.example")
    assert traces
    assert (traces.spf, traces.selectors) == (f"include:{part}", ("selector1", "selector2"))


# -- Google ------------------------------------------------------------------------------------------------------------

ALL_MAIL = "https://mail.google.com/"
READ = "https://www.googleapis.com/auth/gmail.readonly"


@pytest.mark.parametrize("info", [service_account_info(), authorized_user_info()], ids=["service", "user"])
@pytest.mark.parametrize(
    ("granted", "expected"),
    [
        (gmail_fake.SCOPE, [GOOD]),
        (f"{gmail_fake.SCOPE} openid", [GOOD]),
        (ALL_MAIL, [GOOD, EVERY]),
        (f"{gmail_fake.SCOPE} {READ}", [GOOD, EVERY]),
    ],
)
async def test_scopes_of_google(
    tmp_path: Path, info: dict[str, Any], granted: str, expected: list[tuple[str, str]]
) -> None:
    """Asked of Google, for a token itself says nothing."""
    async with gmail_fake.open_way(tmp_path, info) as way:
        way.fake.granted = granted
        assert levels(await way.backend.probes().permissions(LARGEST)) == expected
        assert way.sends == []


async def test_a_token_of_google_that_may_not_send(tmp_path: Path) -> None:
    """A service account's token is taken for granted until somebody asks."""
    async with gmail_fake.open_way(tmp_path) as way:
        way.fake.granted = READ
        [one] = await way.backend.probes().permissions(LARGEST)
    assert (one.key, one.level, one.paste) == ("permission_missing", "bad", gmail_fake.SCOPE)


@pytest.mark.parametrize(
    ("granted", "aliases", "expected"),
    [
        (gmail_fake.SCOPE, [], ("sender_unseen", "unknown")),
        (ALL_MAIL, [], ("sender_unverified", "bad")),
        (ALL_MAIL, [{"sendAsEmail": "Sales@corp.example", "verificationStatus": "accepted"}], ("sender_good", "good")),
        (
            ALL_MAIL,
            [{"sendAsEmail": "sales@corp.example", "verificationStatus": "pending"}],
            ("sender_unverified", "bad"),
        ),
    ],
)
async def test_aliases_of_google(
    tmp_path: Path, granted: str, aliases: list[dict[str, str]], expected: tuple[str, str]
) -> None:
    """Gmail writes its own address over a From that is not its own, so it is asked where the scopes allow."""
    async with gmail_fake.open_way(tmp_path, authorized_user_info(), senders=["*@corp.example"]) as way:
        way.fake.granted, way.fake.aliases = granted, aliases
        found = await way.backend.probes().may_send_as([gmail_fake.MAILBOX, "sales@corp.example"])
    assert levels(found) == [expected]


async def test_many_mailboxes_of_google(tmp_path: Path) -> None:
    """A token in the name of each: there is such a mailbox, and delegation for it."""
    async with gmail_fake.open_way(tmp_path, mailbox="sender", senders=["*@corp.example"]) as way:
        found = await way.backend.probes().may_send_as(
            ["c@corp.example", "nobody@corp.example", "anybody@corp.example"]
        )
    assert levels(found) == [("mailbox_good", "good"), ("mailbox_missing", "bad")]


# -- SMTP2GO -----------------------------------------------------------------------------------------------------------

BOTH = ["/domain/view", "/single_sender_emails/view"]
DOMAIN = {
    "fulldomain": "corp.example", "dkim_selector": "s123", "dkim_verified": True, "rpath_selector": "em123",
    "rpath_verified": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("permissions", "domain", "address", "key"),
    [
        (BOTH, {}, "a@corp.example", "sender_good"),
        (BOTH, {"rpath_verified": False}, "a@corp.example", "sender_unverified"),
        (BOTH, {"rpath_verified": False}, "one@corp.example", "sender_good"),
        (BOTH, {"rpath_verified": False}, "two@corp.example", "sender_unverified"),
        (BOTH, {}, "a@other.example", "sender_unverified"),
        (BOTH[:1], {}, "a@other.example", "sender_unseen"),
        ([], {}, "a@corp.example", "sender_unseen"),
    ],
)
async def test_senders_of_smtp2go(
    tmp_path: Path, permissions: list[str], domain: Mapping[str, object], address: str, key: str
) -> None:
    """By its domain, or by itself; a key that may not look is told what would help."""
    fake = Smtp2goFake(permissions=["/email/mime", *permissions])
    fake.domains = {"domains": [{"domain": {**DOMAIN, **domain}, "trackers": []}]}
    fake.single = {
        "senders": [
            {"email_address": "One@corp.example", "verified": True},
            {"email_address": "two@corp.example", "verified": False},
        ]
    }
    async with json_fakes.open_way(tmp_path, fake) as way:
        assert isinstance(way.backend, Probed)
        found = await way.backend.probes().may_send_as([address])
        traces = await way.backend.probes().traces("corp.example")
    assert [one.key for one in found] == [key]
    assert traces
    seen = bool(permissions)
    assert traces.records == ({"em123.corp.example": "return.smtp2go.net"} if seen else {})
    assert traces.selectors == (("s123",) if seen else ())


async def test_a_key_of_smtp2go_that_may_do_more(tmp_path: Path) -> None:
    """What is not needed is named."""
    async with json_fakes.open_way(tmp_path, Smtp2goFake()) as way:
        assert isinstance(way.backend, Probed)
        assert levels(await way.backend.probes().permissions(LARGEST)) == [GOOD, EVERY]


async def test_what_strangers_say_is_no_name(tmp_path: Path) -> None:
    """A selector that is no label of the DNS is not asked for."""
    fake = Smtp2goFake(permissions=BOTH)
    fake.domains = {
        "domains": [{"domain": {**DOMAIN, "dkim_selector": "x. IN TXT", "rpath_selector": 5}}, "odd", {"domain": []}]
    }
    async with json_fakes.open_way(tmp_path, fake) as way:
        assert isinstance(way.backend, Probed)
        traces = await way.backend.probes().traces("corp.example")
    assert traces
    assert (traces.records, traces.selectors) == ({}, ())


# -- SMTP --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offers", "settings", "expected"),
    [
        (("SIZE 50000000", "8BITMIME", "SMTPUTF8", "DSN"), {}, []),
        (("SIZE 0", "8BITMIME", "SMTPUTF8", "DSN"), {}, []),
        (("SIZE 10000000", "8BITMIME", "SMTPUTF8", "DSN"), {}, [("upstream_size", "warn")]),
        (("SIZE 10000000", "8BITMIME", "SMTPUTF8", "DSN"), {"max_size": "10MB"}, []),
        (("8BITMIME",), {}, [("upstream_extensions", "note")]),
        (("8BITMIME", "SMTPUTF8", "DSN", "STARTTLS"), {}, [("upstream_extensions", "warn")]),
    ],
)
async def test_extensions_of_an_upstream(
    tmp_path: Path, offers: tuple[str, ...], settings: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    """What is said in reply to EHLO, against what clients may hand in here."""
    async with SmtpFake(None, offers) as server, test_smtp.backend(server, tmp_path, **settings) as way:
        assert levels(await way.probes().permissions(LARGEST)) == expected
    assert server.done == []


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("smtp.office365.com", "Microsoft 365"),
        ("corp-example.mail.protection.outlook.com", "Microsoft 365"),
        ("smtp-relay.gmail.com", "Google"),
        ("mail-eu.smtp2go.com", "SMTP2GO"),
        ("notoffice365.com", "notoffice365.com"),
    ],
)
async def test_servers_that_are_known_by_name(tmp_path: Path, host: str, provider: str) -> None:
    """Of all others only the address is known."""
    async with test_smtp.backend(None, tmp_path, host=host) as way:
        probes = way.probes()
        object.__setattr__(probes, "names", Names(NameServer()))
        traces = await probes.traces("corp.example")
    assert traces
    assert traces.provider == provider
    assert traces.addresses == (("127.0.0.1",) if provider == host else ())
