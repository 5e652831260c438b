"""For APIs that take subject, bodies and addresses instead of MIME: what of a message they get, and the way to send it.

The door refuses what such an API cannot carry. Each send judges the same again: settings may have changed since.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from gateway.address import comparable
from gateway.backends.shared.base import CHARSETS, PIECE, Charset, Context, NoAnswer, Url, limited, unrecorded
from gateway.backends.shared.calls import Call, Plan, carry_out
from gateway.backends.shared.http import exchange, judge, start_of
from gateway.backends.shared.over_http import OverHttpSettings
from gateway.backends.shared.probe import Probes
from gateway.backends.shared.table import Row
from gateway.checks import Check, unreached, untried
from gateway.config import values
from gateway.fetch import Answer
from gateway.message import FEATURES, Header, Undecodable, leaf_text, scan, split_recipients, walk
from gateway.message.text import surely
from gateway.model import CannotCarry, Capabilities, Outcome, Progress, Recipient, Scope, SpooledMessage, Verdict
from gateway.pools import SMALL_MAIL
from gateway.routing import Freight, obstacle
from gateway.strangers import lenient_json

MAX_BYTES = 10_000_000  # none of these APIs documents a limit
PER_CALL = 100
_HEADERS = ("headers", "threading")
BLANKS = ("no_subject", "no_text")
# What a bounce of ours is made of besides its text, which says all of it to a person.
_OF_BOUNCES = ("report", "attachments", "attached_message")
_SPECIALS = re.compile(r"""[<>,;:"\\()\[\]]""")
_LEFT = (Verdict.SENT, Verdict.IN_DOUBT)
_ACCOUNT = Row((402,), Verdict.MISCONFIGURED, "4.7.0")
_ELSEWHERE = "route this client to another backend"
WHERE = "check base_url of backends.{name}"

UNTRIED = untried("Whether the account may send as your From addresses, and what is left of its plan")


class PartsSettings(OverHttpSettings):
    """``senders``: From addresses that the account may send as, () is any.

    ``inline_images`` and ``unsupported_headers``: mail with such is rejected, or goes without, which is logged.
    ``default_charset`` is what 8-bit text is in that names nothing and is not UTF-8; without it such mail is rejected.
    """

    base_url: Url
    senders: tuple[values.Pattern, ...] = ()
    inline_images: Literal["reject", "drop"] = "reject"
    unsupported_headers: Literal["reject", "drop"] = "reject"
    default_charset: Charset = ""

    @property
    def known_as(self) -> Mapping[str, str]:
        return {"host": urlsplit(self.base_url).hostname or self.base_url}


@dataclass(frozen=True, slots=True)
class Parts:
    """What is left of a message. ``bodies`` has "text" and "html" as JSON. ``lost`` is what the settings let go."""

    header: Header
    author: str
    name: str
    subject: str
    bodies: Mapping[str, bytes]
    reply_to: str
    lost: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Group:
    """Recipients of one call. ``mask`` says which they are of those that belong to group ``number``: ``bits`` of each.

    A call in doubt keeps its mask when some of those who were in it are settled.
    """

    number: int
    mask: int
    bits: Mapping[str, int]
    to: tuple[str, ...]
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        return self.to + self.cc + self.bcc

    def part(self, some: Collection[str]) -> Iterator[Group]:
        """For these of its recipients: blind ones go with visible ones, or each alone."""
        seen, copied, blind = (tuple(one for one in named if one in some) for named in (self.to, self.cc, self.bcc))
        if seen or copied:
            people = (*seen, *copied, *blind)
            mask = self.mask if len(people) == len(self.addresses) else sum(self.bits[one] for one in people)
            yield Group(self.number, mask, self.bits, seen or copied, copied if seen else (), blind)
        else:
            yield from (Group(self.number, self.bits[address], self.bits, (address,)) for address in blind)


def single(found: Sequence[str], what: str) -> str:
    """The one address there is, or "". Raises CannotCarry where an API that takes one would lose the others."""
    if len(set(map(comparable, found))) > 1:
        raise CannotCarry("feature", "5.6.3", f"more than one {what} cannot be sent through this API")
    return found[0] if found else ""


