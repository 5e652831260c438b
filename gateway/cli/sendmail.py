"""``gateway-sendmail``: what callers of /usr/sbin/sendmail pass, handed to the service over SMTP.

Exit codes are those of sysexits.h. Nothing is sent unless every recipient is accepted, so the exit code is the truth.
"""

from __future__ import annotations

import argparse
import getpass
import os
import re
import select
import smtplib
import socket
import sys
from collections.abc import Sequence
from email.parser import BytesHeaderParser
from email.utils import formataddr, getaddresses
from pathlib import Path
from typing import BinaryIO

EX_USAGE, EX_DATAERR, EX_NOUSER, EX_UNAVAILABLE, EX_TEMPFAIL, EX_NOPERM = 64, 65, 67, 69, 75, 77
_TIMEOUT = 60  # seconds; the service answers DATA within 10
_BCC = re.compile(rb"^bcc[ \t]*:.*\r\n(?:[ \t].*\r\n)*", re.IGNORECASE | re.MULTILINE)
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
_MBOX = re.compile(rb">?From .*\r\n(?=[!-9;-~]+[ \t]*:)")


class _SendmailError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]  # argparse's own exits with 2
        raise _SendmailError(EX_USAGE, message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="gateway-sendmail", description="sendmail-compatible submission to gateway")
    parser.add_argument("-t", dest="from_header", action="store_true", help="recipients from To, Cc and Bcc")
    parser.add_argument("-i", dest="ignore_dots", action="store_true", help="a line with a single dot ends nothing")
    parser.add_argument("-f", "-r", dest="sender", metavar="ADDRESS", help='envelope sender; "<>" for none')
    parser.add_argument("-F", dest="name", metavar="NAME", default="", help="full name for a missing From field")
    parser.add_argument("-b", dest="mode", choices="mspi", default="m", help="m: send, s: SMTP, p: queue")
    parser.add_argument("-o", dest="options", action="append", default=[], help="-oi is -i; others are ignored")
    parser.add_argument("-v", dest="verbose", action="store_true", help="show the SMTP conversation")
    parser.add_argument("-q", dest="flush", nargs="?", const="all", metavar="TIME", help="try everything queued now")
    for letter in "ABCLNORVXe":
        parser.add_argument(f"-{letter}", dest="_", help=argparse.SUPPRESS)
    for letter in "GUnm":
        parser.add_argument(f"-{letter}", dest="_", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("recipients", nargs="*", metavar="ADDRESS")
    return parser


def _qualified(address: str) -> str:
    """Local names get this machine's name, as every sendmail does."""
    address = address.strip().removeprefix("<").removesuffix(">")
    if not address.isprintable():  # a line break would begin another SMTP command
        raise _SendmailError(EX_USAGE, f"not an address: {address!r}")
    return f"{address}@{socket.gethostname()}" if address and "@" not in address else address


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container often nobody has a name
        raise _SendmailError(EX_USAGE, f"user id {os.getuid()} has no name: give the sender with -f") from None


def _read(stream: BinaryIO, ignore_dots: bool) -> bytes:
    raw = re.sub(rb"\r\n|\r|\n", b"\r\n", stream.read())
    if not ignore_dots:
        raw = re.split(rb"^\.\r\n", raw, maxsplit=1, flags=re.MULTILINE)[0]
    return raw if raw.endswith(b"\r\n") else raw + b"\r\n"


def _compose(arguments: argparse.Namespace, raw: bytes) -> tuple[str, list[str], bytes]:
    """Envelope sender, recipients and the bytes to send."""
    if mbox := _MBOX.match(raw):
        raw = raw[mbox.end() :]
    if not _FIELD.match(raw):  # text without a header
        raw = raw if raw.startswith(b"\r\n") else b"\r\n" + raw
    blank = re.search(rb"^\r\n", raw, re.MULTILINE)
    head, rest = (raw[: blank.start()], raw[blank.start() :]) if blank else (raw, b"")
    header = BytesHeaderParser().parsebytes(head)
    recipients = list(arguments.recipients)
    if arguments.from_header:
        fields = [str(value) for name in ("to", "cc", "bcc") for value in header.get_all(name, [])]
        recipients += [address for _, address in getaddresses(fields) if address]
        head = _BCC.sub(b"", head)
    if not recipients:
        raise _SendmailError(EX_USAGE, "no recipients: give addresses, or -t to take them from the message")
    sender = _qualified(_login_name() if arguments.sender is None else arguments.sender)
    name = " ".join(arguments.name.split())  # one line, whatever the caller passes on
    if sender and "from" not in header and (name or not head):
        shown = formataddr((name, "")).removesuffix("<>")  # without the address: it may be UTF-8
        head = f"From: {shown}<{sender}>\r\n".encode() + head
    return sender, list(dict.fromkeys(map(_qualified, recipients))), (head or b"Subject:\r\n") + rest


def _submit(target: tuple[str, int], verbose: bool, sender: str, recipients: Sequence[str], raw: bytes) -> None:
    with smtplib.SMTP(*target, timeout=_TIMEOUT) as server:
        server.set_debuglevel(verbose)
        server.ehlo_or_helo_if_needed()
        options = [] if raw.isascii() or not server.has_extn("8bitmime") else ["BODY=8BITMIME"]
        if not "".join((sender, *recipients)).isascii():
            options.append("SMTPUTF8")
            server.command_encoding = "utf-8"
        _expect(EX_NOPERM, sender or "<>", server.mail(sender, options))
        for recipient in recipients:
            _expect(EX_NOUSER, recipient, server.rcpt(recipient))
        _expect(EX_DATAERR, "message", server.data(raw))


def _expect(failure: int, what: str, reply: tuple[int, bytes | str]) -> None:
    code, text = reply
    if not 200 <= code < 300:
        said = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        words = f"{what}: {code} {said}".replace("\n", " ")
        raise _SendmailError(failure if code >= 500 else EX_TEMPFAIL, words)


def _pipe(target: tuple[str, int]) -> None:
    """-bs: the caller speaks SMTP with the service through us."""
    with socket.create_connection(target, _TIMEOUT) as service:
        inputs = [0, service.fileno()]
        while service.fileno() in inputs:
            for ready in select.select(inputs, [], [])[0]:
                data = os.read(ready, 65536)
                if not data:
                    inputs.remove(ready)
                if ready:
                    os.write(1, data)
                elif data:
                    service.sendall(data)
                else:
                    service.shutdown(socket.SHUT_WR)


def _run(argv: Sequence[str]) -> None:
    called, arguments = Path(argv[0]).name, _parser().parse_args(argv[1:])
    if called == "mailq" or arguments.mode == "p" or arguments.flush:
        from gateway.cli.root import cli

        cli(["queue", "retry", "--all", "--yes"] if arguments.flush else ["queue", "list"], prog_name="gateway")
    if called == "newaliases" or arguments.mode == "i":  # there are no aliases here
        return
    host, _, port = os.environ.get("GATEWAY_SENDMAIL", "localhost:8025").rpartition(":")
    if not (host and port.isdigit()):
        raise _SendmailError(EX_USAGE, "GATEWAY_SENDMAIL must be host:port")
    target = host.strip("[]"), int(port)
    try:
        if arguments.mode == "s":
            _pipe(target)
        else:
            raw = _read(sys.stdin.buffer, arguments.ignore_dots or "i" in arguments.options)
            _submit(target, arguments.verbose, *_compose(arguments, raw))
    except smtplib.SMTPResponseException as error:
        _expect(EX_UNAVAILABLE, f"{host}:{port}", (error.smtp_code, error.smtp_error))
    except OSError as error:  # smtplib's other exceptions as well
        raise _SendmailError(EX_TEMPFAIL, f"not sent: {host}:{port}: {error}; is `gateway serve` running?") from None


def main() -> None:
    """The ``gateway-sendmail`` command."""
    try:
        _run(sys.argv)
    except _SendmailError as failed:
        print(f"gateway-sendmail: {failed}", file=sys.stderr)  # noqa: T201 - a command's own error
        raise SystemExit(failed.code) from None
