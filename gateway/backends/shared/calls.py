"""For APIs that mail whoever stands in the header: which calls to make, so that exactly the envelope gets the mail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from gateway import message as mime
from gateway.address import comparable
from gateway.backends.shared.base import NoAnswer, safe
from gateway.clock import Clock
from gateway.model import BadMessage, CannotCarry, Outcome, Scope, SpooledMessage, Verdict
from gateway.pools import look_through_mail

BUDGET = 600.0  # seconds; no further call for this attempt begins after that


@dataclass(frozen=True, slots=True)
class Call:
    """Whom one call serves, and what makes the MIME or JSON that says so. ``key`` is the backend's own name for it."""

    addresses: tuple[str, ...]
    content: Callable[[], bytes] = field(repr=False)  # it may hold a client's token
    key: str = ""


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
    split = mime.split_recipients(mime.scan(raw), message.envelope)
    known = {comparable(address) for address in message.everyone}  # an attempt may be for fewer than the envelope
    strangers = [address for address in split.header_only if comparable(address) not in known]
    note = safe(f"; in To or Cc but not addressed, so stripped: {', '.join(strangers)}") if strangers else ""
    if strangers and header_only == "reject":
        raise CannotCarry("feature", "5.6.2", f"header_only is reject{note}")
    everyone = split.visible + split.blind if hides_bcc else split.visible
    visible = set(split.visible)
    calls = []
    for start in range(0, len(everyone), per_call):
        chunk = everyone[start : start + per_call]
        seen, blind = ([one for one in chunk if (one in visible) is shown] for shown in (True, False))
        content = partial(mime.address_call, raw, seen, blind) if hides_bcc else partial(mime.readdress, raw, seen)
        calls.append(Call(chunk, content))
    if not hides_bcc:
        calls += [Call((address,), partial(mime.address_to, raw, address)) for address in split.blind]
    return Plan(tuple(calls), note)


async def carry_out(
    message: SpooledMessage,
    planned: Callable[[], Plan],
    make: Callable[[Call], Awaitable[Mapping[str, Outcome]]],
    clock: Clock,
    *,
    slow: bool = False,
) -> dict[str, Outcome]:
    """Make the calls in order until the provider takes no more; whoever was not tried is told why.

    ``slow`` planning is done in a thread. Planning and calls may raise CannotCarry, BadMessage and NoAnswer.
    """
    everyone = tuple(recipient.address for recipient in message.envelope.recipients)
    try:
        to_do = await look_through_mail(planned) if slow else planned()
    except (CannotCarry, BadMessage, NoAnswer) as error:
        return dict.fromkeys(everyone, _outcome(error))
    outcomes: dict[str, Outcome] = {}
    rest: Outcome | None = None
    stop_at = clock.monotonic() + BUDGET
    for call in to_do.calls:
        if rest is None and clock.monotonic() > stop_at:
            detail = "no time left for this recipient in this attempt"
            rest = Outcome(Verdict.DEFERRED, enhanced="4.4.5", detail=detail)
        results: Mapping[str, Outcome]
        try:
            results = dict.fromkeys(call.addresses, rest) if rest else await make(call)
        except (CannotCarry, BadMessage, NoAnswer) as error:
            results = dict.fromkeys(call.addresses, _outcome(error))
        outcomes.update(results)
        rest = rest or _stop(results)
    return {address: replace(outcome, detail=outcome.detail + to_do.note) for address, outcome in outcomes.items()}


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
