"""Promise 3: the envelope decides who gets mail; blind recipients get it and are never disclosed, on every way out."""

from __future__ import annotations

from email import message_from_bytes
from email.utils import getaddresses
from pathlib import Path

import pytest

from gateway.backends.smtp.smarthost import Smtp, SmtpSettings
from gateway.backends.smtp2go import Smtp2go, Smtp2goSettings
from gateway.model import Verdict
from tests.backends import kit
from tests.backends.kit import KEY, Smtp2goFake, SmtpFake, Web, spooled

# name, To and Cc fields, envelope, and for each call of a header-driven API the To and Cc that everybody in it sees
CASES: list[tuple[str, list[str], list[str], list[tuple[list[str], list[str]]]]] = [
    ("as addressed", ["To: a@x.org", "Cc: b@x.org"], ["a@x.org", "b@x.org"], [(["a@x.org"], ["b@x.org"])]),
    ("one blind", ["To: a@x.org"], ["a@x.org", "z@x.org"], [(["a@x.org"], []), (["z@x.org"], [])]),
    (
        "blind ones do not see each other",
        ["To: a@x.org", "Cc: b@x.org"],
        ["z@x.org", "a@x.org", "y@x.org", "b@x.org"],
        [(["a@x.org"], ["b@x.org"]), (["z@x.org"], []), (["y@x.org"], [])],
    ),
    ("only blind", ["To: a@x.org"], ["z@x.org"], [(["z@x.org"], [])]),
    ("no To at all", [], ["z@x.org", "y@x.org"], [(["z@x.org"], []), (["y@x.org"], [])]),
    ("undisclosed", ["To: undisclosed-recipients:;"], ["z@x.org"], [(["z@x.org"], [])]),
    ("not addressed, so not mailed", ["To: a@x.org, b@x.org", "Cc: c@x.org"], ["b@x.org"], [(["b@x.org"], [])]),
    ("only in Cc", ["To: a@x.org", "Cc: c@x.org"], ["c@x.org"], [([], ["c@x.org"])]),
    ("spelled otherwise", ["To: A <A@X.ORG>"], ["a@x.org"], [(["A@X.ORG"], [])]),
    ("several fields", ["To: a@x.org", "To: b@x.org"], ["a@x.org", "b@x.org"], [(["a@x.org", "b@x.org"], [])]),
    ("a group", ["To: Team: a@x.org, b@x.org;"], ["a@x.org", "b@x.org"], [(["a@x.org", "b@x.org"], [])]),
    ("quoted names", ['To: "Doe, Jane" <a@x.org>, b@x.org'], ["a@x.org"], [(["a@x.org"], [])]),
    ("encoded names", ["To: =?utf-8?q?J=2C_b=40x=2Eorg?= <a@x.org>"], ["a@x.org"], [(["a@x.org"], [])]),
    ("folded", ["To: a@x.org,\r\n b@x.org"], ["a@x.org", "b@x.org"], [(["a@x.org", "b@x.org"], [])]),
    ("a name that looks like an address", ['To: "z@x.org" <a@x.org>'], ["a@x.org"], [(["a@x.org"], [])]),
]


def raw_of(fields: list[str]) -> bytes:
    return "\r\n".join(["From: me@corp.example", *fields, "Subject: s", "", "body", ""]).encode()


def people(raw: bytes, name: str) -> list[str]:
    values = [str(value) for value in message_from_bytes(raw).get_all(name, [])]
    return [address for _, address in getaddresses(values) if address]


@pytest.mark.parametrize(("fields", "envelope", "calls"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_a_header_driven_api_mails_the_envelope_and_discloses_nobody(
    tmp_path: Path, fields: list[str], envelope: list[str], calls: list[tuple[list[str], list[str]]]
) -> None:
    fake = Smtp2goFake()
    async with Web(fake) as web, kit.context(tmp_path) as context:
        settings = Smtp2goSettings.model_validate({"api_key": KEY, "base_url": web.url + "/v3"})
        outcomes = await Smtp2go("s2g", settings, context).send(spooled(*envelope), raw_of(fields))
    assert {address: outcome.verdict for address, outcome in outcomes.items()} == dict.fromkeys(envelope, Verdict.SENT)
    assert [(people(raw, "to"), people(raw, "cc")) for _, raw in fake.delivered] == calls
    mailed = [person.lower() for served, _ in fake.delivered for person in served]
    assert sorted(mailed) == sorted(address.lower() for address in envelope)
    for served, raw in fake.delivered:
        others = {address.encode() for address in envelope} - {person.lower().encode() for person in served}
        assert not any(other in raw for other in others if other not in b" ".join(f.encode() for f in fields))
        assert raw.endswith(b"Subject: s\r\n\r\nbody\r\n")


@pytest.mark.parametrize(("fields", "envelope"), [case[1:3] for case in CASES], ids=[case[0] for case in CASES])
async def test_an_envelope_driven_server_gets_the_envelope_and_the_bytes_as_they_are(
    tmp_path: Path, fields: list[str], envelope: list[str]
) -> None:
    async with SmtpFake() as server, kit.context(tmp_path) as context:
        way = Smtp("smart", SmtpSettings(host="127.0.0.1", port=server.port, tls="none"), context)
        await way.send(spooled(*envelope), raw_of(fields))
        await way.aclose()
    assert [command[9:-1] for command in server.done[0].rcpt] == envelope
    assert server.done[0].body == raw_of(fields)
