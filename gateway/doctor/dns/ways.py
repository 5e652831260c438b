"""Mail of one domain by one backend: does it pass SPF and DKIM in the domain's name?"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from gateway.backends.shared.probe import Traces
from gateway.doctor.dns import policy, spf, tags
from gateway.doctor.dns.resolver import Resolver
from gateway.doctor.finding import Finding, Level, finding

_TERM = re.compile(r"[A-Za-z0-9+~?%{}_.:/=-]+")
_LOOK = "look at Authentication-Results in a delivered mail"


@dataclass(frozen=True, slots=True)
class Way:
    """``domain`` by the backend called ``name``. All that asks ``resolver`` raises Silent."""

    domain: str
    name: str
    resolver: Resolver
    tell: Callable[[Finding], None]

    def say(self, key: str, level: Level, what: str, fix: str = "", *, said: str = "", paste: str = "") -> None:
        self.tell(finding(key, level, what, fix, said=said[:300], paste=paste, about=self.domain))


def spf_with(record: str, part: str) -> str:
    """The record with one more part before its end, which becomes ~all where it was +all or nothing."""
    terms = [one for one in record.split()[1:] if _TERM.fullmatch(one)]  # strangers wrote it, and it is to be pasted
    ends = [one for one in terms if one.lower() in ("-all", "~all", "?all") or one.lower().startswith("redirect=")]
    inner = [one for one in terms if one not in ends and one.lower() not in ("all", "+all")]
    return " ".join(filter(None, ["v=spf1", *inner, part, *(ends or ["~all"])]))


async def judge(way: Way, traces: Traces | None, record: spf.Policy | None, dmarc: policy.Found) -> None:
    """``record`` is what the domain says of who sends for it."""
    if traces is None:
        what = f"how {way.name} sends for {way.domain} is not known here, so neither SPF nor DKIM can be looked at"
        way.say("spf_unseen", "unknown", what, f"ask its provider which records it needs, and {_LOOK}")
        policy.judge(way.domain, way.name, dmarc, None, None, way.tell)
        return
    signed = await _dkim(way, traces)
    if traces.below:
        passes = await _aliases(way, traces)
    elif traces.spf:
        passes = _by_part(way, traces, record, signed=bool(signed))
    else:
        passes = _by_address(way, traces, record)
    policy.judge(way.domain, way.name, dmarc, passes, signed, way.tell)


def _by_part(way: Way, traces: Traces, record: spf.Policy | None, *, signed: bool) -> bool | None:
    """Whether SPF passes in the name of the domain; None where that is not seen."""
    domain, name, provider = way.domain, way.name, traces.provider
    level: Level = "warn" if signed else "bad"  # large providers want one of both at least
    if record is None:
        what = f"{domain} has no SPF record that counts, and {name} sends for it by {provider}"
        way.say("spf_missing", level, what, "add it", paste=f'{domain}. IN TXT "v=spf1 {traces.spf} ~all"')
        return False
    if traces.spf.partition(":")[2] in record.names:
        way.say("spf_good", "good", f"SPF of {domain} names {provider} ({name})")
        return not record.faults and record.lookups <= spf.MOST
    if record.unclear:
        what = f"whether SPF of {domain} lets {provider} send depends on the mail: {', '.join(record.unclear[:3])}"
        way.say("spf_unseen", "unknown", what, _LOOK)
        return None
    what = f"SPF of {domain} does not name {provider}, by which {name} sends for it"
    paste = f'{domain}. IN TXT "{spf_with(record.record, traces.spf)}"'
    fix = "put this in the place of the record that is there"
    way.say("spf_excludes", level, what, fix, said=record.record, paste=paste)
    return False


def _by_address(way: Way, traces: Traces, record: spf.Policy | None) -> bool | None:
    """A server of which only the address is known, which need not be the one that it sends from."""
    shown = ", ".join(traces.addresses[:3]) or "its address"
    if record is not None and any(record.allows(one) for one in traces.addresses):
        way.say("spf_good", "good", f"SPF of {way.domain} names {shown} ({way.name})")
        return True
    what = f"by which addresses {traces.provider} ({way.name}) sends for {way.domain} is not known here"
    there = f"{shown} is not in it" if record else "the domain has no record yet"
    way.say("spf_unseen", "unknown", what, f"ask its provider what belongs into SPF; {there}")
    return None


async def _aliases(way: Way, traces: Traces) -> bool | None:
    """The return path stands below the domain, and its SPF record is the provider's."""
    if not traces.records:
        what = f"under which name below {way.domain} bounces return to {traces.provider} is not seen"
        way.say("spf_unseen", "unknown", what, traces.dkim_fix)
        return None
    whole = True
    for name, target in traces.records.items():
        found = (await way.resolver.ask(name, "CNAME")).values
        if [one.rstrip(".") for one in found] == [target]:
            way.say("return_path_good", "good", f"{name} leads to {traces.provider}")
            continue
        whole = False
        state = f"leads to {found[0]}" if found else "is missing"
        what = f"{name} {state}: bounces do not find back to {traces.provider}"
        way.say("return_path_missing", "bad", what, "add it", paste=f"{name}. IN CNAME {target}.")
    return whole


async def _dkim(way: Way, traces: Traces) -> bool | None:
    """Whether it can sign in the name of the domain; None where that is not seen."""
    domain, name, fix, paste = way.domain, way.name, traces.dkim_fix, traces.dkim_paste
    if not traces.selectors:
        what = f"under which name {traces.provider} ({name}) publishes its key for {domain} is not known here"
        way.say("dkim_unseen", "unknown", what, fix or "look for s= and d= in DKIM-Signature of a delivered mail")
        return None
    places = [f"{selector}._domainkey.{domain}" for selector in traces.selectors]
    texts = {place: await way.resolver.texts(place) for place in places}
    keys = {place: tags.key_of(found[0]) for place, found in texts.items() if found}
    good = [place for place, key in keys.items() if not key.fault]
    for place in good:
        if weak := keys[place].weak:
            way.say("dkim_weak", "warn", f"{place}: {weak}", "make a new key at the provider")
    if good:
        way.say("dkim_good", "good", f"{good[0]} holds a key ({name})")
        return True
    if keys:
        place, key = next(iter(keys.items()))
        what = f"{place} holds no usable key: {key.fault}"
        way.say("dkim_broken", "warn", what, fix, said=texts[place][0], paste=paste)
    elif aliases := [place for place in places if (await way.resolver.ask(place, "CNAME")).values]:
        what = f"{aliases[0]} is an alias of a name without a key: signing is not switched on at {traces.provider}"
        way.say("dkim_broken", "warn", what, fix, paste=paste)
    else:
        what = f"no key for {domain} is published at {' or '.join(places)}, so {name} cannot sign in its name"
        way.say("dkim_missing", "warn", what, fix, paste=paste)
    return False
