"""What MAIL and RCPT take, one by one, beside what a real Postfix takes: ours is the same, or the row says why not."""

from __future__ import annotations

import os
import shutil
import smtplib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.bench.postfix import Postfix, postfix
from tests.smtp.kit import rig

SAME = ""
CONTROL = "control characters do harm in logs, headers and people's eyes"
ROUTE = "a route lets the client choose the way (RFC 5321 C)"
SPECIAL = "not one mailbox by RFC 5321 4.1.2: every server reads something else in it"
NO_DOMAIN = "whose it is says only default_domain or rewrite_sender"
LONGER = "longer than any provider takes"
TWICE = "RFC 5321 4.1.1.11: no parameter twice, which of them would count?"
# What is behind MAIL FROM: (with EHLO before), the codes of ours and of Postfix 3.7.11 for it, and why they differ.
MAIL: list[tuple[bytes, int, int, str]] = [
    (b"<a@b.example>", 250, 250, SAME),
    (b"<a..b@x.example>", 250, 250, SAME),
    (b"<.a.@x.example>", 250, 250, SAME),
    (b"<" + b"l" * 65 + b"@x.example>", 250, 250, SAME),
    (b"<" + b"l" * 255 + b"@x.example>", 250, 250, SAME),
    (b"<" + b"l" * 256 + b"@x.example>", 501, 250, LONGER),
    (b'<"a b"@x.example>', 250, 250, SAME),
    (b'<"a@b"@x.example>', 250, 250, SAME),
    (b'<"a\\"b"@x.example>', 250, 250, SAME),
    (b'<""@x.example>', 250, 250, SAME),
    (b'<"a"b@x.example>', 501, 501, SAME),
    (b'<a."b"@x.example>', 501, 250, SPECIAL),
    (b"<a\\@b@x.example>", 501, 250, SPECIAL),
    (b"<EXAMPLE\\copier>", 501, 250, NO_DOMAIN),
    (b"<root>", 501, 250, NO_DOMAIN),
    (b"<a@[192.0.2.1]>", 250, 250, SAME),
    (b"<a@[IPv6:2001:db8::1]>", 250, 250, SAME),
    (b"<a@[ipv6:2001:db8::1]>", 250, 250, SAME),
    (b"<a@[2001:db8::1]>", 501, 501, SAME),
    (b"<a@[300.1.1.1]>", 501, 501, SAME),
    (b"<a@[192.0.2.1>", 501, 250, SPECIAL),
    (b"<a@192.0.2.1>", 250, 501, "a host may be called so since RFC 1123; whoever routes it must know"),
    (b"<a@host>", 250, 250, SAME),
    (b"<a@host.>", 250, 250, SAME),
    (b"<a@host.example.>", 250, 250, SAME),
    (b"<a@host..>", 501, 501, SAME),
    (b"<a@.host>", 501, 501, SAME),
    (b"<a@b..c>", 501, 501, SAME),
    (b"<a@my_host.example>", 250, 250, SAME),
    (b"<a@_host>", 250, 250, SAME),
    (b"<a@-host>", 501, 501, SAME),
    (b"<a@host-.example>", 501, 501, SAME),
    (b"<a@" + b"d" * 63 + b">", 250, 250, SAME),
    (b"<a@" + b"d" * 64 + b">", 501, 501, SAME),
    (b"<a@" + b".".join([b"d" * 63] * 4) + b">", 250, 250, SAME),
    (b"<a@" + b".".join([b"d" * 63] * 5) + b">", 501, 501, SAME),
    (b"<a@x/y>", 501, 501, SAME),
    (b"<a@x.example:25>", 501, 501, SAME),
    (b"<a@xn--bcher-kva.example>", 250, 250, SAME),
    (b"<a@xn--a>", 501, 250, "an A-label that says nothing (RFC 5891 5.4)"),
    (b"a@x.example", 250, 250, SAME),
    (b" <a@x.example>", 250, 250, SAME),
    (b"   a@x.example", 250, 250, SAME),
    (b"\t<a@x.example>", 501, 250, CONTROL),
    (b"< a@x.example >", 250, 250, SAME),
    (b"<a @x.example>", 501, 250, SPECIAL),
    (b"<<a@x.example>>", 250, 250, SAME),
    (b"<Scanner <a@x.example>>", 250, 250, SAME),
    (b"Scanner <a@x.example>", 501, 555, SAME),
    (b"<a@x.example", 501, 501, SAME),
    (b"a@x.example>", 501, 250, SPECIAL),
    (b"<a@x.example>>", 501, 250, SPECIAL),
    (b"<a@x.example>;", 501, 250, SPECIAL),
    (b"<a@x.example>,<b@x.example>", 501, 501, SAME),
    (b"<a@x.example,b@x.example>", 501, 501, SAME),
    (b"<a@x.example;b@x.example>", 501, 501, SAME),
    (b"<a,b@x.example>", 501, 501, SAME),
    (b"<a;b@x.example>", 501, 501, SAME),
    (b"<a b@x.example>", 501, 501, SAME),
    (b"<a:b@x.example>", 501, 250, SPECIAL),
    (b"<mailto:a@x.example>", 501, 250, SPECIAL),
    (b"<a(c)@x.example>", 501, 250, SPECIAL),
    (b"<a@b@x.example>", 501, 250, ROUTE),
    (b"<@r.example:a@x.example>", 501, 250, ROUTE),
    (b"<@r,@s:a@x.example>", 501, 250, ROUTE),
    (b"<a%b@x.example>", 250, 250, SAME),
    (b"<a!b@x.example>", 250, 250, SAME),
    (b"<#a{b}'c/d=e@x.example>", 250, 250, SAME),
    (
        b"<-a@x.example>",
        250,
        501,
        "Postfix guards programs that it starts with an address in their arguments; we start none",
    ),
    (b"<a\x01b@x.example>", 501, 250, CONTROL),
    (b'<"a\tb"@x.example>', 501, 250, CONTROL),
    (b"<>", 250, 250, SAME),
    (b"< >", 250, 250, SAME),
    (b"<@x.example>", 501, 250, SPECIAL),
    (b"<a@>", 501, 501, SAME),
    (b"", 501, 501, SAME),
    ("<ü@x.example>".encode(), 553, 250, "RFC 6531 3.4: only with SMTPUTF8, or bounces cannot come back"),
    ("<a@bücher.example>".encode(), 553, 501, SAME),
    ("<ü@bücher.example> SMTPUTF8".encode(), 250, 250, SAME),
    (b"<\xfc@x.example> SMTPUTF8", 501, 500, SAME),
    (b"<a@x.example>SIZE=1", 501, 501, SAME),
    (b"<a@x.example>  SIZE=1", 250, 250, SAME),
    (b"<a@x.example> size=1 body=8bitmime", 250, 250, SAME),
    (b"<a@x.example> SIZE=", 501, 501, SAME),
    (b"<a@x.example> SIZE=x", 501, 501, SAME),
    (b"<a@x.example> SIZE", 501, 555, SAME),
    (b"<a@x.example> SIZE=1 SIZE=2", 501, 250, TWICE),
    (b"<a@x.example> BODY=7BIT", 250, 250, SAME),
    (b"<a@x.example> BODY=BINARYMIME", 504, 555, SAME),
    (b"<a@x.example> RET=full ENVID=a=b", 250, 250, SAME),
    (b"<a@x.example> RET=x", 501, 501, SAME),
    (b"<a@x.example> ENVID=" + b"x" * 101, 501, 250, "RFC 3461 4.4: 100 at most"),
    (b"<a@x.example> FOO=BAR", 555, 555, SAME),
]
# What is behind RCPT TO:, in a transaction of the null sender; the paths above are read the same way.
RCPT: list[tuple[bytes, int, int, str]] = [
    (b"<postmaster>", 250, 250, SAME),
    (b"<POSTmaster>", 250, 250, SAME),
    (b"postmaster", 250, 250, SAME),
    (b"<postmaster> NOTIFY=NEVER", 250, 250, SAME),
    (b"<root>", 501, 250, NO_DOMAIN),
    (b"<>", 501, 501, SAME),
    (b'<"">', 501, 501, SAME),
    (b"<b@x.example.>", 250, 250, SAME),
    (b"<b@x.example> NOTIFY=never", 250, 250, SAME),
    (b"<b@x.example> NOTIFY=SUCCESS,NEVER", 501, 501, SAME),
    (b"<b@x.example> NOTIFY=DELAY,DELAY", 250, 250, SAME),
    (b"<b@x.example> NOTIFY=SUCCESS,", 250, 250, SAME),
    (b"<b@x.example> NOTIFY=", 501, 501, SAME),
    (b"<b@x.example> NOTIFY=SUCCESS NOTIFY=FAILURE", 501, 501, SAME),
    (b"<b@x.example> ORCPT=RFC822;b@x.example", 250, 250, SAME),
    (b"<b@x.example> ORCPT=rfc822;b+2bc@x.example", 250, 250, SAME),
    (b"<b@x.example> ORCPT=rfc822;b=c@x.example", 250, 250, SAME),
    (b"<b@x.example> ORCPT=rfc822;b+c@x.example", 501, 501, SAME),
    (b"<b@x.example> ORCPT=rfc822;", 250, 250, SAME),
    (b"<b@x.example> ORCPT=;b", 501, 501, SAME),
    (b"<b@x.example> ORCPT=b", 501, 501, SAME),
    (b"<b@x.example> SIZE=1", 555, 555, SAME),
]
EHLO: list[tuple[bytes, int, int, str]] = [
    (b"EHLO c.example", 250, 250, SAME),
    (b"EHLO [192.0.2.1]", 250, 250, SAME),
    (b"EHLO [IPv6:2001:db8::1]", 250, 250, SAME),
    (b"EHLO 192.0.2.1", 250, 250, SAME),
    (b"EHLO [192.0.2.1", 250, 250, SAME),
    (b"EHLO my_pc", 250, 250, SAME),
    (b"EHLO my pc", 250, 250, SAME),
    (b"EHLO (none)", 250, 250, SAME),
    (b"EHLO localhost.localdomain.", 250, 250, SAME),
    (b"EHLO <a@b>", 250, 250, SAME),
    (b"EHLO -", 250, 250, SAME),
    (b"EHLO  c", 250, 250, SAME),
    (b"ehlo c", 250, 250, SAME),
    (b"EHLO " + b"x" * 1000, 250, 250, SAME),
    (b"EHLO \xe4", 250, 500, "written down as a question mark"),
    (b"EHLO a\tb", 501, 250, CONTROL),
    (b"EHLO \x01", 501, 250, CONTROL),
    (b"EHLO", 501, 501, SAME),
    (b"HELO ", 501, 501, SAME),
]


