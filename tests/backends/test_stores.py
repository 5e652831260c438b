"""Sign-ins that providers change: kept in a file, or by all instances on a spool; what is newer is never replaced."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.google.gmail import Gmail
from gateway.backends.microsoft.graph import Graph
from gateway.backends.microsoft.tokens import DeviceLogin
from gateway.backends.shared.oauth import BlockingHttp
from gateway.backends.shared.stores import FileStore, Store, Unkept, Unreadable, sign_in_of
from gateway.model import Outcome, Verdict
from tests.backends import gmail_fake, graph_fake
from tests.backends.gmail_fake import REFRESH, authorized_user_info, stored
from tests.backends.graph_fake import LIFE, MAILBOX
from tests.backends.kit import RAW, http, spooled

SIGNED_IN: dict[str, Any] = {"client_secret": None, "device_login": True, "mailbox": "me", "senders": [MAILBOX]}


@dataclass
class Together:
    """What instances share, as the spool keeps it. ``meanwhile`` is done once after a read."""

    values: dict[str, bytes] = field(default_factory=dict)
    fault: Exception | None = None
    meanwhile: Callable[[], object] | None = None

    def __call__(self, name: str) -> Store:
        return _Shared(self, name)


@dataclass
class _Shared:
    of: Together
    name: str

    @property
    def shown(self) -> str:
        return f"{self.name} in the spool"

    def read(self) -> bytes | None:
        if self.of.fault:
            raise self.of.fault
        found = self.of.values.get(self.name)
        if done := self.of.meanwhile:
            self.of.meanwhile = None
            done()
        return found

    def write(self, value: bytes, before: bytes | None) -> bool:
        if self.of.fault:
            raise self.of.fault
        if self.of.values.get(self.name) != before:
            return False
        self.of.values[self.name] = value
        return True

    def put(self, value: bytes) -> None:
        self.of.values[self.name] = value


# -- stores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "shared", "adopted"])
def test_what_is_newer_stays(tmp_path: Path, kind: str) -> None:
    file, together = tmp_path / "oauth-x.json", Together()
    store = sign_in_of("x", file, None if kind == "file" else together)
    if kind == "adopted":
        file.write_bytes(b"one")
    else:
        assert store.read() is None
        assert store.write(b"one", None)
    assert store.read() == b"one"
    assert not store.write(b"three", None)
    assert not store.write(b"three", b"zero")
    assert store.write(b"two", b"one")
    store.put(b"four")
    assert not store.write(b"three", b"two")
    assert store.read() == b"four"
    assert file.exists() == (kind != "shared")
    assert together.values == ({} if kind == "file" else {"sign-in:x": b"four"})


def test_the_file_counts_only_until_something_is_shared(tmp_path: Path) -> None:
    """Of two instances that come with a file each, the first is heard."""
    together = Together()
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
        assert sign_in_of("x", tmp_path / name, together).read() == b"a"
    together.values.clear()
    together.meanwhile = lambda: together.values.update({"sign-in:x": b"b"})  # was quicker
    assert sign_in_of("x", tmp_path / "a", together).read() == b"b"


def test_a_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (folder := tmp_path / "x").mkdir()
    with pytest.raises(Unreadable, match="Is a directory"):
        FileStore(folder).read()
    assert not FileStore(folder).write(b"1", None)
    with pytest.raises(Unkept, match="No such file") as told:
        FileStore(tmp_path / "missing" / "x").write(b"1", None)
    assert "can write" in told.value.fix


# -- Microsoft -------------------------------------------------------------------------------------------------------


class Instances:
    """Two instances, each with a folder of its own, and a provider where a refresh token is good once."""

    def __init__(self, way: graph_fake.Way, folder: Path) -> None:
        self.way, self.together = way, Together()
        way.fake.mailboxes.add("me")
        contexts = []
        for name in ("a", "b"):
            (folder / name).mkdir()
            contexts.append(replace(way.context, state_dir=folder / name, shared=self.together))
        self.a, self.b = (Graph("office", way.settings, context) for context in contexts)
        self.contexts = contexts

    async def sign_in(self) -> None:
        """With the first instance's command."""
        identity = self.way.settings.identity("office", self.contexts[0].state_dir, self.together)
        login = DeviceLogin(identity, BlockingHttp(self.way.context.fetch, asyncio.get_running_loop()))
        await asyncio.to_thread(login.start)
        self.way.fake.signed_in = True
        assert await asyncio.to_thread(login.finish) == MAILBOX

    async def sends(self, backend: Graph) -> Outcome:
        self.way.clock.advance(61)  # whatever was refused before is asked again
        return (await backend.send(spooled("b@x.example"), RAW))["b@x.example"]

    @property
    def kept(self) -> str:
        cache = json.loads(self.together.values["sign-in:office"])
        [entry] = cache["RefreshToken"].values()
        return str(entry["secret"])

    def rotated_by_another(self) -> None:
        """Another instance was quicker: the token it used is void."""
        before, fresh = self.kept, self.way.fake.next_refresh_token()
        self.way.fake.refresh_tokens.discard(before)
        value = self.together.values["sign-in:office"].decode().replace(f'"{before}"', f'"{fresh}"')
        self.together.values["sign-in:office"] = value.encode()


