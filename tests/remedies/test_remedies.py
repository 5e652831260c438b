"""How to let somebody in: what is proposed is loaded as it stands, and the same client then gets his mail through."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.auth import ensure_own_key, hash_password
from gateway.backends import settings_types
from gateway.config.loading import load
from gateway.config.models import Settings
from gateway.events import REASONS
from gateway.model import Capabilities
from gateway.refusals import Refused
from gateway.remedies import REMEDIES, remedy
from gateway.spool import RefusalRow
from tests.fakes import START
from tests.smtp.kit import PASSWORD, Peer, Rig

Tree = dict[str, Any]
Talk = Callable[[Rig, str], Awaitable[str]]
HASH = hash_password(PASSWORD, b"0123456789abcdef")
SECRET = "0123456789abcdef0123456789abcdef"
BASE: Tree = {
    "hostname": "relay.example.com",
    "listeners": {"local": {"bind": "127.0.0.1:0"}},
    "auth": {"keys": {"app": {"algorithm": "HS256", "secret": SECRET}}},
    "backends": {"box": {"type": "capture"}},
}


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> Tree:
    """As somebody does who pastes lines in the place of the same keys."""
    found = dict(base)
    for key, value in more.items():
        old = found.get(key)
        found[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return found


def loaded(tree: Tree, directory: Path) -> Settings:
    file = directory / "config.yaml"
    file.write_text(yaml.safe_dump({"state_dir": str(directory), **tree}))
    file.chmod(0o600)
    settings = load(file, {}, settings_types()).settings
    ensure_own_key(settings)
    return settings


def able(settings: Settings, own: Mapping[str, Capabilities]) -> dict[str, Capabilities]:
    names = settings.backends.items()
    return {name: own.get(name) or Capabilities(max_bytes=one.max_size or 35_000_000) for name, one in names}


def row(of: Refused, **more: Any) -> RefusalRow:
    given = {name: getattr(of, name) for name in of.__slots__ if name != "follows"}
    return RefusalRow(**{"id": "", "first_at": START, "last_at": START, "count": 1, "mixed": False, **given, **more})


# -- what clients do; each returns the last reply --------------------------------------------------------------------

MESSAGE = b"From: scan@example.com\r\nSubject: x\r\n\r\nhello\r\n"


async def told(peer: Peer, *lines: str) -> str:
    for line in lines:
        if (reply := await peer.say(line))[0] in "45":
            break
    return reply


def mail(
    sender: str = "<scan@example.com>", *recipients: str, raw: bytes = MESSAGE, hello: bool = True, login: str = "",
) -> Talk:  # fmt: skip
    async def talk(made: Rig, address: str) -> str:
        peer = await made.connect(address=address)
        lines = ["EHLO c"] * hello + [login.format(token=plain("jwt", made.token("billing")))] * bool(login)
        lines += [f"MAIL FROM:{sender}", *(f"RCPT TO:{one}" for one in recipients or ("<b@example.org>",)), "DATA"]
        reply = await told(peer, *lines)
        return await peer.say(raw + b"\r\n.\r\n") if reply.startswith("354") else reply

    return talk


def plain(user: str, password: str) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()).decode()


async def twice(made: Rig, address: str) -> str:
    await mail()(made, address)
    return await mail()(made, address)


async def two_connections(made: Rig, address: str) -> str:
    await made.connect(address=address)
    peer = await made.connect(address=address)
    return await told(peer, "NOOP") if peer.greeting.startswith("220") else peer.greeting


@dataclass(frozen=True)
class Row:
    reason: str
    tree: Tree
    talk: Talk = field(default_factory=mail)
    words: str = ""
    able: Mapping[str, Capabilities] = field(default_factory=dict)
    address: str = "127.0.0.77"


def clients(**given: Any) -> Tree:
    return {"clients": given}


HERE = {"networks": ["127.0.0.77"]}
ANY = clients(here=HERE)
LOGIN = {"copier": {"password_hash": HASH}}
TWO = mail("<a@example.com>", "<b@x.y>", "<c@x.y>")
BIG = MESSAGE + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 100
ROWS = [
    Row("relay_denied", clients(printers={"networks": ["127.0.0.64/29"]}),
        words="printers holds 127.0.0.64/29, which ends at 127.0.0.71"),
    Row("relay_denied", clients(printers={"networks": ["127.0.0.8"], "senders": ["a@example.com"]}),
        words="printers holds 127.0.0.8"),
    Row("relay_denied", clients(far={"networks": ["10.0.0.0/8"]}), words="a new client"),
    Row("relay_denied", clients(printers={"networks": ["127.0.0.64/29"], "rewrite_sender": {"to": "a@example.com"}}),
        talk=mail("<scan@dev.local>")),
    Row("auth_required", clients(**LOGIN)),
    Row("auth_required", merged(clients(here=HERE, **LOGIN), {"listeners": {"local": {"auth": "required"}}}),
        words="let local take mail without a login"),
    Row("auth_required", {"listeners": {"local": {"auth": "required"}}}),
    Row("wrong_network", clients(copier={"password_hash": HASH, "networks": ["127.0.0.8"]}),
        talk=mail(login=plain("copier", PASSWORD))),
    Row("unknown_client", clients(app={"token": "app"}), talk=mail(login="{token}"), words="Make a client"),
    Row("sender_denied", clients(here={**HERE, "senders": ["*@example.net"]}), words="may send as *@example.net only"),
    Row("sender_denied", clients(here={**HERE, "senders": ["env@example.com"]}), talk=mail("<env@example.com>")),
    Row("sender_denied", clients(here={**HERE, "senders": ["scan@example.com"]}),
        talk=mail(raw=b"From: MAILER-DAEMON <>\r\n\r\nx\r\n"), words="no plain address"),
    Row("sender_denied", ANY, able={"box": Capabilities(max_bytes=10**7, senders=("noreply@example.com",))},
        words="only as noreply@example.com"),
    Row("sender_denied", clients(here={**HERE, "senders": ["*", "!*@example.com"]}), words='"!*@example.com" out'),
    Row("recipient_denied", clients(here={**HERE, "recipients": ["*@example.net"]}), words="add the address"),
    Row("recipient_denied", clients(here={**HERE, "recipients": ["*", "!*@example.org"]}), words='"!*@example.org"'),
    Row("recipient_denied", clients(here={**HERE, "recipients": ["*@example.org"]}),
        talk=mail("<scan@example.com>", "<a%b@example.org>"), words="this very address"),
    Row("rate_limited", clients(here={**HERE, "rate": "1/hour"}), talk=twice, words="its rate allows (1/hour)"),
    Row("rate_limited", clients(here={**HERE, "quota": {"messages": "1/hour"}}), talk=twice, words="used up its quota"),
    Row("too_big", {**ANY, "limits": {"max_size": "2KB"}}, talk=mail(raw=BIG), words="limits.max_size is 2KB"),
    Row("too_big", clients(here={**HERE, "max_size": "2KB"}), talk=mail(raw=BIG), words="clients.here.max_size is 2KB"),
    Row("too_big", {**ANY, "backends": {"box": {"type": "capture", "max_size": "2KB"}}}, talk=mail(raw=BIG),
        words="box carries 2KB"),
    Row("too_many_recipients", {**ANY, "limits": {"max_recipients": 1}}, talk=TWO),
    Row("too_many_recipients", clients(here={**HERE, "max_recipients": 1}), talk=TWO),
    Row("no_route", {**ANY, "routes": [{"recipients": ["*@x.y"], "backend": "box"}]}, words="b@example.org"),
    Row("cannot_carry", {**ANY, "backends": {"smart": {"type": "smtp", "host": "mx.example.net"}},
                         "routes": [{"backend": ["box"]}]},
        talk=mail("<>"), able={"box": Capabilities(max_bytes=10**7, null_sender=False)}, words="Let smart take them"),
    Row("bad_newlines", ANY, talk=mail(raw=b"From: scan@example.com\r\n\r\na\nb")),
    Row("line_too_long", merged(ANY, {"listeners": {"local": {"tolerate": []}}}),
        talk=mail(raw=MESSAGE + b"x" * 2000)),
    Row("bad_message", ANY, talk=mail(raw=b"no header here")),
    Row("bad_sequence", ANY, talk=mail(hello=False), words="without saying hello"),
    Row("bad_address", ANY, talk=mail("<root>", raw=b"From: root\r\n\r\nx")),
    Row("bad_address", ANY, talk=mail("<a@example.com>", "<www-data>"), words="whose mailbox"),
    Row("bad_address", {**ANY, "aliases": {"root": "a@example.com"}}, talk=mail("<a@example.com>", "<root>", "<bob>")),
    Row("too_many_connections", {**ANY, "limits": {"connections_per_ip": 1}}, talk=two_connections),
    Row("too_many_connections", {**ANY, "limits": {"connections": 1}}, talk=two_connections),
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.reason)
async def test_the_lines_to_paste_let_the_same_mail_in(case: Row, tmp_path: Path) -> None:
    """Refused by the settings as they are, accepted by what the remedy makes of them."""
    tree = merged(BASE, case.tree)
    settings = loaded(tree, tmp_path)
    found: list[Refused] = []
    async with Rig(settings, able(settings, case.able)) as made:
        made.events.on_refusal = found.append
        assert (await case.talk(made, case.address))[0] in "45"
    one = found[0]
    assert one.reason == case.reason
    cure = remedy(row(one), settings)
    assert case.words in f"{cure.why} {cure.fix}"
    assert cure.command == "gateway reload"
    settings = loaded(merged(tree, yaml.safe_load(cure.yaml)), tmp_path)
    async with Rig(settings, able(settings, case.able)) as made:
        reply = await case.talk(made, case.address)
        assert reply[0] == "2", f"{reply} with\n{cure.yaml}"


def some(reason: str, **more: Any) -> RefusalRow:
    return row(Refused(**{"listener": "local", "stage": "mail", "reason": reason, "peer": "192.0.2.41", **more}))


WORDS = [
    ("auth_failed", {"user": "copier"}, "The password for copier is wrong", "gateway password mint copier"),
    ("auth_failed", {"user": "copire"}, "Did you mean copier?", "gateway password mint copire"),
    ("auth_failed", {"user": "$(reboot)"}, "No client has the user name $(reboot)", "gateway password mint NAME"),
    ("auth_failed", {"user": "billing"}, "billing has no password here", "gateway password mint billing"),
    ("token_malformed", {"user": "jwt", "detail": "128 characters"}, "cut off after 128 characters",
     "gateway password mint device"),
    ("token_malformed", {"text": "The login is cut into lines"}, "cut into lines", ""),
    ("token_expired", {"detail": "jti j7; sub billing; expired at 2026-11-01 10:00:00 UTC, and ...", "stage": "auth"},
     "The token (id j7, subject billing) is too old: expired at 2026-11-01", "gateway token mint --sub billing"),
    ("token_revoked", {"detail": "jti j; sub a'b; revoked"}, "was revoked", "gateway token mint --sub 'a'\"'\"'b'"),
    ("token_signature", {"detail": "jti j; sub s; the signature is wrong; 255 characters"}, "(255 characters)",
     "gateway token mint --sub s"),
    ("wrong_network", {"detail": "jti j; sub s; the token's own networks do not hold 192.0.2.41"},
     "not from 192.0.2.41", "gateway token mint --sub s --network 192.0.2.41"),
    ("sender_denied", {"client": "copier", "user": "app", "sender": "a@x.y",
                       "text": '<a@x.y>: sender not allowed for client "copier"; the token allows only b@x.y, so'},
     "Its token says as whom", "gateway token mint --sub app --sender a@x.y"),
    ("too_many_failures", {"user": "copier"}, "Ten different wrong passwords for copier", ""),
    ("tls_failed", {"detail": "the client finds the certificate out of date"}, "out of date", ""),
    ("proxy_header", {"detail": "no header of the PROXY protocol came within 5 seconds", "stage": "connect"},
     "no header of the PROXY protocol came within 5 seconds. Let it send one", ""),
    ("proxy_header", {"stage": "command"}, "add its address to listeners.local.proxy_protocol_from", ""),
    ("no_route", {"text": 'backend "office" is not configured'}, "names a backend that is not configured", ""),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "said", "words", "command"), WORDS)
def test_what_it_says(reason: str, said: Tree, words: str, command: str, tmp_path: Path) -> None:
    """The very token, user or length; and a command that can be pasted whatever strangers called themselves."""
    settings = loaded(merged(BASE, clients(**LOGIN, billing={"token": "billing"})), tmp_path)
    cure = remedy(some(reason, **said), settings)
    assert words in f"{cure.why} {cure.fix}"
    assert cure.command == command


@pytest.mark.parametrize("reason", ["relay_denied", "auth_required", "tls_required"])
def test_a_load_balancers_address_is_given_to_no_client(reason: str, tmp_path: Path) -> None:
    """It would let in all whom the balancer does not name."""
    settings = loaded(merged(BASE, {"listeners": {"local": {"proxy_protocol_from": ["192.0.2.0/24"]}}}), tmp_path)
    cure = remedy(some(reason), settings)
    assert "192.0.2.41 did not say whose connection this was" in cure.why
    assert cure.yaml == ""


def test_old_tls_is_allowed_on_that_listener(tmp_path: Path) -> None:
    """Only where that is the cause."""
    settings = loaded(BASE, tmp_path)
    cure = remedy(some("tls_failed", detail='other versions; a listener of its own with min_tls: "1.0"'), settings)
    assert yaml.safe_load(cure.yaml) == {"listeners": {"local": {"min_tls": "1.0"}}}


def test_a_stranger_on_the_internet_is_not_added_without_a_word(tmp_path: Path) -> None:
    """And never his neighbours."""
    settings = loaded(merged(BASE, clients(office={"networks": ["93.184.216.0/28"]})), tmp_path)
    cure = remedy(row(Refused(listener="local", stage="mail", reason="relay_denied", peer="93.184.216.34")), settings)
    assert "Strangers on the Internet" in cure.fix
    assert yaml.safe_load(cure.yaml) == {"clients": {"device": {"networks": ["93.184.216.34/32"]}}}


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("relay_denied", {}),
        (
            "sender_denied",
            {"client": "copier", "sender": "a@example.com", "text": "<a@example.com>: sender not allowed"},
        ),
        ("recipient_denied", {"client": "copier", "recipients": ("b@example.net",)}),
    ],
)
def test_who_was_let_in_meanwhile(reason: str, said: Tree, tmp_path: Path) -> None:
    """Nothing is proposed that stands there already: a cure that was applied is seen to be."""
    copier = {"networks": ["192.0.2.0/26"], "senders": ["*@example.com"], "recipients": ["*@example.net"]}
    settings = loaded(merged(BASE, clients(copier=copier)), tmp_path)
    cure = remedy(some(reason, **said), settings)
    assert (cure.fix.startswith("Nothing more: by now "), cure.yaml, cure.command) == (True, "", "")


def test_there_is_a_remedy_for_each_reason() -> None:
    """And for nothing else: a new reason needs one, and a sentence in docs/replies.md."""
    assert REMEDIES.keys() == REASONS


HOSTILE = "\u202e<script>{x}\x1b[2J'\"; rm -rf /\n- : {"


@pytest.mark.parametrize("reason", sorted(REASONS))
@pytest.mark.parametrize("odd", [False, True])
def test_each_says_why_and_what_to_do(reason: str, odd: bool, tmp_path: Path) -> None:
    """Of any row, whatever is missing in it and whatever strangers wrote; what is to be pasted can be loaded."""
    tree = merged(BASE, clients(copier={"networks": ["192.0.2.0/27"], "rate": "5/hour", "max_size": "1MB"}))
    settings = loaded(tree, tmp_path)
    text = {"text": HOSTILE, "detail": HOSTILE, "user": HOSTILE, "sender": HOSTILE, "helo": HOSTILE} if odd else {}
    for client in ("", "copier", "gone"):
        for listener in ("local", "maildrop"):
            found = row(Refused(listener=listener, stage="mail", reason=reason, client=client, **text), peer="")
            cure = remedy(found, settings)
            assert cure.why.endswith(".")
            assert cure.fix.endswith((".", ":"))
            assert HOSTILE not in cure.command
            if cure.yaml:
                loaded(merged(tree, yaml.safe_load(cure.yaml)), tmp_path)


@pytest.mark.parametrize("who", [{}, {"client": "copier"}, {"peer": "192.0.2.7"}], ids=["many", "client", "address"])
@pytest.mark.parametrize("reason", sorted(REMEDIES))
def test_a_row_of_many_lets_nobody_in(reason: str, who: Tree, tmp_path: Path) -> None:
    """Of a mixed row only the count is true: nothing to paste, nobody is named who is not in it."""
    settings = loaded(merged(BASE, clients(copier={"networks": ["192.0.2.0/27"]})), tmp_path)
    cure = remedy(row(Refused(listener="local", stage="mail", reason=reason, **who), mixed=True), settings)
    assert (cure.yaml, "127.0.0.1" in cure.why) == ("", False)
    assert "".join(who.values()) in cure.why
    assert f"--reason {reason}" in cure.command
