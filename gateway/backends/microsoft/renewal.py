"""A certificate renews itself: a new key is added by proof of the old one, used, and the old one removed another day.

An application may roll its own keys without any permission (learn.microsoft.com/graph/api/application-addkey,
application-removekey). What is done next is put down before it is done: whenever this is killed, the next look goes on,
and the key in use is good all the while.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from gateway.backends.microsoft import certificate, keypair, tokens
from gateway.backends.microsoft.api import error_of
from gateway.backends.microsoft.certificate import Pair
from gateway.backends.microsoft.keyring import Kept, Key, Keyring, State, put
from gateway.backends.shared.base import Context, NoAnswer, refused, safe
from gateway.backends.shared.http import exchange
from gateway.backends.shared.oauth import BlockingHttp, in_token_thread
from gateway.backends.shared.stores import Unkept, Unreadable
from gateway.checks import Renewed
from gateway.fetch import Answer
from gateway.strangers import lenient_json

BEFORE = timedelta(days=30)  # the end
_DAY = 86400.0
_LOOKS = 3600.0  # seconds from one look to the next
_FIRST = 15.0  # seconds until a key that was just added is tried once more, then twice as many
_SETTLES = 1200.0  # ... for which nobody need hear of it
_LEASE = 300.0  # seconds for which others keep off
_IN_ALL = 240.0  # seconds for one look, whatever it asks
_TIMEOUT = timedelta(seconds=30)
_UPLOAD = (
    "make a certificate, upload it as an administrator (App registrations > Certificates & secrets), and put it with "
    "its key into certificate_file (docs/microsoft365.md)"
)
_PROOF = (
    "object_id must be the Object ID that App registrations > Overview shows, not that of Enterprise applications; "
    "else see whether the certificate in use is still there (Certificates & secrets), and this machine's clock right"
)
_POLICY = (
    "the tenant's policy for applications may forbid it, or want certificates of its own authority: then take "
    f"certificate_renew out, and in time {_UPLOAD}"
)
_FIXES = {401: _PROOF, 403: _PROOF, 404: _PROOF, 400: _POLICY}


@dataclass(frozen=True, slots=True)
class Application:
    """As App registrations shows it. ``first_id`` is what it calls the certificate of certificate_file, "" unknown."""

    object_id: str
    first_id: str
    root: str  # of Microsoft Graph


class _Overtaken(Exception):
    """Somebody else has changed what is kept."""


class _Turn:
    """What is kept, while it is ours to change."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept

    async def put(self, **changes: Any) -> None:
        """Raises Unkept, _Overtaken."""
        await self.become(replace(self.kept.state, **changes))

    async def become(self, state: State) -> None:
        found = await in_token_thread(partial(put, self.kept, state))
        if found is None:
            raise _Overtaken
        self.kept = found