async def test_a_sign_in_at_one_instance_is_one_at_all(tmp_path: Path) -> None:
    """And so is each refresh token that takes the place of another; no file is written."""
    async with graph_fake.open_way(tmp_path, **SIGNED_IN) as way:
        both = Instances(way, tmp_path)
        assert "nobody has signed in" in (await both.sends(both.a)).detail
        await both.sign_in()
        for backend in (both.b, both.a, both.b):
            used = both.kept
            assert (await both.sends(backend)).verdict is Verdict.SENT
            assert both.kept != used
            way.fake.refresh_tokens.discard(used)
            way.clock.advance(LIFE)
        assert (await both.b.check()).facts["signed in"] == MAILBOX
        assert list(tmp_path.rglob("oauth*")) == []


async def test_a_refresh_that_another_instance_has_overtaken_goes_on_with_the_newer_one(tmp_path: Path) -> None:
    async with graph_fake.open_way(tmp_path, **SIGNED_IN) as way:
        both = Instances(way, tmp_path)
        await both.sign_in()
        both.together.meanwhile = both.rotated_by_another
        assert (await both.sends(both.b)).verdict is Verdict.SENT
        assert [form["refresh_token"] for form in way.fake.forms[-2:]] == ["rt-1", "rt-2"]
        assert both.kept == "rt-3"


async def test_a_refresh_never_takes_the_place_of_a_newer_sign_in(tmp_path: Path) -> None:
    """Somebody signs in while the answer is on its way: that stays, and the answer is good all the same."""
    async with graph_fake.open_way(tmp_path, **SIGNED_IN) as way:
        both = Instances(way, tmp_path)
        await both.sign_in()
        newer = both.together.values["sign-in:office"].replace(b'"rt-1"', b'"rt-new"')

        def sign_in(_: object) -> bytes:
            both.together.values["sign-in:office"] = newer
            way.fake.answers.clear()
            return way.fake(way.web.requests[-1])  # type: ignore[return-value]

        way.fake.answers["token"] = [sign_in]
        assert (await both.sends(both.a)).verdict is Verdict.SENT
        assert both.together.values["sign-in:office"] == newer


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [(Unkept("the spool is away", "look at the log"), Verdict.DEFERRED),
     (Unreadable("sealed with another key"), Verdict.MISCONFIGURED)],
)  # fmt: skip
async def test_what_cannot_be_read_is_told(tmp_path: Path, fault: Exception, verdict: Verdict) -> None:
    async with graph_fake.open_way(tmp_path, **SIGNED_IN) as way:
        both = Instances(way, tmp_path)
        await both.sign_in()
        both.together.fault = fault
        outcome = await both.sends(both.a)
        assert (outcome.verdict, str(fault) in outcome.detail) == (verdict, True)
        assert (await both.a.check()).facts["signed in"] == "nobody"
        both.together.fault = None
        assert (await both.sends(both.a)).verdict is Verdict.SENT


async def test_a_sign_in_from_before_the_spool_was_shared_goes_on(tmp_path: Path) -> None:
    async with graph_fake.open_way(tmp_path, **SIGNED_IN) as way:
        both = Instances(way, tmp_path)
        await both.sign_in()
        (tmp_path / "b" / "oauth-office.json").write_bytes(both.together.values.pop("sign-in:office"))
        assert "nobody has signed in" in (await both.sends(both.a)).detail
        for backend in (both.b, both.a):
            assert (await both.sends(backend)).verdict is Verdict.SENT


async def test_a_sign_in_in_the_file_while_a_refresh_is_refused_counts(tmp_path: Path) -> None:
    """One instance alone, too: the command may run beside the service."""
    async with graph_fake.open_way(tmp_path, **SIGNED_IN) as way:
        both = Instances(way, tmp_path)
        await both.sign_in()
        kept = both.together.values["sign-in:office"]
        file = tmp_path / "oauth-office.json"
        file.write_bytes(kept.replace(b'"rt-1"', b'"rt-0"'))

        def refuse(_: object) -> bytes:
            file.write_bytes(kept)
            return graph_fake.refusal(400, "invalid_grant", 700082)

        way.fake.answers["token"] = [refuse]
        assert (await way.one()).verdict is Verdict.SENT
        assert b'"rt-2"' in file.read_bytes()


