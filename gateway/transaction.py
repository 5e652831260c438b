"""What MAIL and RCPT say, checked against what the client may do. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.address import parse_address
from gateway.intake import Rules
from gateway.model import BadAddress, Client, Envelope, Recipient, Refusal
from gateway.policy import allowed, check_recipient, check_sender
from gateway.rewritten import Rewritten
from gateway.routing import Freight
from gateway.whom import Whom, becomes, check, key


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
        self.recipients: list[Recipient] = []  # who will stand in the envelope
        self._known: set[tuple[str, str]] = set()
        # Who is rewritten at all: most clients are not, and then nothing of this costs anything.
        self._whom = Whom(self.recipients) if rules.aliases is not None or client.redirect_to else None
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

    @property
    def completes(self) -> str | None:
        """The domain of names that have none, "" for nobody's; None: ``whole`` says."""
        return self.client.default_domain if self._rules.aliases is None else None

    def whole(self, name: str) -> str:
        """A recipient's name without a domain, as an address. Raises BadAddress where it is nobody's."""
        if self.client.default_domain:
            return parse_address(f"{name}@{self.client.default_domain}")
        if self._rules.aliases is not None and self._rules.aliases.knows(name):
            return parse_address(f"{name}@{self._rules.hostname}")
        raise BadAddress("The address needs a domain, write user@example.com", "syntax")

    @property
    def rewritten(self) -> Sequence[Rewritten]:
        """What became of those that were asked for, as far as it is somebody else."""
        return self._whom.rewritten if self._whom is not None else ()

    def add(self, address: str, notify: str, orcpt: str, *, bare: bool = False) -> bool:
        """One more recipient; False for one known already (its domain may be spelled otherwise).

        ``bare``: it came without a domain. Raises Refusal, CannotCarry.
        """
        client, whom = self.client, self._whom
        known = key(address)
        if known in self._known:
            return False
        instead = becomes(client, self._rules.aliases, address, bare=bare) if whom is not None else None
        if instead is None:
            check_recipient(client, address)
        else:
            check(client, address, instead)
        if len(self._known) >= self._most:
            raise Refusal(452, "4.5.3", f"At most {self._most} recipients in one message", "too_many_recipients")
        freight = Freight(
            client=client.name,
            sender=self.sender,
            size=self.size,
            pin=client.backend,
            smtputf8=not ((address.isascii() or instead is not None) and self.sender.isascii()),
            own_token=bool(client.secret),
        )
        for one in (address,) if instead is None else instead.became:
            self._rules.routing.usable(freight, one)
        self._known.add(known)
        if whom is None:
            self.recipients.append(Recipient(address, notify, orcpt))
        else:
            whom.add(Recipient(address, notify, orcpt), instead)
        return True

    def envelope(self) -> Envelope:
        """``recipients`` is empty while none was accepted."""
        asked = self.asked
        return Envelope(
            self.sender, tuple(self.recipients), asked.smtputf8, asked.eightbit, asked.ret, asked.envid, self._original
        )
