"""The metrics, as docs/metrics.md lists them. Labels come from the configuration and from closed sets only."""

from __future__ import annotations

import platform
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from itertools import product
from typing import Generic, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from gateway import __version__
from gateway.model import Verdict

# Where a client can be refused, and why.
STAGES: Mapping[str, str] = {
    "connect": "too_many_connections shutting_down tls_failed cross_protocol proxy_header other",
    "command": "bad_syntax bad_newlines bad_sequence unknown_command too_many_errors line_too_long token_malformed idle"
    " cross_protocol proxy_header internal other",
    "auth": "auth_failed auth_unavailable busy too_many_failures tls_required bad_sequence bad_syntax too_many_errors"
    " unknown_client wrong_user wrong_network token_malformed token_unknown_key token_signature token_claims"
    " token_audience token_expired token_not_yet token_revoked bad_newlines internal other",
    "mail": "auth_required auth_unavailable tls_required token_expired bad_syntax bad_sequence bad_address utf8_address"
    " relay_denied sender_denied cannot_carry too_big rate_limited too_many_connections busy spool_full shutting_down"
    " internal other",
    "rcpt": "auth_required bad_syntax bad_sequence bad_address utf8_address relay_denied recipient_denied"
    " too_many_recipients no_route cannot_carry rate_limited internal other",
    "data": "sender_denied cannot_carry too_big bad_message bad_newlines line_too_long mail_loop bad_sequence idle"
    " rate_limited busy spool_full spool_error shutting_down learning internal other",
}
_REFUSALS = [(stage, reason) for stage, reasons in STAGES.items() for reason in reasons.split()]
MECHANISMS = ("PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER", "other")
AUTH_RESULTS = ("ok", "failed", "unavailable", "refused")
BOUNCES = ("failed", "delayed", "relayed", "digest", "suppressed")
RENEWALS = ("renewed", "removed", "waits", "failed")
OVER = ("hold", "defer", "refuse")  # a quota
REFRESHES = ("ok", "refused", "unavailable")
RETURNED = ("counted", "known", "unmatched", "other")  # what reports of mail that came back were
WAYS = ("mail", "webhook", "command")  # of alerts
DIRECTIONS = ("forward", "back")
REPORTS = ("queued", "delivered", "bounced", "failed", "unknown")
SHUT = ("disk", "quota", "database", "spool_size", "away", "silent", "missing", "moved", "replaced", "log")
DELIVERIES = ("sent", "deferred", "failed", "in_doubt")
_SIZES = (1e3, 1e4, 1e5, 1e6, 5e6, 1e7, 2.5e7, 5e7)
_ACCEPT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_DELIVERY = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LATENCY = (0.1, 0.25, 0.5, 1, 5, 10, 60, 300, 3600, 86400)

M = TypeVar("M", Counter, Gauge, Histogram)


class Family(Generic[M]):
    """A metric whose children stand in a plain dict: ten times cheaper than ``labels()``."""

    def __init__(self, metric: M) -> None:
        self._metric: M = metric
        self.children: dict[tuple[str, ...], M] = {}

    def __call__(self, *values: str) -> M:
        child = self.children.get(values)
        if child is None:
            child = self.children[values] = self._metric.labels(*values) if values else self._metric
        return child

    def create(self, labels: Iterable[tuple[str, ...]]) -> None:
        for values in labels:
            self(*values)

    def keep(self, names: Collection[str]) -> None:
        """Forget what is no longer configured, so that it raises no alarm."""
        for values in [values for values in self.children if values[0] not in names]:
            del self.children[values]
            self._metric.remove(*values)


