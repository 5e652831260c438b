"""Certificates that renew themselves, against a strict fake of Entra ID: two years of it, and what can go wrong."""

from __future__ import annotations

import asyncio
import json
import stat
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.microsoft.certificate import Source
from gateway.backends.microsoft.graph import Graph
from gateway.backends.microsoft.keyring import Keyring
from gateway.backends.microsoft.over_smtp import MicrosoftLoginSettings
from gateway.backends.shared.stores import FileStore, Store
from gateway.checks import Renewed, Renews
from gateway.config.finding import Ending
from tests.backends.entra_keys_fake import FIRST, Keys, open_keys
from tests.backends.graph_fake import CLIENT, error
from tests.backends.kit import http
from tests.builders import START

DAY = 86400.0
DUE = 336 * DAY  # within 30 days of the end of the first


async def look(keys: Keys, *, ordered: bool = False) -> Renewed:
    found = await keys.backend.renew(ordered=ordered)
    assert found is not None
    return found


def kept(path: Path) -> tuple[Path, dict[str, Any]]:
    (file,) = path.glob("certificate-*.json")
    return file, json.loads(file.read_text())


@pytest.mark.slow
async def test_two_years_of_renewals(tmp_path: Path) -> None:
    """Each key is renewed 30 days before its end, used at once and removed another day; nothing ever fails in between,
    and never are there more than two."""
    happened = []
    async with open_keys(tmp_path) as keys:
        for day in range(1, 731):
            keys.clock.advance(DAY)
            before = len(keys.fake.calls)
            found = await look(keys)
            if found.result != "kept":
                happened.append((day, found.result))
                assert await keys.sends(), day
            else:
                assert keys.fake.calls[before:] == [], "nothing is asked while nothing is due"
    assert happened == [(334, "renewed"), (335, "removed"), (669, "renewed"), (670, "removed")]
    assert (len(keys.fake.keys), keys.fake.most) == (1, 2)
    assert FIRST not in keys.fake.keys
    file, state = kept(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert state["current"]["id"] in keys.fake.keys
    assert keys.signals.warnings == []


async def test_the_switch_needs_no_restart(tmp_path: Path) -> None:
    """A backend that runs takes its next token by the new key, and its check says until when it is good."""
    async with open_keys(tmp_path) as keys:
        keys.clock.advance(DUE)
        assert (await keys.backend.check()).ok
        assert (await look(keys)).result == "renewed"
        del keys.fake.keys[FIRST]
        keys.clock.advance(7200)
        found = await keys.backend.check()
        assert found.ok, found
        assert found.facts["certificate"].startswith("good until 2028-")


async def test_microsoft_learns_of_a_new_key_by_and_by(tmp_path: Path) -> None:
    """AADSTS700027 for some minutes: it is tried again, a little later each time, and the old key works meanwhile."""
    async with open_keys(tmp_path) as keys:
        keys.clock.advance(DUE)
        keys.fake.lag = 300.0
        waits = []
        while (found := await look(keys)).result == "waits":
            assert await keys.sends()
            waits.append(found.again)
            keys.clock.advance(found.again)
        assert found.result == "renewed"
        assert waits == [15, 30, 60, 120, 240]
        assert keys.fake.calls.count("addKey") == 1


class Killed(Exception):
    """The process is gone at this moment."""


@dataclass
class Killing:
    """A store whose user dies before or after a write."""

    store: Store
    left: list[int]  # writes until then
    before: bool
    shown: str = "here"

    def read(self) -> bytes | None:
        return self.store.read()

    def write(self, value: bytes, before: bytes | None) -> bool:
        self.left[0] -= 1
        if self.left[0] == 0 and self.before:
            raise Killed
        done = self.store.write(value, before)
        if self.left[0] == 0:
            raise Killed
        return done

    def put(self, value: bytes) -> None:
        raise AssertionError


OTHERS = ((1, True), (1, False), (2, True), (3, False), (4, True), (4, False))


async def until_renewed(keys: Keys) -> int:
    """How many hours it took; mail can be sent all the while."""
    for hours in range(1, 30, 6):
        keys.clock.advance(6 * 3600)
        found = await look(keys)
        assert await keys.sends()
        if found.result == "renewed":
            return hours
    raise AssertionError(found)


@pytest.mark.parametrize(
    ("writes", "before"),
    [
        (2, False),  # the key is kept, and nobody was asked yet
        (3, True),  # it was taken, and its id is lost
        *(pytest.param(writes, before, marks=pytest.mark.slow) for writes, before in OTHERS),
    ],
)
async def test_killed_at_any_write_it_goes_on(tmp_path: Path, writes: int, before: bool) -> None:
    """What it had done is known afterwards: it ends with one new key in use, and at no moment is there none that works.

    Where nobody knows whether Microsoft has taken a key, it is sent once more, a day later at the soonest.
    """
    left, file = [writes], FileStore(tmp_path / "kept")
    async with open_keys(tmp_path, shared=lambda _: Killing(file, left, before)) as keys:
        keys.clock.advance(DUE)
        with pytest.raises(Killed):
            await look(keys)
        await keys.restart()
        assert await keys.sends()
        if (writes, before) != (4, False):  # after the last nothing is left to do
            await until_renewed(keys)
        assert keys.fake.calls.count("addKey") == (0 if writes == 0 else 1)
        keys.clock.advance(DAY)
        assert (await look(keys)).result == "removed" or writes == 3
        assert FIRST not in keys.fake.keys
        assert len(keys.fake.keys) == 1
        assert await keys.sends()


@pytest.mark.parametrize(
    ("lost", "asked", "left"),
    [
        ("taken, and the answer lost", 1, 1),
        ("not taken", 2, 1),
        pytest.param("too many", 2, 1, marks=pytest.mark.slow),
    ],
)
async def test_a_lost_answer(tmp_path: Path, lost: str, asked: int, left: int) -> None:
    """Whether Microsoft has the key is found out by a token; where it gives none, it is sent once more a day later."""
    async with open_keys(tmp_path) as keys:
        keys.clock.advance(DUE)
        if lost.startswith("taken"):
            keys.fake.lose = ["addKey"]
        else:
            keys.fake.answers["addKey"] = [http(503 if lost == "not taken" else 429)]
        assert (await look(keys)).result == "failed"
        assert await keys.sends()
        hours = await until_renewed(keys)
        assert (hours == 1) == lost.startswith("taken")
        assert keys.fake.calls.count("addKey") == asked
        keys.clock.advance(DAY)
        assert (await look(keys)).result == "removed"
        assert len(keys.fake.keys) == left


@dataclass
class Refused:
    """What addKey says, and what a person is told."""

    answer: bytes
    said: str
    fix: str


REFUSED = {
    "proof": Refused(error(401, "Authentication_MissingOrMalformed", "Access Token missing"), "HTTP 401", "object_id"),
    "policy": Refused(
        error(400, "PolicyViolation", "lifetime is longer than allowed"), "longer than allowed", "policy"
    ),
    "rights": Refused(error(403, "Authorization_RequestDenied", "Insufficient"), "Insufficient", "object_id"),
    "unknown": Refused(error(404, "Request_ResourceNotFound"), "HTTP 404", "Enterprise applications"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
async def test_a_refusal_is_told_and_tried_again_the_next_day(tmp_path: Path, case: Refused) -> None:
    """Once a day at most; the key in use goes on, and nothing of the key that was refused is kept."""
    async with open_keys(tmp_path) as keys:
        keys.clock.advance(DUE)
        keys.fake.answers["addKey"] = [case.answer]
        found = await look(keys)
        assert found.result == "failed"
        assert case.said in found.trouble
        assert case.fix in found.fix
        assert kept(tmp_path)[1]["next"] is None
        for _ in range(23):
            keys.clock.advance(3600)
            again = await look(keys)
            assert (again.result, again.trouble) == ("kept", found.trouble)
        assert keys.fake.calls.count("addKey") == 1
        keys.clock.advance(3600)
        renewed = await look(keys)
        assert (renewed.result, renewed.trouble) == ("renewed", "")


async def test_the_object_id_of_the_enterprise_application_is_told_apart(tmp_path: Path) -> None:
    async with open_keys(tmp_path, object_id="0b1ec700-0000-4000-8000-00000000bbbb") as keys:
        found = await look(keys, ordered=True)
        assert found.result == "failed"
        assert "App registrations" in found.fix


async def test_nothing_can_be_proved_after_the_end(tmp_path: Path) -> None:
    """An administrator has to bring another certificate: that is said, and the new file begins anew."""
    async with open_keys(tmp_path) as keys:
        keys.clock.advance(366 * DAY)
        found = await look(keys)
        assert found.result == "failed"
        assert "has ended" in found.trouble
        assert "administrator" in found.fix
        assert "addKey" not in keys.fake.calls


async def test_an_end_that_passes_while_the_new_key_waits_harms_nobody(tmp_path: Path) -> None:
    async with open_keys(tmp_path) as keys:
        keys.clock.advance(364 * DAY - 3600)
        keys.fake.lag = 2 * 3600.0
        assert (await look(keys)).result == "waits"
        keys.clock.advance(3 * 3600)
        found = await look(keys)
        assert found.result == "renewed", found
        assert await keys.sends()


async def test_a_clock_that_is_set_back_holds_nothing_up(tmp_path: Path) -> None:
    """It was days ahead when Microsoft was asked, and then set right."""
    async with open_keys(tmp_path) as keys:
        keys.clock.advance(DUE)
        keys.clock.set(timedelta(days=20))
        keys.fake.answers["addKey"] = [http(400, {"error": {"code": "x"}})]
        assert (await look(keys)).result == "failed"
        keys.clock.set(-timedelta(days=15))
        assert (await look(keys)).result == "renewed"


async def test_an_order_begins_at_once(tmp_path: Path) -> None:
    """Long before the end; and never are keys removed that are not ours."""
    async with open_keys(tmp_path) as keys:
        keys.fake.hold("somebody-elses", keys.fake.keys[FIRST].certificate)
        assert (await look(keys, ordered=True)).result == "renewed"
        keys.clock.advance(DAY)
        assert (await look(keys)).result == "removed"
        assert set(keys.fake.keys) >= {"somebody-elses"}
        assert FIRST not in keys.fake.keys


async def test_a_removal_that_is_refused_is_tried_the_next_day(tmp_path: Path) -> None:
    """A key that proves nothing yet (401), and one that is gone already: neither harms."""
    async with open_keys(tmp_path) as keys:
        await look(keys, ordered=True)
        keys.clock.advance(DAY)
        keys.fake.answers["removeKey"] = [error(401, "Authentication_MissingOrMalformed")]
        found = await look(keys)
        assert found.result == "failed"
        assert FIRST in found.fix
        keys.clock.advance(3600)
        assert (await look(keys)).result == "kept"
        del keys.fake.keys[FIRST]  # by hand
        keys.clock.advance(DAY)
        assert (await look(keys)).result == "removed"
        assert kept(tmp_path)[1]["old"] == []


async def test_without_its_id_the_first_is_left_and_told(tmp_path: Path) -> None:
    async with open_keys(tmp_path, certificate_id="") as keys:
        found = await look(keys, ordered=True)
        assert "by hand, thumbprint" in found.summary
        keys.clock.advance(2 * DAY)
        assert (await look(keys)).result == "kept"
        assert FIRST in keys.fake.keys


async def test_two_at_once_renew_it_once(tmp_path: Path) -> None:
    """Two backends with one certificate, or two instances on one spool: one key, and both use it."""
    async with open_keys(tmp_path) as keys:
        keys.clock.advance(DUE)
        other = Graph("second", keys.settings, keys.context)
        found = await asyncio.gather(look(keys), other.renew())
        assert sorted(one.result for one in found if one) == ["kept", "renewed"]
        assert keys.fake.calls.count("addKey") == 1
        del keys.fake.keys[FIRST]
        assert (await other.check()).ok
        await other.aclose()


async def test_what_is_kept_is_damaged(tmp_path: Path) -> None:
    """The first certificate counts then, and somebody is told."""
    async with open_keys(tmp_path) as keys:
        await look(keys, ordered=True)
        kept(tmp_path)[0].write_text('{"current": 1}')
        found = await look(keys)
        assert found.result == "failed"
        assert "damaged" in found.trouble
        assert await keys.sends()


async def test_no_key_is_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in what is told nor in a log or a representation, whatever the answers quote."""
    caplog.set_level(0)
    async with open_keys(tmp_path) as keys:
        keys.clock.advance(DUE)

        async def quoting(request: Any) -> bytes:
            return error(400, "Bad", f"you sent {request.body.decode()} {request.headers['authorization']}")

        keys.fake.answers["addKey"] = [quoting]
        told = [await look(keys), await look(keys, ordered=True), await keys.backend.check()]
        state = kept(tmp_path)[1]
        secret = "".join(state["current"]["private_key"].splitlines()[1:-1])
        ring = Keyring(Source(tmp_path / "first.pem"), CLIENT, tmp_path, None)
        shown = f"{told!r} {caplog.text} {keys.signals!r} {ring.look()!r}"
        assert ring.look().state.current
        assert "eyJ" not in shown
        assert secret[40:80] not in shown.replace("\\n", "")
        assert "PRIVATE KEY" not in shown


WRONG = {
    "no certificate": (
        {"certificate_file": None, "client_secret": "x" * 40},
        "certificate_renew needs certificate_file",
    ),
    "no object id": ({"object_id": ""}, "certificate_renew needs object_id"),
    "a name": ({"object_id": "gateway"}, "no GUID"),
}


@pytest.mark.parametrize(("changed", "said"), WRONG.values(), ids=WRONG)
async def test_settings_that_cannot_renew(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        async with open_keys(tmp_path, **changed):
            raise AssertionError


async def test_its_end_is_that_of_the_key_in_use(tmp_path: Path) -> None:
    """Not that of the file, which ends and does not matter any more."""
    async with open_keys(tmp_path) as keys:
        assert [str(one.ends.date()) for one in examined(keys, tmp_path)] == [str((START + timedelta(days=365)).date())]
        keys.clock.advance(DUE)
        await look(keys)
        (one,) = examined(keys, tmp_path)
        assert one.renews
        assert one.ends > START + timedelta(days=700)


def examined(keys: Keys, folder: Path) -> list[Ending]:
    return [one for one in keys.settings.examine("office", folder) if isinstance(one, Ending)]


async def test_smtp_renews_with_the_same_settings(tmp_path: Path) -> None:
    """Tokens for Exchange's submission, and for the renewal one for Graph."""
    async with open_keys(tmp_path) as keys:
        given = keys.settings.model_dump(include=SHARED_SETTINGS)
        login = MicrosoftLoginSettings.model_validate(given).login("out", "a@corp.example", keys.context)
        assert isinstance(login, Renews)
        found = await login.renew(ordered=True)
        assert found is not None
        assert found.result == "renewed"
        await login.aclose()


SHARED_SETTINGS = {
    "tenant", "client_id", "certificate_file", "certificate_renew", "object_id", "certificate_id", "authority",
    "api_base",
}  # fmt: skip
