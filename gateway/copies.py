"""Copies that the settings want of a client's or a route's mail (copy_to): one more recipient whom nobody sees.

His trouble is nobody else's: no sender hears of it (NOTIFY=NEVER, as Postfix has always_bcc), and where no backend can
take the copy, the mail goes to all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.address import comparable
from gateway.model import CannotCarry, Client, Outcome, Recipient, Scope, Verdict
from gateway.rewritten import Rewritten
from gateway.routing import Freight, Routing


@dataclass(frozen=True, slots=True)
class Copies:
    """``refused`` are those that no backend can carry; by which one the others go."""

    recipients: tuple[Recipient, ...]
    rewritten: tuple[Rewritten, ...]
    refused: Mapping[str, Outcome] = field(default_factory=dict)
    backends: Mapping[str, str] = field(default_factory=dict)

    def beside(self, deliveries: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        """The deliveries of the message with these."""
        made = dict(deliveries)
        for address, backend in self.backends.items():
            made[backend] = (*made.get(backend, ()), address)
        return made


def copies(client: Client, routing: Routing, freight: Freight, addresses: Sequence[str]) -> Copies:
    """Of a message to these. Who is among them gets it anyway, and each other one a single copy."""
    known = {comparable(address) for address in addresses}
    wanted: dict[str, Rewritten] = {}
    asked = [(to, f"clients.{client.name}.copy_to") for to in client.copy_to]
    for number in dict.fromkeys(routing.line(freight, address) for address in addresses) if routing.copies else ():
        asked += [(to, f"line {number} of routes") for to in (routing.routes[number - 1].copy_to if number else ())]
    for to, by in asked:
        if comparable(to) not in known:
            wanted.setdefault(comparable(to), Rewritten("", (to,), "copy", by))
    refused, backends = dict[str, Outcome](), dict[str, str]()
    for one in wanted.values():
        (to,) = one.became
        try:
            backends[to] = routing.usable(freight, to)[0]
        except CannotCarry as no:
            refused[to] = Outcome(Verdict.REJECTED, enhanced=no.enhanced, detail=no.text, scope=Scope.RECIPIENT)
    return Copies(
        tuple(Recipient(to, "NEVER") for one in wanted.values() for to in one.became),
        tuple(wanted.values()),
        refused,
        backends,
    )