# -- Google ----------------------------------------------------------------------------------------------------------

SECOND, THIRD = "1//second-hunter2", "1//third-hunter2"


async def test_a_refresh_token_that_google_replaces_is_replaced_at_all_instances(tmp_path: Path) -> None:
    """The file that all were given stays as it is; a new one is a new sign-in, at whomever it is."""
    async with gmail_fake.open_way(tmp_path, authorized_user_info()) as way:
        together = Together()
        context = replace(way.context, shared=together)

        async def sends(instance: Gmail) -> Verdict:
            way.fake.tokens.clear()
            way.clock.advance(7200)
            return (await instance.send(spooled("b@x.example"), RAW))["b@x.example"].verdict

        a, b = (Gmail("gm", way.settings, context) for _ in "ab")
        for instance, now, following in ((a, REFRESH, SECOND), (b, SECOND, THIRD), (a, THIRD, None)):
            way.fake.refresh_token, way.fake.more = now, {"refresh_token": following}
            assert await sends(instance) is Verdict.SENT
        assert list(together.values.values()) == [THIRD.encode()]
        assert json.loads(way.settings.file.read_text()) == authorized_user_info()
        stored(tmp_path, authorized_user_info(refresh_token="1//anew-hunter2"))
        way.fake.refresh_token = "1//anew-hunter2"
        assert await sends(b) is Verdict.SENT
        assert way.fake.token_requests[-1]["refresh_token"] == "1//anew-hunter2"


async def test_a_google_refresh_that_another_instance_has_overtaken_goes_on_with_the_newer_one(tmp_path: Path) -> None:
    async with gmail_fake.open_way(tmp_path, authorized_user_info()) as way:
        together = Together()
        backend = Gmail("gm", way.settings, replace(way.context, shared=together))
        way.fake.more = {"refresh_token": SECOND}
        assert (await backend.send(spooled("b@x.example"), RAW))["b@x.example"].verdict is Verdict.SENT
        [name] = together.values
        way.fake.tokens.clear()
        way.clock.advance(7200)
        way.fake.refresh_token, way.fake.more = THIRD, {}
        together.meanwhile = lambda: together.values.update({name: THIRD.encode()})
        assert (await backend.send(spooled("b@x.example"), RAW))["b@x.example"].verdict is Verdict.SENT
        assert together.values == {name: THIRD.encode()}


async def test_a_google_token_that_cannot_be_shared_lives_on_in_memory(tmp_path: Path) -> None:
    """And the log says so; where it cannot be read, mail waits."""
    async with gmail_fake.open_way(tmp_path, authorized_user_info()) as way:
        together = Together()
        backend = Gmail("gm", way.settings, replace(way.context, shared=together))

        async def sends() -> Verdict:
            way.fake.tokens.clear()
            way.clock.advance(7200)
            return (await backend.send(spooled("b@x.example"), RAW))["b@x.example"].verdict

        fault = Unkept("the spool is away", "look at the log")
        way.fake.more = {"refresh_token": SECOND}
        together.meanwhile = lambda: setattr(together, "fault", fault)
        assert await sends() is Verdict.SENT
        assert [event for event, _ in way.signals.warnings] == ["refresh_token_not_saved"]
        assert await sends() is Verdict.DEFERRED
        together.fault = None
        way.fake.refresh_token, way.fake.more = SECOND, {"refresh_token": THIRD}
        assert await sends() is Verdict.SENT
        assert list(together.values.values()) == [THIRD.encode()]


async def test_a_google_sign_in_while_a_refresh_is_under_way_stays(tmp_path: Path) -> None:
    """One instance alone: what comes back is older than what somebody has just put there."""
    async with gmail_fake.open_way(tmp_path, authorized_user_info()) as way:
        anew = authorized_user_info(refresh_token="1//anew-hunter2")

        def answer(_: object) -> bytes:
            stored(tmp_path, anew)
            token = {"access_token": "ya29.x-hunter2", "expires_in": 3600, "token_type": "Bearer"}
            return http(200, {**token, "refresh_token": SECOND, "scope": way.fake.granted})

        way.fake.token_answers = [answer]
        await way.one()
        assert way.fake.token_answers == []
        assert json.loads(way.settings.file.read_text()) == anew
