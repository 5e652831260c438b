"""Who gets what is for an address: he himself, whom an alias names, or the one who gets all of a client's mail."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gateway.address import comparable, domain_of
from gateway.config.aliases import Aliases
from gateway.model import Client, Recipient, Refusal
from gateway.policy import check_recipient
from gateway.rewritten import Rewritten

_DEFAULT = {"FAILURE", "DELAY"}  # what no NOTIFY means (RFC 3461 4.1)
_WORDS = ("SUCCESS", "FAILURE", "DELAY")


def becomes(client: Client, aliases: Aliases | None, address: str, *, bare: bool) -> Rewritten | None:
    """None: he gets it himself. ``bare``: it came without a domain."""
    if client.redirect_to:
        to = client.redirect_to
        by = f"clients.{client.name}.redirect_to"
        return None if comparable(to) == comparable(address) else Rewritten(address, (to,), "redirect", by)
    found = aliases.becomes(address, bare=bare) if aliases is not None else ()
    if not found or (len(found) == 1 and comparable(found[0]) == comparable(address)):
        return None
    return Rewritten(address, found, "alias", "aliases")


def check(client: Client, address: str, instead: Rewritten | None) -> None:
    """Whether the client may send to it: what was asked for decides. Raises Refusal 550.

    But names that are aliases lead only where the operator wants: who may send to all of these may send to it.
    """
    try:
        check_recipient(client, address)
    except Refusal:
        if instead is None or instead.why != "alias" or not all(_may(client, one) for one in instead.became):
            raise


def _may(client: Client, address: str) -> bool:
    try:
        check_recipient(client, address)
    except Refusal:
        return False
    return True


def key(address: str) -> tuple[str, str]:
    """The local part is its host's business: RFC 5321 2.4."""
    return address.rpartition("@")[0], domain_of(address)


@dataclass(slots=True)
class Whom:
    """Recipients as they will stand in the envelope, each once, and what became of those that were asked for."""

    recipients: list[Recipient] = field(default_factory=list)
    rewritten: list[Rewritten] = field(default_factory=list)
    _places: dict[tuple[str, str], int] = field(default_factory=dict)
    _instead: set[int] = field(default_factory=set)

    def add(self, asked: Recipient, instead: Rewritten | None) -> None:
        if instead is None:
            self._put(asked, asked)
            return
        self.rewritten.append(instead)
        # RFC 3461 5.2.7: whoever gets it instead gets the request, and the address that was asked for, too.
        orcpt = asked.orcpt or _xtext(asked.address)
        for address in instead.became:
            self._put(Recipient(address, asked.notify, orcpt), asked)

    def _put(self, one: Recipient, asked: Recipient) -> None:
        place = self._places.setdefault(key(one.address), len(self.recipients))
        if place == len(self.recipients):
            self.recipients.append(one)
            if one is not asked:
                self._instead.add(place)
            return
        there = self.recipients[place]
        spelled = there
        if one is asked and place in self._instead:  # who was asked for himself is no one else
            self._instead.discard(place)
            spelled = one
        same = one.orcpt == there.orcpt
        orcpt = spelled.orcpt if same or place not in self._instead else ""  # one address cannot speak for two
        self.recipients[place] = replace(spelled, notify=_both(there.notify, one.notify), orcpt=orcpt)


def _both(one: str, other: str) -> str:
    """What two that were asked for want to hear, of whom one gets the mail."""
    if one == other:
        return one
    wanted = {*_heard(one), *_heard(other)}
    if wanted == _DEFAULT:
        return ""
    return ",".join(word for word in _WORDS if word in wanted) or "NEVER"


def _heard(notify: str) -> set[str]:
    return (set(notify.split(",")) if notify else _DEFAULT) - {"NEVER"}


def _xtext(address: str) -> str:
    """An original recipient (RFC 3461 4.2); "" for what needs RFC 6533, which few know."""
    if not address.isascii():
        return ""
    return "rfc822;" + "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in address)