class Renewal:
    """Of the key of one backend."""

    def __init__(self, identity: tokens.Identity, ring: Keyring, application: Application, context: Context) -> None:
        self._identity = identity
        self._ring = ring
        self._application = application
        self._context = context
        self._clock = context.clock

    async def look(self, *, ordered: bool = False) -> Renewed:
        """One step, where one is due. ``ordered``: begin now. Nothing expected is raised."""
        name = self._identity.name
        try:
            async with asyncio.timeout(_IN_ALL):
                return await self._look(ordered)
        except certificate.Unusable as error:
            return _failed(str(error), f"{error.fix} (backends.{name}.{error.setting})")
        except Unreadable as error:
            fix = f"bring it back from a backup; or remove it, and certificate_file counts; if that ended, {_UPLOAD}"
            return _failed(str(error), fix)
        except Unkept as error:
            return _failed(str(error), error.fix)
        except TimeoutError:
            return _failed(f"no end within {_IN_ALL:g} s", "see whether this machine reaches Microsoft")

    async def facts(self) -> dict[str, str]:
        """For people."""
        try:
            kept = await in_token_thread(self._ring.look)
        except (certificate.Unusable, Unreadable, Unkept) as error:
            return {"certificate": str(error)}
        return {"certificate": _told(kept), "certificate kept in": kept.store.shown}

    async def _look(self, ordered: bool) -> Renewed:
        kept = await in_token_thread(self._ring.look)
        self._context.signals.credential_ends(self._identity.name, kept.pair.ends.timestamp())
        step = self._due(kept, ordered)
        if step is None:
            return _seen(kept)
        now = self._now()
        if 0.0 < kept.state.busy - now <= 2 * _LEASE:
            return replace(_seen(kept), summary="it is being renewed just now", again=_FIRST)
        turn = _Turn(kept)
        try:
            await turn.put(busy=now + _LEASE)
            return await step(turn)
        except NoAnswer as error:
            return await self._trouble(turn, error.outcome.detail, error.outcome.fix)
        except _Overtaken:
            return replace(_seen(turn.kept), summary="somebody else is at it", again=_FIRST)

    def _due(self, kept: Kept, ordered: bool) -> Callable[[_Turn], Awaitable[Renewed]] | None:
        state, now = kept.state, self._now()
        if state.next is not None:
            return partial(self._try, ordered=ordered)
        soon = kept.pair.ends.timestamp() - now <= BEFORE.total_seconds()
        if ordered or (soon and _past(state.asked, now)):
            return self._begin
        if state.old and _past(max(state.switched, state.cleaned), now):
            return self._clean
        return None

    async def _begin(self, turn: _Turn) -> Renewed:
        token = await self._own_token(turn)  # without it nothing was asked yet
        pair = await in_token_thread(partial(keypair.make, self._clock.now()))
        return await self._ask(turn, Key("", pair.certificate, pair.private_key), token)

    async def _ask(self, turn: _Turn, key: Key, token: str) -> Renewed:
        """To take the key. It is kept before that: then a lost answer, and a kill, lose nothing."""
        await turn.put(next=key, unsure=True, asked=self._now(), tries=0)
        wanted = {
            "type": "AsymmetricX509Cert",
            "usage": "Verify",
            "key": base64.b64encode(keypair.der(key.pair)).decode(),
        }
        answer = await self._call("addKey", token, turn.kept.pair, keyCredential=wanted, passwordCredential=None)
        given = lenient_json(answer.body).get("keyId")
        if answer.status == 200 and isinstance(given, str) and given:
            await turn.put(next=replace(key, id=given), unsure=False)
            return await self._try(turn)
        if answer.status in range(400, 500) and answer.status not in (408, 429):
            await turn.put(next=None, unsure=False)
        return await self._trouble(turn, _said("addKey", answer, token), _FIXES.get(answer.status, ""))

    async def _try(self, turn: _Turn, *, ordered: bool = False) -> Renewed:
        """Does the next key give a token? Then it is the one from now on."""
        state = turn.kept.state
        assert state.next is not None
        try:
            await self._token(state.next.pair)
        except NoAnswer as error:
            return await self._not_yet(turn, error, ordered=ordered)
        before = state.current.id if state.current else self._application.first_id
        old = (*state.old, before) if before else state.old
        unknown = "" if before else f"; remove the old one by hand, thumbprint {keypair.thumbprint(turn.kept.pair)}"
        switched = replace(State(), current=state.next, old=old, asked=state.asked, switched=self._now())
        await turn.become(switched)
        self._context.signals.credential_ends(self._identity.name, turn.kept.pair.ends.timestamp())
        return replace(_seen(turn.kept), result="renewed", summary=f"{_told(turn.kept)}{unknown}")

    async def _not_yet(self, turn: _Turn, error: NoAnswer, *, ordered: bool) -> Renewed:
        """Microsoft's servers learn of a new key one after the other (AADSTS700027 until then)."""
        state, asked_for = turn.kept.state, self._now() - turn.kept.state.asked
        assert state.next is not None
        if state.unsure and (ordered or asked_for >= _DAY):
            return await self._ask(turn, state.next, await self._own_token(turn))
        if not state.unsure and asked_for >= _DAY:  # then another one
            await turn.put(next=None, old=(*state.old, state.next.id))
        trouble = f"a new key was {'sent' if state.unsure else 'added'} and gives no token: {error.outcome.detail}"
        if asked_for >= _SETTLES:
            return await self._trouble(turn, trouble, error.outcome.fix)
        await turn.put(busy=0.0, tries=state.tries + 1)
        again = min(_FIRST * 2.0**state.tries, _LOOKS)
        summary = "the new key is there, and used as soon as Microsoft gives tokens for it; until then the old one is"
        return replace(_seen(turn.kept), result="waits", summary=summary, again=again)

    async def _clean(self, turn: _Turn) -> Renewed:
        """Remove keys of ours that are not used any more, and no others."""
        state, pair = turn.kept.state, turn.kept.pair
        token, left, said = await self._own_token(turn), list[str](), ""
        for ident in state.old:
            answer = await self._call("removeKey", token, pair, keyId=ident)
            if answer.status != 204 and "no credentials found" not in error_of(answer)[1].lower():
                left.append(ident)
                said = _said("removeKey", answer, token)
        await turn.put(old=tuple(left), cleaned=self._now(), busy=0.0)
        if left:
            fix = f"nothing is lost: it is tried again tomorrow; or remove it by hand, Certificate ID {', '.join(left)}"
            return replace(_seen(turn.kept), result="failed", summary=said, trouble=said, fix=fix)
        return replace(_seen(turn.kept), result="removed", summary="the old key is removed")

    async def _trouble(self, turn: _Turn, trouble: str, fix: str) -> Renewed:
        await turn.become(replace(turn.kept.state.failed(trouble, fix), busy=0.0))
        return replace(_seen(turn.kept), result="failed", summary=trouble)

    async def _own_token(self, turn: _Turn) -> str:
        """By the key in use, which then can prove something, too. Raises NoAnswer."""
        pair = turn.kept.pair
        if pair.ends <= self._clock.now():
            raise refused(f"the certificate has ended on {pair.ends:%Y-%m-%d}: it can prove nothing any more", _UPLOAD)
        return await self._token(pair)

    async def _token(self, pair: Pair) -> str:
        """Raises NoAnswer."""
        source = tokens.token_source(replace(self._identity, pair=lambda: pair), self._clock, lambda *_: None)
        http = BlockingHttp(self._context.fetch, asyncio.get_running_loop())
        return (await in_token_thread(partial(source, http))).value

    async def _call(self, what: str, token: str, pair: Pair, **wanted: Any) -> Answer:
        """Raises NoAnswer."""
        application, now = self._application, self._clock.now()
        shown = await in_token_thread(partial(keypair.proof, pair, application.object_id, now))
        url = f"{application.root}/v1.0/applications/{application.object_id}/{what}"
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        body = json.dumps({**wanted, "proof": shown}).encode()
        fetch = self._context.fetch
        return await exchange(fetch, url, headers=headers, content=body, timeout=_TIMEOUT, method="POST")

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _past(then: float, now: float) -> bool:
    """Whether a day has passed; a clock that was wrong, and is set back, holds nothing up."""
    return now - then >= _DAY or then - now > _LEASE


def _said(what: str, answer: Answer, token: str) -> str:
    code, words = error_of(answer)
    return safe(f"{what}: HTTP {answer.status} {code} {words}", token)


def _failed(trouble: str, fix: str) -> Renewed:
    return Renewed("failed", trouble, _LOOKS, trouble=trouble, fix=fix)


def _seen(kept: Kept) -> Renewed:
    state = kept.state
    return Renewed("kept", _told(kept), _LOOKS, ends=kept.pair.ends, trouble=state.trouble, fix=state.fix)


def _told(kept: Kept) -> str:
    ends: datetime = kept.pair.ends
    return f"good until {ends:%Y-%m-%d}, renews itself from {ends - BEFORE:%Y-%m-%d} on"
