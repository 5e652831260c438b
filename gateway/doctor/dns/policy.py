"""DMARC: what the owner of a domain wants done with mail that is not surely his, and whether ours is (RFC 7489)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.doctor.dns import tags
from gateway.doctor.dns.resolver import Resolver
from gateway.doctor.finding import Finding, finding

_UP = 5  # labels that are climbed to where the record may stand
Tell = Callable[[Finding], None]


@dataclass(frozen=True, slots=True)
class Found:
    """``policy`` is None where there is none that counts."""

    policy: tags.Dmarc | None
    place: str = ""


async def find(domain: str, resolver: Resolver, tell: Tell) -> Found:
    """The record of the domain, else of one above it. Raises Silent.

    Which of those above it is the organisation's is found by climbing, as the successor of RFC 7489 does it.
    """
    labels = domain.split(".")
    for start in range(min(len(labels) - 1, _UP)):
        place = ".".join(labels[start:])
        found = [text for text in await resolver.texts(f"_dmarc.{place}") if tags.is_dmarc(text)]
        if len(found) > 1:
            what = f"_dmarc.{place} has {len(found)} records, so none of them counts"
            tell(finding("dmarc_broken", "bad", what, "keep one of them", said=" | ".join(found)[:300], about=domain))
            return Found(None, place)
        if found:
            try:
                return Found(tags.dmarc_of(found[0], below=start > 0), place)
            except ValueError as error:
                what = f"_dmarc.{place} cannot be read: {error}"
                tell(finding("dmarc_broken", "bad", what, "correct it", said=found[0][:300], about=domain))
                return Found(None, place)
    return Found(None)


def judge(domain: str, name: str, found: Found, spf: bool | None, dkim: bool | None, tell: Tell) -> None:
    """``spf`` and ``dkim``: whether mail by backend ``name`` passes in the name of the domain; None: not seen."""
    if found.policy is None:
        if not found.place:
            what = f"{domain} has no DMARC record: large providers ask for one, and anybody may forge it"
            fix = "begin with one that only watches, to a mailbox that somebody reads"
            paste = f'_dmarc.{domain}. IN TXT "v=DMARC1; p=none; rua=mailto:postmaster@{domain}"'
            tell(finding("dmarc_missing", "warn", what, fix, paste=paste, about=domain))
        return
    policy = found.policy
    if policy.policy == "none":
        what = f"the DMARC record of {domain} only watches (p=none)"
        fix = "when its reports show that all your mail passes, ask for more"
        paste = f'_dmarc.{found.place}. IN TXT "v=DMARC1; p=quarantine; rua=mailto:postmaster@{found.place}"'
        tell(finding("dmarc_none", "note", what, fix, paste=paste, about=domain))
    if spf and policy.spf == "r" or dkim:  # noqa: RUF021 - a strict one wants the very domain, which DKIM signs as
        if policy.policy != "none":
            tell(finding("dmarc_good", "good", f"mail of {domain} by {name} passes DMARC", about=domain))
    elif spf is None or dkim is None:
        if policy.policy != "none":
            what = (
                f"{domain} wants other mail thrown away (p={policy.policy}); whether that by {name} passes is not seen"
            )
            fix = "send yourself a mail and look for dmarc=pass in Authentication-Results"
            paste = f"gateway send-test --backend {name} --from ANYONE@{domain} --to YOU@gmail.com"
            tell(finding("dmarc_unseen", "unknown", what, fix, paste=paste, about=domain))
    elif policy.policy != "none":
        what = f"{domain} wants mail thrown away that is not surely its own (p={policy.policy}), as that by {name} is"
        fix = "put SPF or DKIM right first (they are in this report)"
        tell(finding("dmarc_unaligned", "bad", what, fix, about=domain))
