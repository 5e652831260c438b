"""What each command does. A verb that has to wait returns an awaitable; a Refusal or Fault raised is the reply."""

from __future__ import annotations

import re
from collections.abc import Awaitable

from gateway.address import is_bare, parse_path
from gateway.auth import LoginRefused
from gateway.message.text import harmless
from gateway.model import BadAddress, CannotTell, Client, Refusal
from gateway.refusals import Refused
from gateway.smtp import hearing, replies
from gateway.smtp.data import LINE, LONG_LINE, DataReader
from gateway.smtp.incoming import Incoming
from gateway.smtp.login import BEARER, BEARER_REFUSED, MECHANISMS, Challenge, decode, encode
from gateway.smtp.params import is_mail_parameter, mail_parameters, rcpt_parameters
from gateway.smtp.session import Session, Verb
from gateway.transaction import Transaction

_LOGINS = 3  # failed ones in a connection
_RESULTS = {"too_many_failures": "refused", "busy": "unavailable", "auth_unavailable": "unavailable"}
_NAMELESS = "unknown"  # as Postfix writes it: the trace has the address beside it
_POSTMASTER = re.compile(rb" *(?:<postmaster>|postmaster)(?: |\Z)", re.I)  # needs no domain: RFC 5321 4.5.1
_STRANGE_HELO = re.compile(rb"[^A-Za-z0-9.:_\[\]-]")


def _helo(session: Session, argument: bytes) -> None:
    _greet(session, argument, extended=False)
    session.reply_idle(f"250 {session.rules.hostname}\r\n".encode())


def _ehlo(session: Session, argument: bytes) -> None:
    _greet(session, argument, extended=True)
    *first, last = session.site.extensions(session.client, session.wire.origin, tls=bool(session.wire.tls))
    session.reply_idle("".join([*(f"250-{line}\r\n" for line in first), f"250 {last}\r\n"]).encode())


def _greet(session: Session, argument: bytes, *, extended: bool) -> None:
    if not argument:
        session.helo = _NAMELESS  # some devices have no name and go on as though they had said one: Postfix takes it
        session.transaction = session.heard = None
        raise replies.syntax("EHLO hostname")
    session.helo = _STRANGE_HELO.sub(b"?", argument[:255]).decode("ascii")
    session.extended = extended
    session.transaction = session.heard = None
    session.spoilt = False


def _rset(session: Session, argument: bytes) -> None:
    if argument:
        raise replies.syntax("RSET")
    session.transaction = session.heard = None
    session.spoilt = False
    session.reply_idle(replies.OK)


def _vrfy(session: Session, argument: bytes) -> None:
    if not argument:
        raise replies.syntax("VRFY address")
    session.reply_idle(replies.CANNOT_VERIFY)


def _always(reply: bytes | replies.Reply) -> Verb:
    def verb(session: Session, _argument: bytes) -> None:
        if isinstance(reply, replies.Reply):
            raise reply()
        session.reply_idle(reply)

    return verb


def _quit(session: Session, _argument: bytes) -> None:
    session.wire.reply(replies.BYE)
    session.wire.closing = True


async def _starttls(session: Session, argument: bytes) -> None:
    if argument:
        raise replies.syntax("STARTTLS")
    if session.wire.tls:
        raise replies.sequence("TLS is already active")
    if session.site.certificate is None:
        raise replies.NOT_IMPLEMENTED()
    session.wire.reply(replies.READY_FOR_TLS)
    await session.secure()


async def _auth(session: Session, argument: bytes) -> None:
    site = session.site
    if not session.helo or session.logged_in or session.transaction:
        raise replies.sequence("AUTH comes once, after EHLO and before MAIL")
    if site.learning is not None:
        session.user = hearing.user_in(argument)
    if not site.knows_logins and not site.draws_out(session.wire.origin):
        raise replies.NOT_IMPLEMENTED()
    if not site.offers_login(session.wire.origin, tls=bool(session.wire.tls)):
        raise Refusal(538, "5.7.11", "Encryption required for authentication", "tls_required")
    name, _, initial = argument.partition(b" ")
    mechanism = name.decode("ascii", "replace").upper()
    if mechanism not in MECHANISMS:
        raise Refusal(504, "5.5.4", "Unrecognized authentication mechanism", "bad_syntax")

    async def challenge(text: bytes) -> bytes:
        return decode(await session.exchange(encode(text), b"AUTH"))

    user, password = await MECHANISMS[mechanism](decode(initial) if initial else None, challenge)
    rules = site.rules  # of now: a reload while the login is looked at ends it again
    try:
        session.client = await site.auth.login(user, password, session.wire.origin)
    except Refusal as error:
        refusal = error if isinstance(error, LoginRefused) else LoginRefused(error)
        session.user = refusal.user
        record = _login(session, refusal)
        site.events.login_refused(record, mechanism, _RESULTS.get(refusal.reason, "failed"))
        if site.learning is not None:
            site.learning.refused(record)
            if refusal.code == 535 and site.draws_out(session.wire.origin):
                session.wire.reply(replies.LOGGED_IN)  # and is no client for that: its mail is heard out
                return
        await _login_refused(session, mechanism, refusal, challenge)
        if refusal.guess:
            session.wrong_logins.add(refusal.guess)  # the same by another mechanism is no further guess
        if len(session.wrong_logins) >= _LOGINS:
            raise replies.TOO_MANY_LOGINS() from None
        return
    session.logged_in, session.rules = True, rules
    client = session.client
    if site.learning is not None:
        site.learning.logged_in(session.wire.peer, client.login)
    site.events.logged_in(site.name, mechanism, session.wire.peer, client=client.name, user=client.login)
    session.wire.reply(replies.LOGGED_IN)


