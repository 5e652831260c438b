"""Exchange Online's and Gmail's submission servers as far as logins by token go. Strict: they refuse what those refuse.

Made from the documents: learn.microsoft.com/exchange/client-developer/legacy-protocols/how-to-authenticate-an-imap-pop-
smtp-application-by-using-oauth, .../smtp-app-rbac-onboarding and
developers.google.com/workspace/gmail/imap/xoauth2-protocol.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.backends.kit import Server, Transaction

# Whose token it is: the mailbox that it is good for, "*" for all that the application may use, None for no good token.
Whose = Callable[[str], str | None]
_LINE = 12288


@dataclass
class Session:
    secure: bool = False
    greeted: bool = False
    user: str = ""
    transaction: Transaction | None = None
    failures: int = 0


@dataclass
class Taken:
    user: str
    mail: str
    rcpt: list[str]
    body: bytes = field(repr=False)


class Submission(Server):
    """``whose`` looks at a token. ``scripted`` replies come once in the place of its own, by verb."""

    mechanisms = ("LOGIN", "XOAUTH2")
    most = 3  # connections of a mailbox
    size = 157_286_400

    def __init__(self, starttls: ssl.SSLContext, whose: Whose, mailboxes: set[str]) -> None:
        super().__init__(None)
        self.starttls = starttls
        self.whose = whose
        self.mailboxes = mailboxes
        self.scripted: dict[str, list[str]] = {}
        self.logins: list[tuple[str, str, bool]] = []  # mechanism, user, whether it was let in
        self.taken: list[Taken] = []
        self.open: Counter[str] = Counter()
        self.busiest: Counter[str] = Counter()
        self.lines: list[bytes] = []
        self.hangs_up_after_refusal = False
        self.holds: asyncio.Event | None = None  # a message ends only when it is set

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session()
        await self._say(writer, "220 fake ESMTP")
        try:
            while True:
                line = await self._line(reader)
                self.lines.append(line)
                verb, _, rest = line.decode().partition(" ")
                if await self._command(verb.upper(), rest, session, reader, writer):
                    return
        finally:
            if session.user:
                self.open[session.user] -= 1

    async def _command(
        self, verb: str, rest: str, session: Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """True: it is over."""
        if script := self.scripted.get(verb):
            await self._say(writer, script.pop(0))
            return False
        match verb:
            case "EHLO":
                session.greeted = True
                await self._say(writer, self._ehlo(session))
            case "STARTTLS" if not session.secure:
                await self._say(writer, "220 2.0.0 SMTP server ready")
                await writer.start_tls(self.starttls)
                session.secure, session.greeted = True, False
            case "AUTH":
                return await self._auth(rest, session, reader, writer)
            case "MAIL" | "RCPT" | "RSET":
                await self._say(writer, self._envelope(verb, rest, session))
            case "DATA" if session.transaction and session.transaction.rcpt:
                await self._say(writer, "354 Start mail input; end with <CRLF>.<CRLF>")
                await self._say(writer, await self._data(reader, session))
            case "DATA":
                await self._say(writer, "503 5.5.1 Bad sequence of commands")
            case "QUIT":
                await self._say(writer, "221 2.0.0 Service closing transmission channel")
                return True
            case _:
                await self._say(writer, "500 5.3.3 Unrecognized command")
        return False

    def _ehlo(self, session: Session) -> str:
        offers = [f"SIZE {self.size}", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8"]
        offers.append(f"AUTH {' '.join(self.mechanisms)}" if session.secure else "STARTTLS")
        return "\r\n".join(f"250-{one}" for one in ("fake", *offers)) + "\r\n250 CHUNKING"

    async def _auth(
        self, rest: str, session: Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        name, _, blob = rest.partition(" ")
        if not session.secure:
            await self._say(writer, "530 5.7.0 Must issue a STARTTLS command first")
            return True
        if session.user or not session.greeted:
            await self._say(writer, "503 5.5.1 Bad sequence of commands")
            return False
        if name.upper() not in self.mechanisms or name.upper() == "LOGIN":
            await self._say(writer, "504 5.7.4 Unrecognized authentication type")
            return False
        if not blob:
            await self._say(writer, "334 ")
            blob = (await self._line(reader)).decode()
        user, refusal = self._judge(name.upper(), blob)
        self.logins.append((name.upper(), user, not refusal))
        if not refusal:
            session.user = user
            self.open[user] += 1
            self.busiest[user] = max(self.busiest[user], self.open[user])
            await self._say(writer, "235 2.7.0 Authentication successful")
            return False
        await self._refuse(name.upper(), refusal, reader, writer)
        session.failures += 1
        return self.hangs_up_after_refusal or session.failures >= 3

    async def _refuse(
        self, name: str, refusal: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self._say(writer, refusal)

    def _judge(self, name: str, blob: str) -> tuple[str, str]:
        """Who it is, and why he is refused."""
        try:
            text = base64.b64decode(blob, validate=True).decode("ascii")
        except (binascii.Error, ValueError):
            return "", "501 5.5.2 Cannot decode response"
        forms = {"XOAUTH2": r"user=([^\1]+)\1auth=Bearer ([!-~]+)\1\1"}
        forms["OAUTHBEARER"] = r"n,a=([^,\1]+),\1(?:host=[^\1]+\1port=\d+\1)?auth=Bearer ([!-~]+)\1\1"
        said = re.fullmatch(forms[name].replace(r"\1", "\x01"), text)
        if not said:
            return "", "501 5.5.4 Syntax error in the initial response"
        user, whose = said[1].lower(), self.whose(said[2])
        if whose is None or user not in self.mailboxes or whose not in ("*", user):
            return user, self.wrong(user)
        if self.open[user] >= self.most:
            return user, "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending"
        return user, ""

    def wrong(self, user: str) -> str:
        return "535 5.7.3 Authentication unsuccessful [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]"

    def _envelope(self, verb: str, rest: str, session: Session) -> str:
        if not session.user:
            return "530 5.7.57 Client not authenticated to send mail. [AM0PR01CA0001]"
        if verb == "RSET":
            session.transaction = None
            return "250 2.0.0 Resetting"
        address = re.match(r"(?:FROM|TO):<([^>]*)>(.*)", rest)
        if not address:
            return "501 5.5.4 Invalid arguments"
        if verb == "MAIL":
            size = re.search(r"SIZE=(\d+)", address[2])
            if size and int(size[1]) > self.size:
                return "552 5.3.4 Message size exceeds fixed maximum message size"
            session.transaction = Transaction(address[1])
            return "250 2.1.0 Sender OK"
        if session.transaction is None:
            return "503 5.5.1 Bad sequence of commands"
        if len(session.transaction.rcpt) >= 500:
            return "452 4.5.3 Too many recipients"
        session.transaction.rcpt.append(address[1])
        return "250 2.1.5 Recipient OK"

    async def _data(self, reader: asyncio.StreamReader, session: Session) -> str:
        wire, transaction = bytearray(), session.transaction
        assert transaction is not None
        while wire != b".\r\n" and not wire.endswith(b"\r\n.\r\n"):
            wire += await reader.readuntil(b"\r\n")
        if self.holds is not None:
            await self.holds.wait()
        if script := self.scripted.get("."):
            return script.pop(0)
        transaction.wire = bytes(wire)
        session.transaction = None
        return self.take(session.user, transaction)

    def take(self, user: str, transaction: Transaction) -> str:
        author = re.search(rb"(?im)^from:.*?([\w.+-]+@[\w.-]+)", transaction.body)
        named = {transaction.mail.lower(), author[1].decode().lower() if author else ""}
        if named != {user}:
            why = "STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied"
            return f"554 5.2.252 SendAsDenied; {user} not allowed to send as {transaction.mail}; {why}"
        self.taken.append(Taken(user, transaction.mail, transaction.rcpt, transaction.body))
        return "250 2.0.0 OK <a1@AM0PR01MB0001.eurprd01.prod.exchangelabs.com> [Hostname=AM0PR01MB0001]"

    async def _line(self, reader: asyncio.StreamReader) -> bytes:
        line = (await reader.readuntil(b"\r\n")).removesuffix(b"\r\n")
        if len(line) > _LINE:
            raise EOFError
        return line

    async def _say(self, writer: asyncio.StreamWriter, reply: str) -> None:
        writer.write(reply.encode() + b"\r\n")
        await writer.drain()
        if reply.startswith("421"):
            raise EOFError


class GmailSubmission(Submission):
    """It says why a token is refused, and waits for the acknowledgement of each mechanism; it knows more addresses."""

    mechanisms = ("LOGIN", "PLAIN", "XOAUTH2", "PLAIN-CLIENTTOKEN", "OAUTHBEARER", "XOAUTH")
    most = 10
    size = 35_882_577
    acknowledged: Mapping[str, bytes] = {"XOAUTH2": b"", "OAUTHBEARER": b"AQ=="}

    async def _refuse(
        self, name: str, refusal: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if refusal.startswith("535"):
            why = {"status": "400", "schemes": "Bearer", "scope": "https://mail.google.com/"}
            await self._say(writer, "334 " + base64.b64encode(json.dumps(why).encode()).decode())
            if await self._line(reader) != self.acknowledged[name]:
                raise EOFError
        await self._say(writer, refusal)

    def wrong(self, user: str) -> str:
        text = "Username and Password not accepted. For more information, go to"
        return f"535-5.7.8 {text}\r\n535 5.7.8  https://support.google.com/mail/?p=BadCredentials 5b1f17b1804b1 - gsmtp"

    def take(self, user: str, transaction: Transaction) -> str:
        self.taken.append(Taken(user, transaction.mail, transaction.rcpt, transaction.body))
        return "250 2.0.0 OK  1733050000 5b1f17b1804b1-4355e4a1cbasi123 - gsmtp"