class Metrics:
    """Every metric of one registry, as attributes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call] # fewer series; process-wide
        for collector in (prometheus_client.ProcessCollector, prometheus_client.PlatformCollector):
            collector(registry=registry)
        prometheus_client.GCCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Family[Counter]:
            return Family(Counter(f"gateway_{name}", text, labels, registry=registry))

        def gauge(name: str, text: str, *labels: str) -> Family[Gauge]:
            return Family(Gauge(f"gateway_{name}", text, labels, registry=registry))

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Family[Histogram]:
            return Family(Histogram(f"gateway_{name}", text, labels, buckets=buckets, registry=registry))

        self.connections = counter("smtp_connections_total", "Connections accepted.", "listener")
        # Not "smtp_connections": OpenMetrics takes that for the counter above.
        self.open = gauge("smtp_connections_open", "Connections open now.", "listener")
        self.auth = counter("smtp_auth_total", "Logins tried.", "listener", "mechanism", "result")
        self.rejected = counter("smtp_rejected_total", "Refusals given.", "listener", "stage", "reason")
        self.refusals_dropped = counter("refusals_dropped_total", "Refusals of which no row was kept.")
        self.received = counter("messages_received_total", "Messages accepted.", "listener", "client")
        self.over_quota = counter("over_quota_total", "Times a client had used up its quota.", "client", "result")
        self.quota_used = gauge("quota_used_ratio", "Most used number of the client's quota; 1 is all.", "client")
        self.size = histogram("message_size_bytes", "Size of messages accepted.", _SIZES)
        self.accept_time = histogram("accept_duration_seconds", "From the end of DATA to 250.", _ACCEPT, "listener")
        self.dropped_files = gauge("dropped_files", "Files in folders that mail is taken from.", "folder", "state")
        self.attempts = counter("delivery_attempts_total", "Attempts ended.", "backend", "result")
        self.deliveries = counter("deliveries_total", "Recipients, by the result of an attempt.", "backend", "result")
        self.delivery_events = counter(
            "delivery_events_total", "What providers said after they took it.", "backend", "state"
        )
        self.returned = counter("returned_reports_total", "Reports read of mail that came back.", "backend", "result")
        self.returns_read = gauge("returned_reports_readable", "0 when the last look for them failed.", "backend")
        self.delivery_time = histogram("delivery_duration_seconds", "Time of one attempt.", _DELIVERY, "backend")
        self.latency = histogram("message_latency_seconds", "From accepted to sent.", _LATENCY, "backend")
        self.queued = gauge("queue_messages", "Messages in the spool.", "backend", "state")
        self.oldest = gauge("queue_oldest_message_age_seconds", "Age of the oldest message queued.", "backend")
        self.refreshes = counter("oauth_token_refresh_total", "Access tokens asked for.", "backend", "result")
        self.token_ends = gauge("oauth_token_expiry_timestamp_seconds", "End of the access token.", "backend")
        self.credential_ends = gauge("credential_expiry_timestamp_seconds", "End of the secret or sign-in.", "backend")
        self.renewals = counter("certificate_renewals_total", "Renewals of certificates.", "backend", "result")
        self.up = gauge("backend_up", "0 when the last check or attempt could not use it.", "backend")
        self.paused = gauge("backend_paused", "1 while the backend as a whole pauses.", "backend")
        self.spool_time = histogram("spool_write_duration_seconds", "Time of one durable commit.", _ACCEPT)
        self.spool_used = gauge("spool_bytes", "Bytes used by the spool.")
        self.spool_free = gauge("spool_free_bytes", "Bytes free on the disk of the spool.")
        self.spool_room = gauge("spool_room_bytes", "Room for new mail, by what bounds it.", "limit")
        self.spool_shut = gauge("spool_shut", "1 while no new mail is taken for this cause.", "cause")
        self.spool_shut.create(product(SHUT))
        self.learning = gauge("learning", "0 off, 1 learn mode is on, 2 it hears networks out.", "listener")
        self.tls = gauge("tls_certificate_not_after_timestamp_seconds", "End of the certificate.", "listener")
        self.jwks = gauge("jwks_up", "0 when the last fetch of the key set failed.", "key")
        self.alerts = counter("alerts_total", "Alerts told, or not.", "way", "result")
        self.bounces = counter("bounces_total", "Reports to senders.", "result")
        self.clock_steps = counter("clock_steps_total", "Times the machine's clock was set.", "direction")
        self.reload = gauge("config_last_reload_successful", "0 when the last reload was refused.")
        self.bugs = counter("bugs_total", "Unexpected exceptions caught.")
        self.dropped = counter("log_lines_dropped_total", "Log lines lost to a blocked or closed output.")
        self.build = gauge("build_info", "Versions of the gateway and what it runs on.", "version", "python", "sqlite")
        self._begin()

    def _begin(self) -> None:
        """What is there from the start."""
        self.build(__version__, platform.python_version(), sqlite3.sqlite_version).set(1)
        self.reload().set(1)
        sets = (self.bounces, (BOUNCES,)), (self.alerts, (WAYS, ("ok", "failed"))), (self.clock_steps, (DIRECTIONS,))
        for family, words in sets:
            family.create(product(*words))

    def declare(
        self,
        *,
        listeners: Collection[str] = (),
        backends: Collection[str] = (),
        clients: Collection[str] = (),
        quotas: Collection[str] = (),
        keys: Collection[str] = (),
        oauth: Collection[str] = (),
    ) -> None:
        """Name what is configured, at start and at each reload: every label set exists at 0 before its first event.

        So rate() sees the first failure; states of what is gone are forgotten. ``oauth`` are the backends that ask for
        access tokens,
        ``keys`` those that an issuer publishes, ``quotas`` the clients that have one.
        """
        for family in (self.connections, self.open, self.accept_time):
            family.create(product(listeners))
        self.rejected.create((name, *pair) for name in listeners for pair in _REFUSALS)
        self.auth.create(product(listeners, MECHANISMS, AUTH_RESULTS))
        self.received.create(product(listeners, clients))
        self.over_quota.create(product(quotas, OVER))
        self.quota_used.create(product(quotas))
        self.quota_used.keep(quotas)
        for backend in backends:
            if (backend,) not in self.up.children:
                self.up(backend).set(1)
        for family in (self.paused, self.oldest, self.delivery_time, self.latency):
            family.create(product(backends))
        self.queued.create(product(backends, ("queued", "held")))
        self.attempts.create(product(backends, (*(verdict.value for verdict in Verdict), "mixed")))
        self.deliveries.create(product(backends, DELIVERIES))
        self.delivery_events.create(product(backends, REPORTS))
        self.refreshes.create(product(oauth, REFRESHES))
        self.renewals.create(product(oauth, RENEWALS))
        for key in keys:
            if (key,) not in self.jwks.children:
                self.jwks(key).set(1)  # nothing has failed yet
        for gauges in (self.up, self.paused, self.token_ends, self.credential_ends, self.returns_read):
            gauges.keep(backends)
        self.tls.keep(listeners)
        self.jwks.keep(keys)

    def forget_listener(self, name: str) -> None:
        """Its states; what was counted there stays."""
        for gauges in (self.open, self.tls, self.learning):
            gauges.keep({labels[0] for labels in gauges.children} - {name})

    def drop_folders(self, names: Collection[str]) -> None:
        self.dropped_files.create(product(names, ("waiting", "corrupt")))
        stages = ("mail", "rcpt", "data")
        self.rejected.create((name, *pair) for name in names for pair in _REFUSALS if pair[0] in stages)
        self.dropped_files.keep(names)

    def returns_readable(self, backend: str, *, ok: bool) -> None:
        if (backend,) not in self.returns_read.children:
            self.returned.create(product((backend,), RETURNED))
        self.returns_read(backend).set(ok)

    def queue_gauges(self, counts: Mapping[tuple[str, str], int], oldest: Mapping[str, float]) -> None:
        """``counts`` by (backend, state), ``oldest`` in seconds by backend; what is missing is 0."""
        for family, values in ((self.queued, counts), (self.oldest, {(name,): age for name, age in oldest.items()})):
            for child in family.children.values():
                child.set(0)
            for labels, value in values.items():
                family(*labels).set(value)

    def spool_gauges(self, left: Mapping[str, int], shut: str) -> None:
        for limit, octets in left.items():
            self.spool_room(limit).set(max(0, octets))
        for (cause,), child in self.spool_shut.children.items():
            child.set(cause == shut)

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and text for /metrics, in the format that the ``Accept`` header asks for."""
        encoder, content_type = choose_encoder(accept)
        return content_type, encoder(self.registry)
