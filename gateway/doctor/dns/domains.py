"""Each domain that mail is sent from, by each backend that carries it: will receivers believe it?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from gateway.address import a_labels
from gateway.doctor.dns import policy, spf, ways
from gateway.doctor.dns.resolver import Resolver, Silent
from gateway.doctor.finding import Finding, finding
from gateway.doctor.subject import Subject
from gateway.doctor.used import Used, used

MOST = 15  # domains looked at in one run
# Of others, whose records are not the operator's business.
_NOT_OURS = ("gmail.com", "googlemail.com", "outlook.com", "hotmail.com", "live.com", "msn.com", "onmicrosoft.com")
# RFC 2606, RFC 6761, RFC 6762, RFC 9476: no name server knows them outside.
_INSIDE = ("local", "localhost", "localdomain", "internal", "lan", "home", "corp", "test", "invalid", "example", "alt")
Tell = Callable[[Finding], None]


async def look(subject: Subject, tell: Tell) -> None:
    by_domain = _domains(await used(subject))
    chosen = list(by_domain)[:MOST]
    if len(by_domain) > MOST:
        what = f"{len(by_domain)} domains are sent from; {MOST} of them were looked at"
        tell(finding("dns_many", "note", what, f"the others: {', '.join(list(by_domain)[MOST:][:20])}"))
    resolver = subject.resolver()
    try:
        await asyncio.gather(*(_domain(subject, domain, by_domain[domain], resolver, tell) for domain in chosen))
    finally:
        await resolver.aclose()


def _domains(addresses: Sequence[Used]) -> Mapping[str, set[str]]:
    """Those with the most senders first, and by which backends each leaves."""
    found: dict[str, set[str]] = {}
    for one in addresses:
        domain = a_labels(one.address.rpartition("@")[2])
        if domain and not domain.startswith("[") and not _is_below(domain, _NOT_OURS):
            found.setdefault(domain, set()).update(one.backends)
    return {domain: names for domain, names in found.items() if names}


def _is_below(domain: str, others: Sequence[str]) -> bool:
    return any(domain == one or domain.endswith(f".{one}") for one in others)


async def _domain(subject: Subject, domain: str, names: set[str], resolver: Resolver, tell: Tell) -> None:
    probes = subject.probes(sorted(names))
    if not probes:
        return  # nothing leaves this machine by it
    if "." not in domain or _is_below(domain, _INSIDE):
        what = f"{domain} is known inside only: receivers refuse mail from it, or nobody can answer"
        fix = "let the gateway write an address of yours in its place"
        paste = "rewrite_sender: {to: noreply@YOUR-DOMAIN, when: always}"
        tell(finding("domain_private", "warn", what, fix, paste=paste, about=domain))
        return
    try:
        if not (await resolver.ask(domain, "MX")).exists:
            if not (await resolver.ask("com", "NS")).exists:  # it says so of everything
                raise Silent("this machine's name servers know no names of the world outside")
            what = f"there is no domain {domain}: mail from it is refused nearly everywhere"
            tell(finding("domain_missing", "bad", what, "correct the address in the settings", about=domain))
            return
        await _mx(domain, resolver, tell)
        record = await _spf_record(domain, resolver, tell)
        dmarc = await policy.find(domain, resolver, tell)
    except Silent as error:
        tell(_unanswered(domain, error))
        return

    async def one(name: str) -> None:
        traces = await probes[name].traces(domain)
        await ways.judge(ways.Way(domain, name, resolver, tell), traces, record, dmarc)

    for ended in await asyncio.gather(*map(one, probes), return_exceptions=True):
        if isinstance(ended, Silent):
            tell(_unanswered(domain, ended))
        elif isinstance(ended, BaseException):
            raise ended


def _unanswered(domain: str, error: Silent) -> Finding:
    fix = "run it again; if it stays so, see whether this machine reaches the name servers of /etc/resolv.conf"
    what = f"not all of {domain} could be looked at: {error}"
    return finding("dns_unanswered", "unknown", what, fix, paste=f"dig +short TXT {domain}", about=domain)


async def _mx(domain: str, resolver: Resolver, tell: Tell) -> None:
    hosts = (await resolver.ask(domain, "MX")).values
    if hosts == ("0 .",):  # RFC 7505
        what = f"{domain} says that it takes no mail (null MX): answers and bounces to it are lost"
    elif hosts or await resolver.addresses(domain):  # RFC 5321, 5.1: without MX its address is tried
        tell(finding("mx_good", "good", f"{domain} takes mail", about=domain))
        return
    else:
        what = f"{domain} has no MX record: answers and bounces to it are lost"
    fix = "add one that leads to your mail server, or send from a domain that takes mail"
    tell(finding("mx_missing", "warn", what, fix, paste=f"{domain}. IN MX 10 YOUR-MAIL-SERVER.", about=domain))


async def _several(domain: str, found: list[str], resolver: Resolver, tell: Tell) -> spf.Policy:
    """What they would come to as one."""
    parts = dict.fromkeys(part for text in found for part in text.split()[1:])
    whole = ways.spf_with(" ".join(["v=spf1", *(part for part in parts if part.lstrip("+-~?").lower() != "all")]), "")
    what = f"{domain} has {len(found)} SPF records, which counts as an error (RFC 7208, 3.2)"
    paste = f'{domain}. IN TXT "{whole}"'
    tell(
        finding("spf_several", "bad", what, "make one of them", said=" | ".join(found)[:300], paste=paste, about=domain)
    )
    read = await spf.read(domain, whole, resolver)
    read.faults.append("there are several")
    return read


async def _spf_record(domain: str, resolver: Resolver, tell: Tell) -> spf.Policy | None:
    """What the domain itself says, whichever way the mail goes. None: nothing that counts."""
    found = spf.records(await resolver.texts(domain))
    if len(found) > 1:
        return await _several(domain, found, resolver, tell)
    if not found:
        return None
    read = await spf.read(domain, found[0], resolver)
    if read.others == "+":
        what = f"the SPF record of {domain} lets everybody send for it (+all)"
        paste = f'{domain}. IN TXT "{ways.spf_with(read.record, "")}"'
        tell(finding("spf_open", "bad", what, "end it with ~all", said=read.record[:300], paste=paste, about=domain))
    if read.lookups > spf.MOST:
        what = f"the SPF record of {domain} takes {read.lookups} look-ups; above {spf.MOST} it counts as an error"
        fix = "take out what nobody sends by any more"
        tell(finding("spf_lookups", "bad", what, fix, said=read.record[:300], about=domain))
    if read.faults:
        what = f"the SPF record of {domain} counts as an error: {'; '.join(read.faults[:3])}"
        tell(finding("spf_broken", "bad", what, "correct that part", said=read.record[:300], about=domain))
    return read
