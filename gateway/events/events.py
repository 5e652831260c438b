"""Every mail event once: its log line and its metrics together."""

from __future__ import annotations

import atexit
import logging
import math
import os
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

from prometheus_client import CollectorRegistry

from gateway.actor import Order
from gateway.clock import Clock, SystemClock
from gateway.events.afterwards import Afterwards
from gateway.events.alike import alike
from gateway.events.log import Gathering, Libraries, Renderer, Writer, in_journal, make_logger
from gateway.events.memory import Memory
from gateway.events.metrics import MECHANISMS, STAGES, Metrics
from gateway.model import NewMessage, Outcome, SpooledMessage, Verdict
from gateway.quota import Over
from gateway.refusals import Refused

_SHOWN = 20  # recipients of a refused message
_SAID = "stage listener peer helo tls client user sender enhanced reason text detail"
REASONS = frozenset(" ".join(STAGES.values()).split())
_EVENT = {
    Verdict.SENT: "sent",
    Verdict.REJECTED: "failed",
    Verdict.DEFERRED: "deferred",
    Verdict.THROTTLED: "deferred",
    Verdict.MISCONFIGURED: "deferred",
    Verdict.IN_DOUBT: "in_doubt",
}


def _fields(refused: Refused) -> dict[str, Any]:
    """Of a log line: who, which mail, and what he heard."""
    more = {"size": refused.size or None, "code": refused.code or None, "recipients": refused.recipients[:_SHOWN]}
    return {name: getattr(refused, name) for name in _SAID.split()} | more


