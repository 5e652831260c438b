"""``gateway-sendmail``: what callers of /usr/sbin/sendmail pass, handed to the service over SMTP.

Exit codes are those of sysexits.h. Nothing is sent unless every recipient is accepted, so the exit code is the truth.
While the service is away, or can take nothing now, the message waits in its maildrop, and that is 0 as well.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import select
import smtplib
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, NoReturn

from gateway.drop import folder, letter
from gateway.drop.compose import COMPLETES, EX_DATAERR, EX_USAGE, Given, NotSendable, complete, compose
from gateway.message import repaired
from gateway.model import Envelope

EX_NOUSER, EX_UNAVAILABLE, EX_TEMPFAIL, EX_NOPERM = 67, 69, 75, 77
_TIMEOUT = 60  # seconds; the service answers DATA within 10
_LONE_DOT = re.compile(rb"^\.\r*+(?:\n|\Z)", re.MULTILINE)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]  # argparse's own exits with 2
        raise NotSendable(EX_USAGE, message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gateway-sendmail",
        description="sendmail-compatible submission to gateway",
        add_help=False,  # -h is sendmail's hop count
        allow_abbrev=False,
    )
    parser.add_argument("--help", action="help", help="show this and exit")
    parser.add_argument("-t", dest="from_header", action="store_true", help="recipients from To, Cc and Bcc as well")
    parser.add_argument("-i", dest="ignore_dots", action="store_true", help="a line with a single dot ends nothing")
    parser.add_argument("-f", "-r", dest="sender", metavar="ADDRESS", help='envelope sender; "<>" for none')
    parser.add_argument("-F", dest="name", metavar="NAME", default="", help="full name for a missing From field")
    parser.add_argument("-b", dest="mode", choices="mspi", default="m", help="m: send, s: SMTP, p: queue, i: aliases")
    parser.add_argument("-o", dest="options", action="append", default=[], help="-oi is -i; others are ignored")
    parser.add_argument("-v", dest="verbose", action="store_true", help="show the SMTP conversation")
    parser.add_argument("-q", dest="flush", nargs="?", const="all", metavar="TIME", help="try everything queued now")
    parser.add_argument("-N", dest="notify", default="", metavar="WHEN", help="never, or success,failure,delay")
    parser.add_argument("-R", dest="ret", default="", choices=("hdrs", "full"), help="what a bounce returns")
    parser.add_argument("-V", dest="envid", default="", metavar="ID", help="envelope id of RFC 3461")
    for flag in "ABCLOXdeh":
        parser.add_argument(f"-{flag}", dest="_", help=argparse.SUPPRESS)
    parser.add_argument("-I", dest="mode", action="store_const", const="i", help=argparse.SUPPRESS)
    for flag in "GUnm":
        parser.add_argument(f"-{flag}", dest="_", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("recipients", nargs="*", metavar="ADDRESS")
    return parser


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container often nobody has a name
        raise NotSendable(EX_USAGE, f"user id {os.getuid()} has no name: give the sender with -f") from None


def _read(stream: BinaryIO, ignore_dots: bool) -> bytes:
    """The message with lines that end in CRLF; a line with a single dot ends it, as LF alone ends a line there."""
    raw = stream.read()
    return repaired(raw if ignore_dots else _LONE_DOT.split(raw, maxsplit=1)[0])


def _given(arguments: argparse.Namespace) -> Given:
    if not letter.NOTIFY.fullmatch(arguments.notify.upper()):
        raise NotSendable(EX_USAGE, f"-N {arguments.notify}: write never, or some of success,failure,delay")
    if not letter.ENVID.fullmatch(arguments.envid):
        raise NotSendable(EX_USAGE, f"-V {arguments.envid!r}: write up to 100 printable characters, no blank, + or =")
    return Given(
        sender=_login_name() if arguments.sender is None else arguments.sender,
        recipients=tuple(arguments.recipients),
        name=arguments.name,
        from_header=arguments.from_header,
        notify=arguments.notify.upper(),
        ret=arguments.ret.upper(),
        envid=arguments.envid,
    )


def _submit(target: tuple[str, int], verbose: bool, envelope: Envelope, raw: bytes) -> None:
    """Over SMTP, each address as it was judged: smtplib's own mail and rcpt would rewrite some.

    Names without a domain are the service's to complete, where it says so; else they get this machine's.
    """
    with _connection(target) as server:
        server.set_debuglevel(verbose)
        server.ehlo_or_helo_if_needed()
        if not server.has_extn(COMPLETES):
            envelope, raw = complete(envelope, raw, socket.gethostname())
        server.command_encoding = "utf-8"
        dsn = server.has_extn("dsn")
        options = ["BODY=8BITMIME"] if envelope.eightbit and server.has_extn("8bitmime") else []
        options += ["SMTPUTF8"] if envelope.smtputf8 else []
        options += [f"RET={envelope.ret}"] if dsn and envelope.ret else []
        options += [f"ENVID={envelope.envid}"] if dsn and envelope.envid else []
        mail = " ".join((f"FROM:<{envelope.sender}>", *options))
        _expect(EX_NOPERM, envelope.sender or "<>", server.docmd("MAIL", mail))
        for one in envelope.recipients:
            notify = f" NOTIFY={one.notify}" if dsn and one.notify else ""
            _expect(EX_NOUSER, one.address, server.docmd("RCPT", f"TO:<{one.address}>{notify}"))
        _expect(EX_DATAERR, "message", server.data(raw))


@contextmanager
def _connection(target: tuple[str, int]) -> Iterator[smtplib.SMTP]:
    """What fails on it ends as NotSendable."""
    where = f"{target[0]}:{target[1]}"
    try:
        with smtplib.SMTP(*target, timeout=_TIMEOUT) as server:
            yield server
    except smtplib.SMTPResponseException as error:
        _expect(EX_UNAVAILABLE, where, (error.smtp_code, error.smtp_error))
    except OSError as error:  # smtplib's other exceptions as well
        raise NotSendable(EX_TEMPFAIL, f"not sent: {where}: {error}; is `gateway serve` running?") from None


def _keep(host: str, envelope: Envelope, raw: bytes, why: NotSendable) -> None:
    """Leave it in the maildrop, for the service to take it from there. Raises NotSendable."""
    from gateway.cli import maildrop

    if (places := maildrop.find(host, os.environ)) is None:
        raise why
    try:
        folder.drop(places, letter.write(envelope, raw, socket.gethostname()))
    except OSError as error:
        text = f"{why}; nor could it be kept in {places.new}: {error.strerror}"
        raise NotSendable(EX_TEMPFAIL, text) from None


def _expect(failure: int, what: str, reply: tuple[int, bytes | str]) -> None:
    code, text = reply
    if not 200 <= code < 300:
        said = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        words = f"{what}: {code} {said}".replace("\n", " ")
        if said.startswith("4.5.3"):  # they are not fewer for waiting
            raise NotSendable(EX_UNAVAILABLE, words)
        raise NotSendable(failure if code >= 500 else EX_TEMPFAIL, words)


def _pipe(target: tuple[str, int]) -> None:
    """-bs: the caller speaks SMTP with the service through us."""
    try:
        service = socket.create_connection(target, _TIMEOUT)
    except OSError as error:
        raise NotSendable(EX_TEMPFAIL, f"{target[0]}:{target[1]}: {error}; is `gateway serve` running?") from None
    with service:
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


def _mailq() -> NoReturn:
    """The queue, and what waits in the maildrop; this also where the queue cannot be seen."""
    from gateway.cli import maildrop
    from gateway.cli.__main__ import main as gateway
    from gateway.cli.queue import say_dropped
    from gateway.drop.overview import overview

    stdout = os.dup(1)  # which a command closes behind itself
    try:
        gateway(["queue", "list"])
    except SystemExit as ended:
        os.dup2(stdout, 1)
        if ended.code:
            places = maildrop.find("localhost", os.environ)
            found = overview({folder.MAILDROP: places} if places else {})
            say_dropped(json.loads(json.dumps([asdict(one) for one in found], default=str)))
        raise
    raise SystemExit(0)


def _run(argv: Sequence[str]) -> None:
    called, arguments = Path(argv[0]).name, _parser().parse_args(argv[1:])
    if called == "newaliases" or arguments.mode == "i":  # aliases are settings, which a reload takes
        return None
    if called == "mailq" or arguments.mode == "p":
        _mailq()
    if arguments.flush:
        from gateway.cli.__main__ import main as gateway

        gateway(["queue", "retry", "--all", "--yes"])
    host, _, port = os.environ.get("GATEWAY_SENDMAIL", "localhost:8025").rpartition(":")
    if not (host and port.isdigit()):
        raise NotSendable(EX_USAGE, "GATEWAY_SENDMAIL must be host:port")
    target = host.strip("[]"), int(port)
    if arguments.mode == "s":
        return _pipe(target)
    if sys.stdin is None:
        raise NotSendable(EX_USAGE, "standard input is closed: the message is read from there")
    raw = _read(sys.stdin.buffer, arguments.ignore_dots or "i" in arguments.options)
    envelope, raw = compose(_given(arguments), raw)
    try:
        _submit(target, arguments.verbose, envelope, raw)
    except NotSendable as failed:
        if failed.code != EX_TEMPFAIL:
            raise
        _keep(target[0], envelope, raw, failed)
    return None


def main() -> None:
    """The ``gateway-sendmail`` command."""
    try:
        _run(sys.argv)
    except NotSendable as failed:
        print(f"gateway-sendmail: {failed}", file=sys.stderr)  # noqa: T201 - a command's own error
        raise SystemExit(failed.code) from None
