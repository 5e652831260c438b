"""What receivers find in the DNS of sending domains, asked of a real name server; each row is one way to be wrong."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from gateway.backends.shared.probe import Probes, Traces, of_google, of_microsoft, of_smtp2go
from gateway.doctor import Finding, Subject
from gateway.doctor.dns import spf
from gateway.doctor.dns.resolver import Found, Resolver, Silent
from gateway.doctor.dns.ways import spf_with
from tests.doctor.dns_fake import NameServer, Zone, name_server
from tests.doctor.kit import found, levels, of, settings, subject
from tests.fakes import ScriptedBackend
from tests.rsa_keys import rsa_key


def resolver(server: NameServer) -> Resolver:
    return Resolver(["127.0.0.1"], server.port, seconds=0.5)


def key() -> str:
    """As a zone file has it: in strings of at most 255 octets."""
    public = rsa_key().public_key()
    raw = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    text = f"v=DKIM1; k=rsa; p={base64.b64encode(raw).decode()}"
    return " ".join(f'"{text[start : start + 200]}"' for start in range(0, len(text), 200))


GOOD_KEY = key()
WEAK_KEY = (  # of 768 bits, which no library makes any more
    '"v=DKIM1; p=MHwwDQYJKoZIhvcNAQEBBQADawAwaAJhALWkbOhigmF0hWtECsLn4vEnZcgersOrU8DQhNfqm5PmyAN3n2fQGGrPA+t6/765"'
    ' "Jt0ibSV6T6TqIo1qPf2wjKl/EYUo9Bdm0Tfvhapz90eAwGaY+YslDdBCkHE9CxwpGQIDAQAB"'
)


# -- the resolver ------------------------------------------------------------------------------------------------------


async def test_questions_and_answers() -> None:
    """Long answers come by TCP, strings are joined, aliases are followed; no such name is told from no such record."""
    zone = {
        "a.com": ['TXT "one " "two"', "MX 10 Mail.a.com."],
        "long.com": [f'TXT "{"x" * 250}" "{"y" * 250}"'] * 1,
        "alias.com": ["CNAME a.com."],
    }
    async with name_server(zone) as server:
        asked = resolver(server)
        assert await asked.ask("a.com", "TXT") == Found(True, ("one two",))
        assert await asked.ask("A.com.", "TXT") == Found(True, ("one two",))
        assert await asked.texts("alias.com") == ("one two",)
        assert (await asked.ask("alias.com", "CNAME")).values == ("a.com.",)
        assert (await asked.ask("a.com", "MX")).values == ("10 mail.a.com.",)
        assert await asked.ask("a.com", "A") == Found(True)
        assert await asked.ask("nowhere.com", "TXT") == Found(False)
        assert await asked.ask("not..a.name", "TXT") == Found(False)
        assert await asked.texts("long.com") == ("x" * 250 + "y" * 250,)
        assert [way for name, _, way in server.asked if name == "long.com"] == ["udp", "tcp"]
        assert [name for name, kind, _ in server.asked if (name, kind) == ("a.com", "TXT")] == ["a.com"]
        await asked.aclose()


@pytest.mark.parametrize(("name", "words"), [("silent.com", "no name server answers"), ("broken.com", "SERVFAIL")])
async def test_name_servers_that_do_not_tell(name: str, words: str) -> None:
    """Within the time there is, and not taken for "there is none"."""
    async with name_server({}) as server:
        asked = resolver(server)
        with pytest.raises(Silent, match=words):
            await asked.texts(name)
        await asked.aclose()


# -- SPF ---------------------------------------------------------------------------------------------------------------

CHAIN: Zone = {f"n{n}.com": [f'TXT "v=spf1 include:n{n + 1}.com -all"'] for n in range(12)}
SPF: Zone = {
    "_spf.google.com": ['TXT "v=spf1 include:_netblocks.google.com ~all"'],
    "_netblocks.google.com": ['TXT "v=spf1 ip4:198.51.100.0/24 ~all"'],
    "two.com": ['TXT "v=spf1 -all"', 'TXT "v=spf1 ~all"'],
    "loop.com": ['TXT "v=spf1 include:loop.com -all"'],
    "host.com": ["A 192.0.2.7", "AAAA 2001:db8::7", "MX 10 host.com."],
    **CHAIN,
}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            "v=spf1 include:_spf.google.com ~all",
            {"lookups": 2, "others": "~", "names": {"_spf.google.com", "_netblocks.google.com"}},
        ),
        ("v=spf1 -include:_spf.google.com +all", {"lookups": 2, "others": "+", "names": set()}),
        ("v=spf1 redirect=_spf.google.com", {"lookups": 2, "others": "~"}),
        ("v=spf1 -all redirect=_spf.google.com", {"lookups": 0, "others": "-"}),
        ("v=spf1 a:host.com/24 mx:host.com ip4:203.0.113.5 all", {"lookups": 2, "others": "+"}),
        ("v=spf1 exists:%{i}.x.com ptr -all", {"lookups": 2, "unclear": ["exists:%{i}.x.com", "ptr"]}),
        ("v=spf1 include:two.com -all", {"faults": ['"include:two.com": that name has 2 SPF records']}),
        ("v=spf1 include:none.com -all", {"faults": ['"include:none.com": that name has no SPF record']}),
        ("v=spf1 include:loop.com -all", {"faults": ['"include:loop.com" leads in a circle']}),
        (
            "v=spf1 ip4:1.2.3 nonsense:x -all",
            {"faults": ['"ip4:1.2.3" holds no network', '"nonsense:x" is no part of SPF']},
        ),
        ("v=spf1 a:x.com a:y.com a:z.com -all", {"voids": 3, "lookups": 3}),
        ("v=spf1 include:n0.com -all", {"lookups": 13}),
        ("v=spf1", {"lookups": 0, "others": ""}),
    ],
)  # fmt: skip
async def test_spf_records(record: str, expected: Mapping[str, object]) -> None:
    """What a record comes to, with all that it includes (RFC 7208)."""
    async with name_server(SPF) as server:
        asked = resolver(server)
        policy = await spf.read("a.com", record, asked)
        await asked.aclose()
    assert {name: getattr(policy, name) for name in expected} == expected
    if "a:host.com/24" in record:
        assert [policy.allows(one) for one in ("192.0.2.200", "2001:db8::7", "203.0.113.5", "203.0.113.6")] == [
            True,
            True,
            True,
            False,
        ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("v=spf1 mx -all", "v=spf1 mx include:x.com -all"),
        ("v=spf1 +all", "v=spf1 include:x.com ~all"),
        ("v=spf1 a", "v=spf1 a include:x.com ~all"),
        ("v=spf1 a redirect=y.com", "v=spf1 a include:x.com redirect=y.com"),
        ('v=spf1 a "; $(reboot) `id` -all', "v=spf1 a include:x.com -all"),
    ],
)
def test_what_is_to_be_pasted_keeps_the_rest(before: str, after: str) -> None:
    """One part more, before the end."""
    assert spf_with(before, "include:x.com") == after


# -- domains -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known(Probes):
    """A backend that leaves these traces."""

    made: Traces | None = None

    async def traces(self, domain: str) -> Traces | None:
        return self.made


class Sends(ScriptedBackend):
    def __init__(self, made: Traces | None) -> None:
        super().__init__("way")
        self._made = made

    def probes(self) -> Probes:
        return Known(made=self._made)


@asynccontextmanager
async def sending(
    folder: Path, zone: Zone, traces: Traces | None, sender: str = "x@example.com"
) -> AsyncIterator[Subject]:
    """A client that may send as this, by a backend of that kind."""
    text = (
        f"clients: {{app: {{token: '*', senders: ['{sender}']}}}}\nbackends: {{way: {{type: capture, directory: x}}}}\n"
    )
    async with name_server({**SPF, **zone}) as server:
        yield subject(settings(folder, text), backends={"way": Sends(traces)}, resolver=lambda: resolver(server))


DMARC = {"_dmarc.example.com": ['TXT "v=DMARC1; p=reject; rua=mailto:d@example.com"']}
MX = "MX 10 mail.example.com."
GOOGLE, OFFICE, S2G = of_google("example.com"), of_microsoft("example.com"), of_smtp2go("example.com", "em1", "s1")
HOST = Traces(provider="smart.example.net", addresses=("192.0.2.7",))
TXT = 'TXT "v=spf1 include:_spf.google.com ~all"'
SIGNED = {"google._domainkey.example.com": [f"TXT {GOOD_KEY}"]}
WHOLE = {"example.com": [MX, TXT], **SIGNED, **DMARC}
ALIASES = {
    "em1.example.com": ["CNAME return.smtp2go.net."],
    "s1._domainkey.example.com": ["CNAME dkim.smtp2go.net."],
    "dkim.smtp2go.net": [f"TXT {GOOD_KEY}"],
}
TENANT = {
    "example.com": [MX, 'TXT "v=spf1 include:spf.protection.outlook.com -all"'],
    "spf.protection.outlook.com": ['TXT "v=spf1 ip4:198.51.100.0/24 -all"'],
    **DMARC,
}


@dataclass(frozen=True)
class Case:
    zone: Zone
    traces: Traces | None
    bad: Mapping[str, str]  # all that is not good
    paste: Mapping[str, str] = field(default_factory=dict)


CASES = {
    "all is well": Case(WHOLE, GOOGLE, {}),
    "SPF missing": Case(
        {**WHOLE, "example.com": [MX]}, GOOGLE, {"spf_missing": "warn"},
        {"spf_missing": 'example.com. IN TXT "v=spf1 include:_spf.google.com ~all"'},
    ),
    "SPF and DKIM missing": Case(
        {"example.com": [MX], **DMARC}, GOOGLE, {"spf_missing": "bad", "dkim_missing": "warn", "dmarc_unaligned": "bad"}
    ),
    "SPF names another": Case(
        {**WHOLE, "example.com": [MX, 'TXT "v=spf1 mx -all"']}, GOOGLE, {"spf_excludes": "warn"},
        {"spf_excludes": 'example.com. IN TXT "v=spf1 mx include:_spf.google.com -all"'},
    ),
    "two SPF records": Case(
        {**WHOLE, "example.com": [MX, TXT, 'TXT "v=spf1 mx -all"']}, GOOGLE,
        {"spf_several": "bad"},
        {"spf_several": 'example.com. IN TXT "v=spf1 include:_spf.google.com mx ~all"'},
    ),
    "everybody may send": Case(
        {**WHOLE, "example.com": [MX, TXT.replace("~", "+")]}, GOOGLE, {"spf_open": "bad"},
        {"spf_open": 'example.com. IN TXT "v=spf1 include:_spf.google.com ~all"'},
    ),
    "too many look-ups": Case(
        {**WHOLE, "example.com": [MX, 'TXT "v=spf1 include:n2.com include:_spf.google.com ~all"']}, GOOGLE,
        {"spf_lookups": "bad", "spf_broken": "bad"},
    ),
    "SPF with a dead end": Case(
        {**WHOLE, "example.com": [MX, 'TXT "v=spf1 include:none.com include:_spf.google.com ~all"']}, GOOGLE,
        {"spf_broken": "bad"},
    ),
    "SPF with macros": Case(
        {**WHOLE, "example.com": [MX, 'TXT "v=spf1 include:%{i}.x.com ~all"']}, GOOGLE, {"spf_unseen": "unknown"}
    ),
    "key taken back": Case(
        {**WHOLE, "google._domainkey.example.com": ['TXT "v=DKIM1; p="']}, GOOGLE, {"dkim_broken": "warn"}
    ),
    "key cut off": Case(
        {**WHOLE, "google._domainkey.example.com": [f'TXT {GOOD_KEY.split()[0]} {GOOD_KEY.split()[1][:40]}"']}, GOOGLE,
        {"dkim_broken": "warn"},
    ),
    "key too short": Case(
        {**WHOLE, "google._domainkey.example.com": [f"TXT {WEAK_KEY}"]}, GOOGLE, {"dkim_weak": "warn"}
    ),
    "Microsoft, the second key": Case(
        {**TENANT, "selector2._domainkey.example.com": [f"TXT {GOOD_KEY}"]}, OFFICE, {}
    ),
    "Microsoft, not switched on": Case(
        {**TENANT, "selector1._domainkey.example.com": ["CNAME selector1-example-com.t.n-v1.dkim.mail.microsoft."]},
        OFFICE, {"dkim_broken": "warn"},
    ),
    "SMTP2GO": Case({"example.com": [MX], **ALIASES, **DMARC}, S2G, {}),
    "SMTP2GO, no aliases": Case(
        {"example.com": [MX], **DMARC}, S2G,
        {"return_path_missing": "bad", "dkim_missing": "warn", "dmarc_unaligned": "bad"},
        {"return_path_missing": "em1.example.com. IN CNAME return.smtp2go.net."},
    ),
    "SMTP2GO that does not tell": Case(
        {"example.com": [MX], **DMARC}, of_smtp2go("example.com"),
        {"spf_unseen": "unknown", "dkim_unseen": "unknown", "dmarc_unseen": "unknown"},
    ),
    "a server in SPF": Case(
        {"example.com": [MX, 'TXT "v=spf1 a:host.com ~all"'], **DMARC}, HOST, {"dkim_unseen": "unknown"}
    ),
    "a server that is not": Case(
        {"example.com": [MX, 'TXT "v=spf1 mx ~all"'], **DMARC}, HOST,
        {"spf_unseen": "unknown", "dkim_unseen": "unknown", "dmarc_unseen": "unknown"},
    ),
    "nothing known": Case({"example.com": [MX]}, None, {"spf_unseen": "unknown", "dmarc_missing": "warn"}),
    "DMARC missing": Case(
        {"example.com": [MX, TXT], **SIGNED}, GOOGLE, {"dmarc_missing": "warn"},
        {"dmarc_missing": '_dmarc.example.com. IN TXT "v=DMARC1; p=none; rua=mailto:postmaster@example.com"'},
    ),
    "DMARC watches": Case({**WHOLE, "_dmarc.example.com": ['TXT "v=DMARC1; p=none"']}, GOOGLE, {"dmarc_none": "note"}),
    "DMARC twice": Case(
        {**WHOLE, "_dmarc.example.com": ['TXT "v=DMARC1; p=none"', 'TXT "v=DMARC1; p=reject"']}, GOOGLE,
        {"dmarc_broken": "bad"},
    ),
    "DMARC misspelt": Case(
        {**WHOLE, "_dmarc.example.com": ['TXT "v=DMARC1; p=refuse"']}, GOOGLE, {"dmarc_broken": "bad"}
    ),
    "no MX": Case({**WHOLE, "example.com": [TXT]}, GOOGLE, {"mx_missing": "warn"}),
    "null MX": Case({**WHOLE, "example.com": [TXT, "MX 0 ."]}, GOOGLE, {"mx_missing": "warn"}),
    "an address is enough": Case({**WHOLE, "example.com": [TXT, "A 192.0.2.1"]}, GOOGLE, {}),
    "no such domain": Case({}, GOOGLE, {"domain_missing": "bad"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
async def test_domains(tmp_path: Path, name: str) -> None:
    """Exactly what is wrong is said, with the record to paste; nothing that is not seen is called good or bad."""
    case = CASES[name]
    async with sending(tmp_path, case.zone, case.traces) as looked_at:
        result = await found(looked_at, "dns")
    assert {one.key: one.level for one in result if one.level != "good"} == dict(case.bad)
    assert {key: of(result, key).paste for key in case.paste} == dict(case.paste)
    assert {one.about for one in result} == {"example.com"}


async def test_a_policy_that_stands_above(tmp_path: Path) -> None:
    """A subdomain without one of its own is held to that of the organisation, which may say otherwise of subdomains."""
    zone = {"app.example.com": [MX], "_dmarc.example.com": ['TXT "v=DMARC1; p=none; sp=reject"']}
    async with sending(tmp_path, zone, of_google("app.example.com"), "x@app.example.com") as looked_at:
        result = await found(looked_at, "dns")
    assert levels(result)["dmarc_unaligned app.example.com"] == "bad"


@pytest.mark.parametrize(
    ("sender", "key"),
    [
        ("root@server.local", "domain_private"),
        ("root@server", "domain_private"),
        ("me@gmail.com", ""),
        ("me@t.onmicrosoft.com", ""),
    ],
)
async def test_domains_that_are_nobodys_to_change(tmp_path: Path, sender: str, key: str) -> None:
    """Names of the inside are a fault of the sender; of those of a provider nothing is to be done."""
    async with sending(tmp_path, {}, GOOGLE, sender) as looked_at:
        result = await found(looked_at, "dns")
    assert [one.key for one in result] == ([key] if key else [])


@pytest.mark.parametrize("zone", [{"silent.com": []}, {"_dmarc.broken.com": [], "broken.com": []}])
async def test_a_name_server_that_does_not_answer(tmp_path: Path, zone: Zone) -> None:
    """It is not seen, so it is neither missing nor wrong."""
    name = next(one for one in zone if not one.startswith("_"))
    async with sending(tmp_path, zone, GOOGLE, f"x@{name}") as looked_at:
        result = await found(looked_at, "dns")
    assert {one.key for one in result} == {"dns_unanswered"}


async def test_a_name_server_that_knows_nothing_outside(tmp_path: Path) -> None:
    """Where even "com" does not exist, no domain of yours is called missing."""
    async with name_server({}) as server:
        del server.zone["com"]
        text = (
            "clients: {app: {token: '*', senders: ['x@example.com']}}\nbackends: {way: {type: capture, directory: x}}\n"
        )
        looked_at = subject(
            settings(tmp_path, text), backends={"way": Sends(GOOGLE)}, resolver=lambda: resolver(server)
        )
        result: Sequence[Finding] = await found(looked_at, "dns")
    assert [one.key for one in result] == ["dns_unanswered"]