def read(
    message: SpooledMessage, raw: bytes, name: str, able: Capabilities, carries: frozenset[str], charset: str = ""
) -> Parts:
    """Raises the CannotCarry that the door would hear. ``charset`` is that of text that names none."""
    header, content = scan(raw), walk(raw)
    authors = header.addresses("from")
    author = single(authors, "From address") or message.header_from or message.envelope.sender
    ascii_only = all(one.isascii() for one in (author, *(each.address for each in message.envelope.recipients)))
    # Bounces of ours have fields of their own, as everybody's, and must get through all the same.
    features = {name: where for name, where in content.features.items() if not (message.bounce and name in _HEADERS)}
    spared = _OF_BOUNCES if message.bounce else ()
    freight = Freight(
        client=message.client,
        sender=message.envelope.sender,
        size=len(raw),
        smtputf8=not ascii_only,
        authors=(author,),
        features={name: where for name, where in features.items() if name not in spared},
        own_token=True,  # what it is worth, its provider says
    )
    if why := obstacle(name, able, freight):
        raise why
    bodies = {"text": content.text, "html": content.html}
    try:
        subject = surely(header.value("subject"), charset)
        texts = {kind: quoted(leaf_text(raw, leaf, charset)) for kind, leaf in bodies.items() if leaf}
    except Undecodable as error:  # charset was given, and is not what it is in
        raise CannotCarry("feature", "5.6.3", f"the text {error}") from None
    reply_to = content.reply_to if "reply_to" in features else ()
    return Parts(
        header=header,
        author=author,
        name=display_names(header, "from", charset=charset).get(comparable(author), ""),
        subject=subject,
        bodies=texts or {"text": b'""'},
        reply_to=single(reply_to, "Reply-To address") if "reply_to" in carries else "",
        lost={feature: where for feature, where in features.items() if feature not in carries},
    )


def display_names(header: Header, *fields: str, charset: str = "") -> dict[str, str]:
    """Names by comparable address; an address goes without a name that cannot be made out."""
    boxes = [box for field in fields for box in header.mailboxes(field) if len(box.addresses) == 1]
    return {comparable(box.addresses[0]): _name(box.phrase, charset) for box in reversed(boxes) if box.phrase}


def _name(phrase: bytes, charset: str) -> str:
    """Without what has a meaning in an address field: the Worker of temp_mail writes ``NAME <ADDRESS>``, unquoted."""
    try:
        name = surely(phrase, charset)
    except Undecodable:
        return ""
    return "" if "@" in name else " ".join(_SPECIALS.sub(" ", name).split())


def quoted(text: str) -> bytes:
    """A JSON string, made in steps that do not hold up the loop."""
    ascii_only = text.isascii()  # then it comes to the same, and twice as quick
    pieces = (json.dumps(text[at : at + PIECE], ensure_ascii=ascii_only)[1:-1] for at in range(0, len(text), PIECE))
    return b"".join((b'"', *(piece.encode("utf-8", "replace") for piece in pieces), b'"'))


def request(fields: Mapping[str, object], bodies: Mapping[str, bytes]) -> bytes:
    """A JSON object of ``fields``, which are not empty, and of ``bodies``, which are JSON already."""
    more = (b',"%b":%b' % (name.encode(), body) for name, body in bodies.items())
    return b"".join((json.dumps(fields)[:-1].encode(), *more, b"}"))


def filled(fields: Mapping[str, object]) -> dict[str, object]:
    """Those that say something: the APIs refuse the others."""
    return {name: value for name, value in fields.items() if value}


def groups(message: SpooledMessage, header: Header, doubt: tuple[int, int] | None = None) -> Iterator[Group]:
    """The calls for an API with lists. Blind recipients go with visible ones, or each alone.

    Who goes with whom depends on the whole envelope and not on the attempt, so that a repeated call is the same call.
    ``doubt`` is number and mask of one that may have been taken, and a crash may have cut off all those for
    ``message.interrupted``: nobody else is put into these.
    """
    pending = {recipient.address for recipient in message.envelope.recipients}
    whole = dict.fromkeys((*message.everyone, *(recipient.address for recipient in message.envelope.recipients)))
    split = split_recipients(header, replace(message.envelope, recipients=tuple(map(Recipient, whole))))
    in_to = set(map(comparable, header.addresses("to")))
    to = [address for address in split.visible if comparable(address) in in_to]
    cc = [address for address in split.visible if comparable(address) not in in_to]
    everyone = (*to, *cc, *split.blind)
    first = {comparable(address): address for address in reversed(everyone)}
    together = [address for address in everyone if first[comparable(address)] == address]
    fixed = [together[start : start + PER_CALL] for start in range(0, len(together), PER_CALL)]
    # Two spellings of one mailbox: a provider could take them for one.
    fixed += [[address] for address in everyone if first[comparable(address)] != address]
    field = dict.fromkeys(to, "to") | dict.fromkeys(cc, "cc")
    for number, members in enumerate(fixed):
        bits = {address: 1 << bit for bit, address in enumerate(members) if address in pending}
        known = doubt[1] if doubt and doubt[0] == number else 0
        known = known or sum(bit for address, bit in bits.items() if address in message.interrupted)
        for mask in (known, sum(bits.values()) & ~known):
            some = [address for address, bit in bits.items() if bit & mask]
            named = (tuple(one for one in some if field.get(one, "") == name) for name in ("to", "cc", ""))
            yield from Group(number, mask, bits, *named).part(some)