def _login(session: Session, refusal: LoginRefused) -> Refused:
    wire = session.wire
    return Refused(
        listener=session.site.name, stage="auth", reason=refusal.reason, code=refusal.code, enhanced=refusal.enhanced,
        text=refusal.text, detail=refusal.detail, peer=wire.peer, helo=session.helo, tls=wire.tls,
        client=refusal.client, user=refusal.user,
    )  # fmt: skip


async def _login_refused(session: Session, mechanism: str, refusal: Refusal, challenge: Challenge) -> None:
    if refusal.code == 535 and mechanism in BEARER:
        # RFC 7628 3.2.3: we say why, the client answers something, only then comes the 535.
        try:
            await challenge(BEARER_REFUSED)
        except replies.LastRefusal:
            raise
        except Refusal:
            pass
    session.refuse(refusal)


def _mail(session: Session, argument: bytes) -> Awaitable[None] | None:
    session.said = argument
    if session.logged_in and session.client and session.site.auth.unsure(session.client):
        return _mail_when_sure(session, session.client, argument)
    _begin(session, argument)
    return None


async def _mail_when_sure(session: Session, client: Client, argument: bytes) -> None:
    """The issuer may have withdrawn the key behind the login: ask, once in five minutes for all sessions."""
    await session.site.auth.look_again(client)
    _begin(session, argument)


def _begin(session: Session, argument: bytes) -> None:
    if not session.helo and "missing_helo" in session.site.settings.tolerate:
        session.helo = _NAMELESS
    if not session.helo:
        raise replies.sequence("Send EHLO first")
    if session.transaction or session.heard:
        raise replies.sequence("Sender already given")
    if argument[:5].upper() != b"FROM:":
        raise replies.syntax("MAIL FROM:<address>")
    original, client = "", _known_client(session)
    if client.connections is not None:
        _count(session, client, client.connections)
    try:
        sender, rest = parse_path(argument[5:], utf8=True, domain=client.default_domain)
    except BadAddress as error:
        if client.rewrite is None:
            raise _misspelt(error, argument[5:], syntax="5.1.7") from None
        # "root" of a script, "DOMAIN\user" of a copier: what is no address is none that the client may send as.
        path = argument[5:].strip()
        sender, rest = client.rewrite.to, _behind(path)
        original = harmless(path.removesuffix(rest).strip(b" <>").decode("utf-8", "replace"), utf8=True)
    size, envelope = mail_parameters(rest, sender, original)
    transaction = Transaction(client, size, envelope, session.rules)
    if not transaction.sender.isascii() and not envelope.smtputf8:
        raise Refusal(553, "5.6.7", "Non-ASCII addresses need SMTPUTF8", "utf8_address")
    session.site.room.admit(size)  # RFC 1870 6.1: before the upload
    now = session.site.clock.monotonic()
    quotas = session.site.shared.quotas
    if client.quota is not None:
        quotas.look(client, session.wire.peer, envelope.sender, now)
    if client.rate and not quotas.allow(client, now):
        text = f'Client "{client.name}" sends faster than clients.{client.name}.rate allows, try again later'
        raise Refusal(450, "4.7.1", text, "rate_limited")
    session.transaction, session.spoilt = transaction, False
    session.wire.reply(replies.SENDER_OK)


def _count(session: Session, client: Client, most: int) -> None:
    """From the first mail on it is one of this client's connections. Raises LastRefusal for one too many."""
    if session.counted in (client.name, None):
        return
    connections = session.site.shared.quotas.connections
    if connections.of(client.name) >= most:
        raise replies.too_many_of(client)
    if session.counted:
        connections.add(session.counted, -1)
    connections.add(client.name, 1)
    session.counted = client.name


def _behind(path: bytes) -> bytes:
    """The parameters behind what is no address. Without brackets its end is where the first one begins that we know."""
    if path.startswith(b"<") and b">" in path:
        return path.partition(b">")[2].strip()
    words = path.split()
    start = next((n for n, word in enumerate(words) if n and is_mail_parameter(word)), len(words))
    return b" ".join(words[start:])