class Events(Afterwards):
    """The one place that formats a mail-log line and counts it. May be called from any thread.

    ``format`` is auto (console on a terminal, else JSON), json or console; ``level`` debug, info, warning or error.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        format: str = "auto",  # noqa: A002 - the setting's name
        level: str = "info",
        *,
        clock: Clock | None = None,
        stream: TextIO | None = None,
    ) -> None:
        self._stream, self._clock = stream or sys.stderr, clock or SystemClock()
        self._metrics = metrics = Metrics(registry or CollectorRegistry())
        self.declare, self.render, self.queue_gauges = metrics.declare, metrics.render, metrics.queue_gauges
        self.memory = Memory(self._clock)
        self._writer = Writer(self._stream, self._metrics.dropped().inc)
        self.style(format, level)
        self._libraries = Libraries(self._clock, self._warn, self.bug)
        self.on_refusal: Callable[[Refused], None] = lambda refused: None  # who keeps them; quick
        atexit.register(self.close)

    def style(self, format: str, level: str) -> None:  # noqa: A002 - the setting's name
        """From now on in this form, and what is at least so important."""
        console = format == "console" or (format == "auto" and self._stream.isatty())
        renderer = Renderer(console=console, journal=in_journal(self._stream, os.environ))
        self._log = log = make_logger(self._writer, Gathering(self._clock, renderer), level)
        self.info, self.warning, self.error = log.info, log.warning, log.error

    def _warn(self, event: str, **fields: object) -> None:
        self.warning(event, **fields)

    def capture_libraries(self) -> None:
        """Take what libraries report with stdlib logging at WARNING and above; ``close`` gives it back."""
        logging.getLogger().addHandler(self._libraries)

    def flush(self) -> None:
        self._writer.flush(10)

    def close(self) -> None:
        """Write out what is waiting, at most 2 seconds."""
        logging.getLogger().removeHandler(self._libraries)
        atexit.unregister(self.close)
        self._writer.flush(2, stop=True)

    def bug(self, where: str, error: BaseException) -> None:
        """An exception nobody expected: logged with its traceback, and counted."""
        self._metrics.bugs().inc()
        self.memory.bug(where)
        trace = "".join(traceback.format_exception(error))
        self._log.error("bug", where=where, error=type(error).__name__, exception=trace)

    # The door

    def connection_opened(self, listener: str) -> None:
        self._metrics.connections(listener).inc()
        self._metrics.open(listener).inc()

    def connection_closed(self, listener: str) -> None:
        self._metrics.open(listener).dec()

    def listener_gone(self, listener: str) -> None:
        """It was taken out of the settings, and its last session has ended."""
        self._metrics.forget_listener(listener)

    def logged_in(self, listener: str, mechanism: str, peer: str, *, client: str, user: str) -> None:
        self._count_login(listener, mechanism, "ok")
        self._log.info(
            "auth", result="ok", listener=listener, peer=peer, mechanism=mechanism, client=client, user=user
        )  # fmt: skip

    def login_refused(self, refused: Refused, mechanism: str, result: str) -> None:
        """``result`` is failed, unavailable, or refused for too many failures."""
        self._count_login(refused.listener, mechanism, result)
        if result in ("failed", "refused"):
            self.memory.log_in_refused(refused.peer)
        fields = _fields(refused)
        del fields["stage"]
        self._log.warning("auth", result=result, mechanism=mechanism, **fields)
        self._note(refused)

    def _count_login(self, listener: str, mechanism: str, result: str) -> None:
        self._metrics.auth(listener, mechanism if mechanism in MECHANISMS else "other", result).inc()

    def rejected(self, refused: Refused) -> None:
        self._log.info("rejected", **_fields(refused))
        self._note(refused)

    def not_introduced(self, refused: Refused, *, news: bool) -> None:
        """A load balancer's header did not come, or is none; only ``news`` are worth a line, for it is each time so."""
        (self._log.warning if news else self._log.debug)("rejected", **_fields(refused))
        self._note(refused)

    def _note(self, refused: Refused) -> None:
        reason = refused.reason if refused.reason in REASONS else "other"
        self._metrics.rejected(refused.listener, refused.stage, reason).inc()
        self.on_refusal(refused)

    def refusal_dropped(self) -> None:
        """It stands in the log and in the counters, and in no row."""
        self._metrics.refusals_dropped().inc()

    def accepted(self, message: NewMessage, seconds: float) -> None:
        """``seconds`` from the end of DATA to the commit."""
        size, was = len(message.raw), message.envelope.original
        self._metrics.received(message.listener, message.client).inc()
        self._metrics.accept_time(message.listener).observe(seconds)
        self._metrics.size().observe(size)
        self._log.info(
            "accepted", id=message.id, listener=message.listener, peer=message.peer, client=message.client,
            login=message.login, sender=message.envelope.sender,
            recipients=[recipient.address for recipient in message.envelope.recipients], size=size,
            message_id=message.message_id, backends=list(message.deliveries), **({"original": was} if was else {}),
            **({"held": message.held} if message.held else {}),
        )  # fmt: skip

    def over_quota(self, client: str, who: str, over: Over, why: str) -> None:
        """A message or recipient was too many: held, deferred or refused. ``who`` of the client it was, or ""."""
        self._metrics.over_quota(client, over).inc()
        self.memory.over_quota(client, who, over, why)

    def quota_used(self, client: str, ratio: float) -> None:
        """0 for nothing, 1 for all of it."""
        self._metrics.quota_used(client).set(ratio)

    # Mail that comes as files

    def drop_folders(self, names: Collection[str]) -> None:
        """What is configured now; others are forgotten."""
        self._metrics.drop_folders(names)

    def drop_files(self, folder: str, waiting: int, corrupt: int) -> None:
        self._metrics.dropped_files(folder, "waiting").set(waiting)
        self._metrics.dropped_files(folder, "corrupt").set(corrupt)

    def drop_waits(self, folder: str, path: Path, reason: str) -> None:
        self._log.warning("drop_waits", folder=folder, path=str(path), reason=reason)

    def drop_corrupt(self, folder: str, queue_id: str, path: Path, owner: int, detail: str) -> None:
        """A file that is no mail was put aside, as ``path``; ``owner`` is its user id."""
        shown = os.fsencode(path).decode("utf-8", "replace")
        self._log.warning("drop_corrupt", id=queue_id, folder=folder, path=shown, owner=owner, detail=detail)

    # Telling a person

    def alert(self, way: str, subject: str, why: str) -> None:
        """By mail, webhook or command; ``why`` it could not be told, or ""."""
        self._metrics.alerts(way, "failed" if why else "ok").inc()
        (self._log.warning if why else self._log.info)("alert", way=way, subject=subject, ok=not why, detail=why)

    # Delivery

    def attempt(self, queue_id: str, backend: str, attempt: int) -> None:
        self._log.debug("attempt", id=queue_id, backend=backend, attempt=attempt)

    def settled(
        self, message: SpooledMessage, backend: str, outcomes: Mapping[str, Outcome], seconds: float, now: datetime
    ) -> None:
        """One line per distinct outcome. ``now``, of the spool's time, gives the latency since it was queued."""
        groups = alike(outcomes)
        for outcome, addresses in groups:
            self._metrics.deliveries(backend, _EVENT[outcome.verdict]).inc(len(addresses))
        verdicts = {outcome.verdict for outcome, _ in groups}
        self._metrics.attempts(backend, next(iter(verdicts)).value if len(verdicts) == 1 else "mixed").inc()
        self._metrics.delivery_time(backend).observe(seconds)
        if Verdict.SENT in verdicts:
            self._metrics.latency(backend).observe((now - message.queued_at).total_seconds())
        for outcome, addresses in groups:
            event = _EVENT[outcome.verdict]
            log = self._log.info if event in ("sent", "deferred") else self._log.warning
            log(
                event, id=message.id, backend=backend, attempt=message.attempt, recipients=addresses,
                verdict=outcome.verdict.value, code=outcome.code, enhanced=outcome.enhanced, detail=outcome.detail,
                fix=outcome.fix, remote_id=outcome.remote_id, milliseconds=round(seconds * 1000),
            )  # fmt: skip

    def bounced(self, message: SpooledMessage, bounce_id: str, kind: str) -> None:
        """``kind`` is failed, delayed or relayed."""
        self._metrics.bounces(kind).inc()
        self._log.info("bounced", id=message.id, bounce=bounce_id, kind=kind, to=message.envelope.sender)

    def digest(self, sender: str, messages: int, bounce_id: str, reason: str) -> None:
        """A sender was told of so many messages together, or, for this ``reason``, was not."""
        self._metrics.bounces("suppressed" if reason else "digest").inc()
        log = self._log.warning if reason else self._log.info
        log("digest", to=sender, messages=messages, bounce=bounce_id, reason=reason)

    def bounce_suppressed(self, message: SpooledMessage, reason: str) -> None:
        self._metrics.bounces("suppressed").inc()
        self._log.warning("bounce_suppressed", id=message.id, reason=reason, sender=message.envelope.sender)

    def backend_paused(self, backend: str, verdict: str, detail: str, seconds: float) -> None:
        """``verdict`` is a Verdict's value or "operator"; infinite ``seconds`` mean until resumed."""
        self._metrics.paused(backend).set(1)
        until = f"{seconds:.0f}s" if math.isfinite(seconds) else "until resumed"
        self._log.warning("backend_paused", backend=backend, verdict=verdict, detail=detail, pause=until)

    def backend_resumed(self, backend: str) -> None:
        self._metrics.paused(backend).set(0)
        self._log.info("backend_resumed", backend=backend)

    def backend_up(self, backend: str, up: bool) -> None:
        self._metrics.up(backend).set(up)

    def backend_known(self, backend: str, *, up: bool, paused: bool) -> None:
        """As another instance has logged it that works it, or as it is taken to be at first."""
        self._metrics.up(backend).set(up)
        self._metrics.paused(backend).set(paused)

    def token_refreshed(self, backend: str, result: str, ends: float = 0.0, detail: str = "") -> None:
        """``result`` is ok, refused or unavailable; ``ends`` is when the access token does, seconds since 1970."""
        self._metrics.refreshes(backend, result).inc()
        if ends:
            self._metrics.token_ends(backend).set(ends)
        (self._log.debug if result == "ok" else self._log.warning)(
            "oauth", backend=backend, result=result, detail=detail
        )

    def credential_ends(self, backend: str, timestamp: float) -> None:
        """When the client secret, certificate or sign-in behind the access tokens ends, seconds since 1970."""
        self._metrics.credential_ends(backend).set(timestamp)
        self.memory.ends["credential", backend] = timestamp

    def key_looked_at(self, backend: str, trouble: str, fix: str) -> None:
        """Of a key that renews itself: why it could not when it last tried, "" where it could."""
        self.memory.renewals[backend] = (trouble, fix)

    def key_renewed(self, backend: str, result: str, detail: str, fix: str = "", *, news: bool = True) -> None:
        """``result`` is renewed, removed (an old one), waits or failed; ``news``: it was not so before."""
        self._metrics.renewals(backend, result).inc()
        log = self._log.debug if not news else self._log.warning if result == "failed" else self._log.info
        log("certificate_renewal", backend=backend, result=result, detail=detail, fix=fix)

    # Spool, settings, keys

    def deleted(self, ids: Sequence[str], by: str = "") -> None:
        """By order; of what is gone only the log still knows."""
        for ident in ids:
            self._log.info("deleted", id=ident, by=by)

    def act(self, order: Order, count: int) -> None:
        """What somebody ordered, once it is done: ``count`` is how many messages it changed."""
        by = {"by": order.actor.name, "way": order.actor.way}
        self._log.info("act", verb=order.verb, **by, what=order.what, count=count)

    def spool_written(self, seconds: float) -> None:
        self._metrics.spool_time().observe(seconds)

    def spool_space(self, used: int, free: int | None, left: Mapping[str, int], shut: str) -> None:
        """``left`` is the room for new mail by what bounds it, ``shut`` why none is taken, or "". In bytes; None is not
        known, which no threshold is above or below."""
        self._metrics.spool_used().set(used)
        self._metrics.spool_free().set(math.nan if free is None else free)
        self._metrics.spool_gauges(left, shut)

    def spool_shut(self, cause: str, fix: str, free: int, left: Mapping[str, int]) -> None:
        """The door is shut to new mail until ``spool_open``; what is queued is worked off."""
        self._metrics.spool_gauges(left, cause)
        self._log.warning("spool_shut", cause=cause, free_bytes=free, room_bytes=min(left.values(), default=0), fix=fix)

    def spool_open(self, left: Mapping[str, int]) -> None:
        self._metrics.spool_gauges(left, "")
        self._log.info("spool_open", room_bytes=min(left.values(), default=None))

    def clock_stepped(self, was: datetime, now: datetime) -> None:
        """The machine's clock was set to ``now`` when it would have shown ``was``."""
        by = now - was
        direction = "forward" if by > timedelta(0) else "back"
        self._metrics.clock_steps(direction).inc()
        self._log.warning(
            "clock_stepped", direction=direction, seconds=round(abs(by.total_seconds())), was=was.isoformat(),
            now=now.isoformat(), detail="the machine's clock was set; mail neither expires nor waits because of it",
            fix="see that the machine gets its time from the network (timedatectl, chronyc tracking)",
        )  # fmt: skip

    def reloaded(self, ok: bool, detail: str = "") -> None:
        self._metrics.reload().set(ok)
        (self._log.info if ok else self._log.error)("reloaded", ok=ok, detail=detail)

    def learning(self, listener: str, state: int) -> None:
        """0 off, 1 on, 2 it hears networks out."""
        self._metrics.learning(listener).set(state)

    def tls_expiry(self, listener: str, timestamp: float) -> None:
        """``timestamp`` in seconds since 1970."""
        self._metrics.tls(listener).set(timestamp)
        self.memory.ends["certificate", listener] = timestamp

    def jwks(self, key: str, ok: bool, detail: str = "") -> None:
        self._metrics.jwks(key).set(ok)
        (self._log.info if ok else self._log.warning)("jwks", key=key, ok=ok, detail=detail)
