"""What MAIL and RCPT say, checked against what the client may do. No I/O, no clock."""

from __future__ import annotations

from gateway.address import domain_of
from gateway.intake import Rules
from gateway.model import Client, Envelope, Recipient, Refusal
from gateway.policy import allowed, check_recipient, check_sender
from gateway.routing import Freight


class Transaction:
    """From MAIL, which asked for this ``size`` (octets) and envelope, to the end of DATA.

    ``limit`` is the size a message of this client may have.
    """

    def __init__(self, client: Client, size: int, asked: Envelope, rules: Rules) -> None:
        self.client = client
        self.size = size
        self.asked = asked
        self.limit, self._why = rules.routing.largest(client, rules.limits.max_size)
        self.sender = sender = asked.sender
        self._original = asked.original
        self._rules = rules
        self._most = min(rules.limits.max_recipients, client.max_recipients or rules.limits.max_recipients)
        self.recipients: list[Recipient] = []
        self._known: set[tuple[str, str]] = set()
        if sender and client.rewrite and (client.rewrite.always or not allowed(client.senders, sender)):
            self.sender = client.rewrite.to
            self._original = self._original or (sender if sender != self.sender else "")
        elif sender:
            check_sender(client, sender, (sender,))
        if size > self.limit:
            raise self.too_big()

    def too_big(self) -> Refusal:
        """The reply to a larger message."""
        text = f"Message is larger than the {self.limit} octets allowed here{self._why}"
        return Refusal(552, "5.3.4", text, "too_big")

    def add(self, address: str, notify: str, orcpt: str) -> bool:
        """One more recipient; False for one known already (its domain may be spelled otherwise).

        Raises Refusal, CannotCarry.
        """
        client = self.client
        key = (address.rpartition("@")[0], domain_of(address))  # the local part is its host's business: RFC 5321 2.4
        if key in self._known:
            return False
        check_recipient(client, address)
        if len(self.recipients) >= self._most:
            raise Refusal(452, "4.5.3", f"At most {self._most} recipients in one message", "too_many_recipients")
        freight = Freight(
            client=client.name,
            sender=self.sender,
            size=self.size,
            pin=client.backend,
            smtputf8=not (address.isascii() and self.sender.isascii()),
            own_token=bool(client.secret),
        )
        self._rules.routing.usable(freight, address)
        self._known.add(key)
        self.recipients.append(Recipient(address, notify, orcpt))
        return True

    def envelope(self) -> Envelope:
        """``recipients`` is empty while none was accepted."""
        asked = self.asked
        return Envelope(
            self.sender, tuple(self.recipients), asked.smtputf8, asked.eightbit, asked.ret, asked.envid, self._original
        )