def rows() -> Iterator[tuple[bytes, int, int, str, tuple[bytes, ...]]]:
    """The line, the two codes, the reason, and what comes before the line."""
    for path, ours, theirs, why in MAIL:
        yield b"MAIL FROM:" + path, ours, theirs, why, (b"EHLO c",)
    for path, ours, theirs, why in RCPT:
        yield b"RCPT TO:" + path, ours, theirs, why, (b"EHLO c", b"MAIL FROM:<>")
    for line, ours, theirs, why in EHLO:
        yield line, ours, theirs, why, ()
        # An empty name and even none at all is enough for MAIL with Postfix; with us an empty one is.
        yield b"MAIL FROM:<a@b.example>", 503 if b"\x01" in line or b"\t" in line else 250, 250, why, (line,)


async def test_ours() -> None:
    """Every row; and a difference from Postfix has a reason."""
    wrong = []
    async with rig(limits={"connections_per_ip": 1000}) as made:
        for line, code, theirs, why, before in rows():
            peer = await made.connect()
            for command in before:
                await peer.say(command + b"\r\n")
            reply = await peer.say(line + b"\r\n")
            await peer.close()
            if not reply.startswith(str(code)) or (not why and (code < 400) != (theirs < 400)):
                wrong.append((line, code, reply))
    assert wrong == []


@pytest.fixture(scope="module")
def real() -> Iterator[Postfix]:
    if os.geteuid() != 0 or shutil.which("postfix") is None:
        pytest.skip("needs root and Postfix (Debian package postfix)")
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with postfix(Path(folder)) as made:
            yield made


@pytest.mark.slow
def test_the_table_is_true_of_postfix(real: Postfix) -> None:
    wrong = []
    for line, _, code, _, before in rows():
        with smtplib.SMTP("127.0.0.1", real.port) as client:
            for command in (*before, line):
                client.send(command + b"\r\n")
                got = client.getreply()[0]
        if got != code:
            wrong.append((line, code, got))
    assert wrong == []