class PartsBackend(ABC):
    """A kind of API adds which ``calls`` a message takes and how one is made (``_call``), ``said`` and ``rows``."""

    rows: ClassVar[Sequence[Row]] = ()
    otherwise: ClassVar[str] = _ELSEWHERE  # what else helps against lost header fields

    def __init__(
        self,
        name: str,
        settings: PartsSettings,
        context: Context,
        *,
        headers: Mapping[str, str],
        secrets: Sequence[str],
        carries: Collection[str],
        drops: Collection[str] = (),
    ) -> None:
        """``carries`` are the features that the API conveys. ``drops`` are lost, which is logged; others refused."""
        self.name = name
        self._charset = settings.default_charset
        self._carries = frozenset((*carries, *(("no_charset",) if self._charset else ())))
        self._url, self._headers, self._secrets = settings.base_url, headers, tuple(secrets)
        self._timeout, self._context = settings.timeout, context
        dropped = {*drops, *(("inline_images",) if settings.inline_images == "drop" else ())}
        dropped |= set(_HEADERS) if settings.unsupported_headers == "drop" else set()
        remedies = CHARSETS | dict.fromkeys(
            _HEADERS, f"set unsupported_headers: drop on backends.{{name}}, or {self.otherwise}"
        )
        remedies["inline_images"] = f"set inline_images: drop on backends.{{name}}, or {_ELSEWHERE}"
        remedies["no_subject"] = "set empty_subject: fill on backends.{name}"
        own = Capabilities(
            MAX_BYTES,
            null_sender=False,
            smtputf8=False,
            quoted=False,  # they are JavaScript over libraries that read an address as text
            senders=settings.senders,
            lacks=FEATURES - self._carries - dropped,
            remedies=remedies,
        )
        self.capabilities = limited(own, settings)

    async def send(self, message: SpooledMessage, raw: bytes, progress: Progress = unrecorded) -> dict[str, Outcome]:
        lost: dict[str, str] = {}

        def planned() -> Plan:
            parts = read(message, raw, self.name, self.capabilities, self._carries, self._charset)
            lost.update(parts.lost)
            return Plan(tuple(self.calls(message, parts)))

        clock, slow = self._context.clock, len(raw) > SMALL_MAIL
        outcomes = await carry_out(message, planned, partial(self._call, message), clock, progress, slow=slow)
        for feature, where in lost.items() if any(one.verdict in _LEFT for one in outcomes.values()) else ():
            self._context.signals.warning("dropped", id=message.id, backend=self.name, what=f"{feature}: {where}")
        return outcomes

    def probes(self) -> Probes:
        """Neither permissions nor records can be asked there."""
        return Probes((self._url,))

    async def aclose(self) -> None:  # noqa: B027 - most have nothing to close
        pass

    @abstractmethod
    def calls(self, message: SpooledMessage, parts: Parts) -> Iterable[Call]:
        """Raises CannotCarry when the message cannot go."""

    def said(self, body: Mapping[str, Any]) -> tuple[str, str]:
        """Error code and words."""
        return str(body.get("error") or ""), str(body.get("message") or "")

    @abstractmethod
    async def _call(self, message: SpooledMessage, call: Call) -> dict[str, Outcome]:
        """An outcome for each of the call. Raises NoAnswer."""

    async def _request(
        self, method: str, path: str, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Raises NoAnswer."""
        fetch, sent, timeout = self._context.fetch, {**self._headers, **(headers or {})}, self._timeout
        return await exchange(fetch, self._url + path, headers=sent, content=content, timeout=timeout, method=method)

    def _words(self, answer: Answer) -> tuple[str, str]:
        code, words = self.said(lenient_json(answer.body))
        return code, words or start_of(answer)

    def _refused(self, answer: Answer, rows: Sequence[Row], *secrets: str) -> Outcome:
        (code, words), now, hidden = self._words(answer), self._context.clock.now(), (*secrets, *self._secrets)
        outcome = judge(answer, (*rows, _ACCOUNT), name=self.name, code=code, words=words, now=now, secrets=hidden)
        if outcome.verdict is Verdict.REJECTED and answer.status != 413 and not answer.body.strip():
            # These APIs say why. What says nothing stands between.
            return replace(outcome, verdict=Verdict.DEFERRED, enhanced="4.4.0", scope=Scope.MESSAGE)
        return outcome

    def _unreachable(self, error: NoAnswer) -> Check:
        detail, fix = error.outcome.detail, f"{WHERE.format(name=self.name)}, and the way there"
        return Check(False, detail, fix, {"url": self._url}, (unreached(self._url, detail), UNTRIED))
