"""From what was seen to a ``clients`` section that lets that in and nothing else. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, collapse_addresses, ip_network

from gateway.address import domain_of
from gateway.config.models import ClientSettings, Settings
from gateway.learn.book import is_public_peer
from gateway.learn.habits import FOR_WHOM, FREE_MAIL, Habits, habits
from gateway.learn.seen import Seen
from gateway.model import Network
from gateway.networks import plain_address, prefix_length

_MANY = 5  # neighbours: worth a word about their /24
_TIMES = 3  # the busiest minute, as a rate
_LEAST = 10  # mails a minute that anybody gets
_NAMELESS = re.compile(r"localhost|unknown|localdomain|mail|smtp|\[.*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """A client to write down. ``recipients`` or ``senders`` None: any, and ``open`` says why."""

    name: str
    peers: tuple[str, ...]
    networks: tuple[str, ...]
    senders: tuple[str, ...] | None
    recipients: tuple[str, ...] | None
    default_domain: str = ""
    rate: str = ""
    max_size: str = ""
    about: tuple[str, ...] = ()
    open: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """``clients`` to let in; ``doubtful`` ones for a person to decide, with why; ``kept`` are the clients that hold
    now without a section; ``changes`` what those in the settings lack, ``hints`` what listeners need, ``served`` who
    gets through as it is, ``others`` who sent nothing that could be let in, ``unseen`` what was not to be seen."""

    clients: tuple[Proposed, ...] = ()
    doubtful: tuple[tuple[str, Proposed], ...] = ()
    kept: Mapping[str, ClientSettings] = field(default_factory=dict)
    changes: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    served: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


def propose(seen: Iterable[Seen], left_out: int, settings: Settings) -> Proposal:
    """``left_out`` counts connections for which there was no place."""
    by_peer: dict[str, list[Seen]] = defaultdict(list)
    for one in seen:
        by_peer[str(_address(one.peer))].append(one)
    domain = home_domain(settings)
    known = [habits(peer, by_peer[peer], domain) for peer in sorted(by_peer, key=_in_order)]
    strange: list[Habits] = []
    changes, served, others = list[str](), list[str](), list[str]()
    for each in known:
        client = _client_of(each.peer, settings.clients)
        if client and each.reasons & FOR_WHOM:
            changes += _changes(each, client, settings.clients[client])
        elif client or (each.accepted and not each.reasons & FOR_WHOM):
            served += [f"{each.peer}: {', '.join(sorted(each.clients)) or client}"]
        elif not each.mails or (is_public_peer(each.peer) and not each.accepted and not each.heard):
            others += [f"{each.peer}: {_nothing(each)}"]
        else:
            strange.append(each)
    taken = set(settings.clients)
    clients = [_proposed(group, taken, settings) for group in _groups(one for one in strange if not one.doubt)]
    doubtful = [(one.doubt, _proposed([one], taken, settings)) for one in strange if one.doubt]
    return Proposal(
        clients=tuple(clients), doubtful=tuple(doubtful), kept=_kept(settings), changes=tuple(changes),
        hints=tuple(dict.fromkeys(hint for one in known for each in one.seen for hint in hints(each, settings))),
        served=tuple(served), others=tuple(others), unseen=tuple(_unseen(known, left_out)),
    )  # fmt: skip


def home_domain(settings: Settings) -> str:
    """What completes a name without a domain where nothing says so."""
    above = settings.hostname.partition(".")[2]
    return settings.default_domain or (above if "." in above else settings.hostname)


def _address(peer: str) -> object:
    try:
        return plain_address(peer)
    except ValueError:
        return peer


def _in_order(peer: str) -> tuple[int, int]:
    address = plain_address(peer)
    return address.version, int(address)


def _client_of(peer: str, clients: Mapping[str, ClientSettings]) -> str:
    lengths = {name: prefix_length(one.networks, peer) for name, one in clients.items() if not one.logs_in}
    name = max(lengths, key=lengths.__getitem__, default="")
    return name if name and lengths[name] >= 0 else ""


def _kept(settings: Settings) -> Mapping[str, ClientSettings]:
    """The two that there are without a section: one that is pasted would take their place."""
    default = {
        "localhost": ClientSettings(networks=(ip_network("127.0.0.0/8"), ip_network("::1/128"))),
        "tokens": ClientSettings(token="*"),  # noqa: S106 - a pattern
    }
    return default if dict(settings.clients) == default else {}


def _groups(strange: Iterable[Habits]) -> list[list[Habits]]:
    """Those that do the same: senders, recipients and what is open."""
    found: dict[object, list[Habits]] = defaultdict(list)
    for one in strange:
        found[one.senders, one.recipients, one.default_domain, one.open, one.unfit].append(one)
    return list(found.values())


def _proposed(group: Sequence[Habits], taken: set[str], settings: Settings) -> Proposed:
    first = group[0]
    rate = max(_LEAST, _TIMES * sum(one.per_minute for one in group))
    largest = max(one.largest for one in group)
    size = -(-2 * largest // 1_000_000) * 1_000_000
    name = _name(group, taken)
    taken.add(name)
    open_ends = [*first.open, *_forged(first)]
    if first.senders is None:
        open_ends.append("senders are left open")
    if first.recipients is None:
        open_ends.append("recipients are left open")
    open_ends += [f'it sends as "{one}", which is no address: rewrite_sender' for one in first.unfit[:3]]
    return Proposed(
        name=name, peers=tuple(one.peer for one in group), networks=exact([one.peer for one in group]),
        senders=None if first.senders is None else tuple(sorted(first.senders)),
        recipients=None if first.recipients is None else tuple(sorted(first.recipients)),
        default_domain="" if first.default_domain == settings.default_domain else first.default_domain,
        rate=f"{rate}/minute", max_size=f"{size // 1_000_000}MB" if largest and size < settings.limits.max_size else "",
        about=tuple(_about(group)), open=tuple(open_ends),
    )  # fmt: skip


def exact(peers: Iterable[str]) -> tuple[str, ...]:
    """Networks that hold these addresses and no other."""
    addresses = [plain_address(peer) for peer in peers]
    found: list[Network] = []
    for version in (4, 6):
        found += collapse_addresses(ip_network(one) for one in addresses if one.version == version)  # type: ignore[type-var]
    return tuple(str(one).removesuffix("/32" if one.version == 4 else "/128") for one in found)


def _name(group: Sequence[Habits], taken: set[str]) -> str:
    heard = next((name for one in group for name in one.names("helo")), "").lower()
    label = "" if _NAMELESS.fullmatch(heard) or heard[:1].isdigit() else heard.partition(".")[0]
    plain = re.sub("[^a-z0-9]+", "_", label).strip("_")
    if not re.match("[a-z]", plain):
        plain = "at_" + re.sub("[^a-z0-9]+", "_", group[0].peer.lower())
    plain = plain[:34]
    return next(name for name in (plain, *(f"{plain}_{n}" for n in range(2, 10_000))) if name not in taken)


def _about(group: Sequence[Habits]) -> Iterable[str]:
    mails, largest = sum(one.mails for one in group), max(one.largest for one in group)
    size = f", the largest {largest:,} octets" if largest else ""
    minute = max(one.per_minute for one in group)
    yield f"{mails} mail{'s' * (mails != 1)}{size}, at most {minute} within a minute from one address"
    for word, kind in (("HELO", "helo"), ("TLS", "tls"), ("logs in as", "logins")):
        if names := list(dict.fromkeys(name for one in group for name in one.names(kind)))[:4]:
            yield f"{word} {', '.join(names)}"
    listeners = dict.fromkeys(seen.listener for one in group for seen in one.seen)
    refused = dict.fromkeys(
        f"{code} {enhanced} {reason}"
        for one in group for seen in one.seen for (_, code, enhanced, reason) in seen.refusals
    )  # fmt: skip
    yield f"at listener {', '.join(listeners)}" + (f", now refused: {'; '.join(list(refused)[:3])}" if refused else "")
    near: dict[str, int] = defaultdict(int)
    for one in group:
        if isinstance(address := plain_address(one.peer), IPv4Address):
            near[str(IPv4Network((int(address) & 0xFFFFFF00, 24)))] += 1
    for network, count in near.items():
        if count >= _MANY:
            yield f"{count} of them are in {network}: you could write that, and let {256 - count} more addresses in"


def _forged(one: Habits) -> Iterable[str]:
    domains = sorted({domain_of(sender) for sender in one.senders or ()} & FREE_MAIL)
    if domains:
        yield f"sends as {', '.join(domains)}: your provider will hardly let it, and it may be forged"
    envelope = {domain_of(sender) for sender in one.names("senders") if "@" in sender}
    shown = {domain_of(author) for author in one.names("authors") if "@" in author}
    if envelope and shown - envelope:
        yield f"its From header names {', '.join(sorted(shown - envelope))}, the envelope {', '.join(sorted(envelope))}"


def _changes(one: Habits, name: str, client: ClientSettings) -> Iterable[str]:
    for reason, setting, wanted in (
        ("sender_denied", "senders", one.senders),
        ("recipient_denied", "recipients", one.recipients),
    ):
        if reason in one.reasons:
            lacking = sorted(set(wanted or ()) - set(getattr(client, setting)))
            yield f"clients.{name}.{setting}: {one.peer} is refused for it; it used {', '.join(lacking) or 'others'}"
    if one.reasons & (FOR_WHOM - {"sender_denied", "recipient_denied"}):
        yield f"clients.{name}: {one.peer} was refused as a stranger, at a listener where it has to log in"


def _nothing(one: Habits) -> str:
    if one.mails:
        return f"a stranger of the Internet, refused {one.mails} times"
    if logins := one.names("logins"):
        return f"tried to log in as {', '.join(logins)}, and sent nothing"
    return "connected, and sent nothing" if not one.reasons else f"sent nothing: {', '.join(sorted(one.reasons))}"


_TOLERATE = {
    "bad_newlines": "tolerate: [bare_newlines]",
    "line_too_long": "tolerate: [long_lines]",
    "cross_protocol": "a listener with tls: implicit (port 465), for it speaks TLS at once",
}


def hints(seen: Seen, settings: Settings) -> Iterable[str]:
    """What this address would need of its listener."""
    who, where = f"{seen.peer} at listener {seen.listener}", f"listeners.{seen.listener}"
    for version in sorted({text.partition(" ")[0] for text in seen.tls.seen}):
        if version in ("TLSv1", "TLSv1.1"):
            yield f'{who} speaks {version}: keep {where}.min_tls: "{version[4:].ljust(2, ".").ljust(3, "0")}"'
    for detail in seen.tls_failed.seen:
        yield f'{who} could not agree on TLS ({detail}): for an old device a listener of its own with min_tls: "1.0"'
    if seen.clear_logins:
        yield f"{who} logs in without TLS: that is taken only from networks that a client lists, and never without them"
    if seen.logins.seen and "auth_failed" in seen.reasons:
        yield f"{who} logs in with a password that is not known here: gateway password mint, and give its hash a client"
    for reason in sorted(seen.reasons & _TOLERATE.keys()):
        yield f"{who} needs {_TOLERATE[reason]}"
    if any(key[3] == "bad_message" and "missing_headers" in text for key, (_, text) in seen.refusals.items()):
        yield f"{who} needs tolerate: [missing_headers]"
    if any("EHLO first" in text for _, text in seen.refusals.values()):
        yield f"{who} needs tolerate: [missing_helo]"


def _unseen(known: Sequence[Habits], left_out: int) -> Iterable[str]:
    yield "who did not send within this time: monthly jobs, devices that are off"
    yield "recipients by name: only their domains are kept; mail by gateway-sendmail, pickup folders and HTTP"
    if blind := sum(any(seen.blind for seen in one.seen) for one in known):
        yield f"whom {blind} addresses write to, for they were refused at MAIL: gateway learn --hear-out NETWORK"
    if left_out:
        yield f"{left_out} connections from addresses for which there was no place any more"