def _misspelt(error: BadAddress, sent: bytes, *, syntax: str) -> Refusal:
    """Quotes what was sent, for whoever looks for it in a log. RFC 3463 has two codes for ``syntax``."""
    refusal = replies.refusal_of(error)
    shown = harmless(sent.decode("utf-8", "replace").strip(), utf8=True)
    enhanced = syntax if error.kind == "syntax" else refusal.enhanced
    return Refusal(refusal.code, enhanced, f"{refusal.text}: {shown}", refusal.reason)


def _known_client(session: Session) -> Client:
    """Who is sending, as of now: settings may have been reloaded, a token revoked. Raises Refusal."""
    site = session.site
    if session.rules is not site.rules:
        if session.logged_in and session.rules.clients != site.rules.clients:
            raise replies.RELOADED()
        session.rules = site.rules
        if not session.logged_in:
            session.client = site.by_network(session.wire.origin)
    if session.client is None:
        raise site.stranger(session.wire.origin, tls=bool(session.wire.tls))
    try:
        valid = site.auth.still_valid(session.client)
    except CannotTell:
        text = "Whether your login is still good cannot be told now, try again later"
        raise Refusal(451, "4.7.0", text, "auth_unavailable") from None
    if not valid:
        session.client, session.logged_in = site.by_network(session.wire.origin), False
        raise Refusal(530, "5.7.0", "Your login is no longer valid, log in again", "token_expired")
    return session.client


def _rcpt(session: Session, argument: bytes) -> None:
    transaction = session.transaction
    if transaction is None:
        _rcpt_heard(session, argument)
        return
    if argument[:3].upper() != b"TO:":
        raise replies.syntax("RCPT TO:<address>")
    utf8 = transaction.asked.smtputf8
    try:
        session.recipient, rest = parse_path(argument[3:], utf8=utf8, domain=transaction.completes)
        if bare := is_bare(session.recipient):
            session.recipient = transaction.whole(session.recipient)
    except BadAddress as error:
        if not (match := _POSTMASTER.match(argument, 3)):
            raise _misspelt(error, argument[3:], syntax="5.1.3") from None
        session.recipient, rest = f"postmaster@{session.rules.hostname}", argument[match.end() :]
        bare = True
    if not session.recipient:
        raise Refusal(501, "5.1.3", "A recipient is needed", "bad_address")
    if transaction.client.quota is not None:
        more, now = len(transaction.recipients) + 1, session.site.clock.monotonic()
        sender = transaction.asked.sender
        session.site.shared.quotas.look(transaction.client, session.wire.peer, sender, now, recipients=more)
    if not transaction.add(session.recipient, *rcpt_parameters(rest, utf8=utf8), bare=bare):
        session.patience -= 0.1
    session.wire.reply(replies.RECIPIENT_OK)


def _rcpt_heard(session: Session, argument: bytes) -> None:
    if session.heard is None:
        raise replies.sequence("Send MAIL first")
    address = session.heard.add(argument)
    if session.site.learning is not None:
        session.site.learning.recipient(session.wire.peer, address)
    session.wire.reply(replies.RECIPIENT_OK)


def _data(session: Session, argument: bytes) -> None:
    transaction, tolerate = session.transaction or session.heard, session.site.settings.tolerate
    if argument:
        raise replies.syntax("DATA")
    if transaction is None:
        raise replies.sequence("Send MAIL first")
    if not transaction.recipients:
        raise Refusal(554, "5.5.1", "No valid recipients", "bad_sequence")
    max_line = LONG_LINE if "long_lines" in tolerate else LINE
    reader = DataReader(
        transaction.limit,
        transaction.too_big,
        max_line=max_line,
        bare_newlines="bare_newlines" in tolerate,
        # Not from just anybody, as Postfix excepts only mynetworks (smtpd_forbid_bare_newline_exclusions).
        lf_only=session.wire.lf_only and not _of_anybody(session),
    )
    declared = min(transaction.size, transaction.limit)
    site, limits, now = session.site, session.rules.limits, session.site.clock.monotonic()
    incoming = Incoming(reader, site.shared, site.room, limits, peer=session.wire.peer, declared=declared, now=now)
    session.wire.reply(replies.SEND_DATA)
    session.wire.flush()
    session.wire.receive(incoming)


def _of_anybody(session: Session) -> bool:
    transaction = session.transaction
    return transaction is not None and session.rules.clients[transaction.client.name].open_relay


VERBS: dict[bytes, Verb] = {
    b"HELO": _helo,
    b"EHLO": _ehlo,
    b"MAIL": _mail,
    b"RCPT": _rcpt,
    b"DATA": _data,
    b"NOOP": _always(replies.OK),
    b"RSET": _rset,
    b"QUIT": _quit,
    b"VRFY": _vrfy,
    b"EXPN": _always(replies.NOT_IMPLEMENTED),
    b"HELP": _always(replies.HELP),
    b"BDAT": _always(replies.NO_CHUNKING),  # its payload would be read as commands
    b"AUTH": _auth,
    b"STARTTLS": _starttls,
}
