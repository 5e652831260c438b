"""Promise 3: the envelope decides who gets mail; blind recipients get it and are never disclosed, on every way out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from email import message_from_bytes
from email.utils import getaddresses
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.shared.calls import Call, Plan, carry_out
from gateway.backends.smtp.smarthost import Smtp, SmtpSettings
from gateway.backends.smtp2go import Smtp2go, Smtp2goSettings
from gateway.model import Outcome, Scope, Verdict
from tests.backends import kit
from tests.backends.kit import KEY, Smtp2goFake, SmtpFake, Web, spooled
from tests.builders import SENT
from tests.fakes import FakeClock

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


# -- One call for many -----------------------------------------------------------------------------------------------

REFUSED = Outcome(Verdict.REJECTED, 400, "5.1.3", "one is not valid", said_by="http", scope=Scope.RECIPIENT)
SLOW = Outcome(Verdict.THROTTLED, 429, "4.4.5", "slow down", said_by="http", scope=Scope.BACKEND)
LOST = Outcome(Verdict.IN_DOUBT, detail="lost")


class Provider:
    """Refuses a call in which one of ``bad`` is, all of it; ``then`` is its answer from the ``after``-th call on."""

    def __init__(self, *bad: str, says: Outcome = REFUSED, named: bool = False, after: int = 9999, then: Any = None):
        self.bad, self.says, self.named, self.after, self.then = bad, says, named, after, then
        self.calls: list[tuple[str, ...]] = []
        self.told: list[str] = []
        self.writable = True

    async def make(self, call: Call) -> dict[str, Outcome]:
        self.calls.append(call.addresses)
        outcome = next((replace(self.says, detail=f"{one} is bad") for one in self.bad if one in call.addresses), SENT)
        outcome = SENT if outcome is SENT else outcome if self.named else self.says
        return dict.fromkeys(call.addresses, self.then if len(self.calls) > self.after else outcome)

    async def progress(self, sent: Mapping[str, Outcome]) -> bool:
        self.told += sent
        return self.writable

    async def deliver(self, *people: str, per_call: int = 1000) -> dict[str, str]:
        """Whom it says what of, each but the sent by his verdict."""

        def call(some: tuple[str, ...]) -> Call:
            return Call(some, bytes, part=lambda some: (call(some),))

        calls = tuple(call(people[at : at + per_call]) for at in range(0, len(people), per_call))
        made = await carry_out(spooled(*people), lambda: Plan(calls), self.make, FakeClock(), self.progress)
        return {address: outcome.verdict.value for address, outcome in made.items()}


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("bad", [(0,), (99,), (50, 51), (3, 40, 77), (0, 20, 40, 60, 80)])
async def test_one_bad_recipient_costs_the_others_nothing(bad: tuple[int, ...], named: bool) -> None:
    """Whoever is refused was refused alone; nobody is sent to twice; some calls for each of the bad, not for each."""
    people = [f"r{number}@x.org" for number in range(100)]
    way = Provider(*(people[at] for at in bad), named=named)
    made = await way.deliver(*people)
    assert [address for address in people if made[address] == "rejected"] == [people[at] for at in bad]
    assert all((people[at],) in way.calls for at in bad)
    good = [one for call in way.calls if not set(call) & set(way.bad) for one in call]
    assert sorted(good) == sorted(set(people) - set(way.bad))
    assert len(way.calls) <= (1 + 2 * len(bad) if named else 1 + 2 * len(bad) * 7)  # 7 halves make one of a hundred


@pytest.mark.parametrize(
    "says",
    [
        replace(REFUSED, scope=Scope.MESSAGE),
        replace(SLOW, scope=Scope.RECIPIENT),
        replace(REFUSED, verdict=Verdict.DEFERRED, code=500),  # it may have sent to some before it failed
        LOST,
    ],
)
async def test_what_is_no_fault_of_one_recipient_is_said_once(says: Outcome) -> None:
    """Too big is too big for all, and what may have been sent is not sent again."""
    way = Provider("b@x.org", says=says)
    assert set((await way.deliver("a@x.org", "b@x.org", "c@x.org")).values()) == {says.verdict.value}
    assert len(way.calls) == 1


@pytest.mark.parametrize(("then", "rest"), [(SLOW, "throttled"), (LOST, "deferred")])
async def test_what_was_not_tried_apart_waits(then: Outcome, rest: str) -> None:
    """Throttled or lost in the midst: who was sent to is sent to, and nobody fails for it."""
    way = Provider("d@x.org", after=3, then=then)
    made = await way.deliver("a@x.org", "b@x.org", "c@x.org", "d@x.org")
    assert way.calls == [("a@x.org", "b@x.org", "c@x.org", "d@x.org"), ("a@x.org", "b@x.org"), *way.calls[2:]]
    assert way.calls[2:] == [("c@x.org", "d@x.org"), ("c@x.org",)]
    assert made == {"a@x.org": "sent", "b@x.org": "sent", "c@x.org": then.verdict.value, "d@x.org": rest}


async def test_of_hundreds_that_are_all_refused_some_wait_for_the_next_attempt() -> None:
    """A list of garbage does not use up what the provider allows: each attempt settles some, and none wrongly."""
    people = [f"r{number}@x.org" for number in range(500)]
    way = Provider(*people)
    made = await way.deliver(*people)
    assert len(way.calls) <= 500
    assert set(made.values()) == {"rejected", "deferred"}
    assert all((address,) in way.calls for address, verdict in made.items() if verdict == "rejected")


async def test_what_is_sent_is_told_before_the_next_call() -> None:
    """Not after the last one, which ends the attempt; and where it cannot be written down there is no next call."""
    way = Provider()
    await way.deliver("a@x.org", "b@x.org", "c@x.org", per_call=1)
    assert way.told == ["a@x.org", "b@x.org"]
    way = Provider()
    way.writable = False
    made = await way.deliver("a@x.org", "b@x.org", "c@x.org", per_call=1)
    assert made == {"a@x.org": "sent", "b@x.org": "deferred", "c@x.org": "deferred"}
    assert way.calls == [("a@x.org",)]
