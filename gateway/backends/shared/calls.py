"""For APIs that mail whoever stands in the header: which calls to make, so that exactly the envelope gets the mail."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from gateway import message as mime
from gateway.address import comparable
from gateway.backends.shared.base import NoAnswer, safe, unrecorded
from gateway.clock import Clock
from gateway.model import BadMessage, CannotCarry, Outcome, Progress, Scope, SpooledMessage, Verdict
from gateway.pools import look_through_mail

BUDGET = 600.0  # seconds; no further call for this attempt begins after that
_SPLITS = 200  # of calls in one attempt: who is left is tried apart in the next
_NO_TIME = Outcome(Verdict.DEFERRED, enhanced="4.4.5", detail="no time left for this recipient in this attempt")
_NOT_APART = Outcome(
    Verdict.DEFERRED, enhanced="4.4.5", detail="refused with others of whom many are refused; the next attempt goes on"
)
_UNWRITTEN = Outcome(Verdict.DEFERRED, enhanced="4.3.1", detail="not tried: what was sent cannot be written down now")


@dataclass(frozen=True, slots=True)
class Call:
    """Whom one call serves, and what makes the MIME or JSON that says so. ``key`` is the backend's own name for it.

    ``part`` makes the calls for some of these, in the place of this one.
    """

    addresses: tuple[str, ...]
    content: Callable[[], bytes] = field(repr=False)  # it may hold a client's token
    key: str = ""
    part: Callable[[tuple[str, ...]], Iterable[Call]] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """``note`` is what has to be told of the message in every outcome."""

    calls: tuple[Call, ...]
    note: str = ""


def plan(
    message: SpooledMessage, raw: bytes, *, per_call: int, header_only: Literal["strip", "reject"], hides_bcc: bool
) -> Plan:
    """The calls for an attempt, each with at most ``per_call`` recipients.

    ``hides_bcc``: the API delivers to Bcc and discloses it to nobody; else every blind recipient gets a call of his
    own. People in To or Cc who are not to get this message are stripped there. Raises CannotCarry when it cannot go.
    """
    if not message.envelope.sender:
        raise CannotCarry("null_sender", "5.7.1", "this API cannot send with the null sender")
    header = mime.scan(raw)
    split = mime.split_recipients(header, message.envelope)
    known = {comparable(address) for address in message.everyone}  # an attempt may be for fewer than the envelope
    strangers = [address for address in split.header_only if comparable(address) not in known]
    note = safe(f"; in To or Cc but not addressed, so stripped: {', '.join(strangers)}") if strangers else ""
    if strangers and header_only == "reject":
        raise CannotCarry("feature", "5.6.2", f"header_only is reject{note}")
    everyone = split.visible + split.blind if hides_bcc else split.visible
    visible = set(split.visible)

    def call(chunk: tuple[str, ...]) -> Call:
        seen, blind = ([one for one in chunk if (one in visible) is shown] for shown in (True, False))
        narrowed = partial(mime.readdress, raw, header, seen)
        content = partial(mime.address_call, raw, header, seen, blind) if hides_bcc else narrowed
        return Call(chunk, content, part=lambda some: (call(some),))

    calls = [call(everyone[start : start + per_call]) for start in range(0, len(everyone), per_call)]
    if not hides_bcc:
        calls += [Call((address,), partial(mime.address_to, raw, header, address)) for address in split.blind]
    return Plan(tuple(calls), note)


async def carry_out(
    message: SpooledMessage,
    planned: Callable[[], Plan],
    make: Callable[[Call], Awaitable[Mapping[str, Outcome]]],
    clock: Clock,
    progress: Progress = unrecorded,
    *,
    slow: bool = False,
) -> dict[str, Outcome]:
    """Make the calls in order until the provider takes no more; whoever was not tried is told why.

    For whom a call brings no outcome is in the next. A call that is refused for what may be one recipient's fault is
    made again in parts, until he is alone. What was sent is told to ``progress`` before the next call. ``slow``
    planning is done in a thread. Planning and calls may raise CannotCarry, BadMessage and NoAnswer.
    """
    everyone = tuple(recipient.address for recipient in message.envelope.recipients)
    try:
        to_do = await look_through_mail(planned) if slow else planned()
    except (CannotCarry, BadMessage, NoAnswer) as error:
        return dict.fromkeys(everyone, _outcome(error))
    outcomes: dict[str, Outcome] = {}
    notes: dict[str, str] = {}
    waiting, splits = deque(to_do.calls), 0
    rest: Outcome | None = None
    stop_at = clock.monotonic() + BUDGET
    while waiting:
        call = waiting.popleft()
        rest = rest or (_NO_TIME if clock.monotonic() > stop_at else None)
        results = dict.fromkeys(call.addresses, rest) if rest else await _made(make, call)
        if rest is None and (parts := _apart(call, results)):
            splits += 1
            if splits <= _SPLITS:
                waiting.extendleft(reversed(parts))
                for address in call.addresses:
                    notes.setdefault(address, f"; apart, after a call for {len(call.addresses)} was refused")
                continue
            results = dict.fromkeys(call.addresses, _NOT_APART)
        outcomes.update(results)
        left = tuple(address for address in call.addresses if address not in results)
        if left and call.part:
            waiting.extendleft(reversed([*call.part(left)]))
        rest = rest or _stop(results)
        sent = {address: outcome for address, outcome in results.items() if outcome.verdict is Verdict.SENT}
        if sent and waiting and rest is None and not await progress(sent):
            rest = _UNWRITTEN
    if not notes and not to_do.note:
        return outcomes
    said = {address: f"{one.detail}{notes.get(address, '')}{to_do.note}" for address, one in outcomes.items()}
    return {address: replace(outcome, detail=said[address]) for address, outcome in outcomes.items()}


async def _made(make: Callable[[Call], Awaitable[Mapping[str, Outcome]]], call: Call) -> Mapping[str, Outcome]:
    try:
        return await make(call)
    except (CannotCarry, BadMessage, NoAnswer) as error:
        return dict.fromkeys(call.addresses, _outcome(error))


def _apart(call: Call, results: Mapping[str, Outcome]) -> list[Call]:
    """The calls in the place of one for several of whom one may be to blame; none where that is not so.

    All were refused alike, so nothing was sent. Whom the answer names is tried apart from the others, to be sure that
    it is he; else each half is. A server that failed (5xx) has judged nobody, and may have sent to some.
    """
    if call.part is None or len(call.addresses) < 2 or len(results) < len(call.addresses):
        return []
    outcome, *others_said = set(results.values())
    if others_said:
        return []
    refused = outcome.verdict is Verdict.REJECTED or (
        outcome.verdict is Verdict.DEFERRED and (outcome.code or 500) < 500
    )
    if not refused or outcome.scope is not Scope.RECIPIENT or outcome.said_by == "smtp":  # which says it of each
        return []
    named = tuple(address for address in call.addresses if names(outcome.detail, address))
    others = tuple(address for address in call.addresses if address not in named)
    if not named or not others:
        half = len(call.addresses) // 2
        others, named = call.addresses[:half], call.addresses[half:]
    return [*call.part(others), *call.part(named)]


def names(text: str, address: str) -> bool:
    """Whether a provider's words speak of this address."""
    if address.lower() not in text.lower():  # of hundreds nearly all
        return False
    return re.search(rf"(?<![\w.+-]){re.escape(address)}(?![\w-])", text, re.IGNORECASE) is not None


def _outcome(error: CannotCarry | BadMessage | NoAnswer) -> Outcome:
    if isinstance(error, NoAnswer):
        return error.outcome
    enhanced = error.enhanced if isinstance(error, CannotCarry) else "5.6.0"
    return Outcome(Verdict.REJECTED, enhanced=enhanced, detail=error.text)


def _stop(results: Mapping[str, Outcome]) -> Outcome | None:
    """What the recipients of later calls get untried, once the provider takes no more; None to go on."""
    for outcome in results.values():
        if outcome.verdict is Verdict.IN_DOUBT:
            return Outcome(Verdict.DEFERRED, enhanced="4.4.2", detail=f"not tried after: {outcome.detail}")
        # What has to wait for one recipient alone keeps no others waiting.
        if outcome.verdict not in (Verdict.SENT, Verdict.REJECTED) and outcome.scope is not Scope.RECIPIENT:
            return outcome
    return None
