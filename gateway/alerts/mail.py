"""Alerts as mail of our own, by a backend that is not the one they complain of, if any other can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from email.message import EmailMessage
from email.policy import SMTP

from gateway import intake
from gateway.alerts.notice import Notice
from gateway.config.models import Settings
from gateway.message import Arrival
from gateway.model import CannotCarry, Client, Envelope, Fault, NewMessage, Recipient, Refusal, SpoolTrouble
from gateway.policy import BOUNCES
from gateway.routing import Freight
from gateway.spool import Spool

_SIZE = 20_000  # bytes: no alert is longer


class Mail:
    """``works`` says of a backend whether it sends now. Such mail asks for no report (NOTIFY=NEVER)."""

    name = "mail"

    def __init__(
        self,
        settings: Settings,
        rules: intake.Rules,
        spool: Spool,
        ids: Callable[[], str],
        works: Callable[[str], bool],
    ) -> None:
        self._settings = settings
        self._rules = rules
        self._spool = spool
        self._ids = ids
        self._works = works

    async def tell(self, notice: Notice) -> str:
        try:
            message = self._message(notice)
            await self._spool.put(message)
        except (Fault, Refusal) as error:
            return error.text
        return ""

    def _message(self, notice: Notice) -> NewMessage:
        """By the first backend that can. Raises the last one's CannotCarry or Refusal where none can."""
        trouble: Fault | Refusal = CannotCarry("no_route", "5.7.1", "no backend can carry an alert to alerts.to")
        for name in self._ways(notice.backends):
            for sender in self._senders(name):
                try:
                    return self._by(name, sender, notice)
                except SpoolTrouble:
                    raise
                except (Fault, Refusal) as error:
                    trouble = error
        raise trouble

    def _ways(self, complained_of: frozenset[str]) -> Sequence[str]:
        """Those of the routes first, then any; who works before who does not, and last what the alert complains of."""
        routing, to = self._rules.routing, self._settings.alerts.to
        freight = Freight(client=BOUNCES, sender=self._own(), size=_SIZE, pin=self._settings.bounces.backend or "")
        routed = [name for address in to for name in routing.backends(freight, address)]
        anyone = [name for name, section in self._settings.backends.items() if section.type != "capture"]
        names = list(dict.fromkeys([*routed, *anyone]))
        return sorted(names, key=lambda name: (name in complained_of, not self._works(name), names.index(name)))

    def _own(self) -> str:
        return self._settings.alerts.sender or self._settings.bounces.sender or f"postmaster@{self._settings.hostname}"

    def _senders(self, backend: str) -> Iterator[str]:
        """As what it may leave: what the settings say; without that, what this backend sends as."""
        yield self._own()
        able = self._rules.routing.capabilities.get(backend)
        if able and not self._settings.alerts.sender:
            yield from (address for address in able.senders if "*" not in address and "@" in address)

    def _by(self, backend: str, sender: str, notice: Notice) -> NewMessage:
        identifier = self._ids()
        mail = EmailMessage(policy=SMTP)
        mail["From"], mail["To"] = f"gateway <{sender}>", ", ".join(self._settings.alerts.to)
        mail["Subject"] = f"[{self._settings.hostname}] {_line(notice.subject)}"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834 5
        mail["X-Auto-Response-Suppress"] = "All"
        mail.set_content(notice.text().encode("utf-8", "replace").decode(), cte="quoted-printable")
        envelope = Envelope(sender, tuple(Recipient(address, notify="NEVER") for address in self._settings.alerts.to))
        arrival = Arrival(identifier, notice.at, listener="", peer="", helo="", protocol="local")
        who = Client(name=BOUNCES, backend=backend)
        return intake.prepare(mail.as_bytes(), envelope, who, arrival, self._rules)


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:150]
