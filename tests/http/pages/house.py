"""A relay as in the design's pictures: four backends of which one is stopped, six clients, refusals, a day of mail."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from gateway.checks import Check, Use, good, untried, wrong
from gateway.delivery import BackendStatus
from gateway.spool import TokenRow
from gateway.spool.records import micros
from tests.builders import new_message
from tests.fakes import START
from tests.http.kit import Dispatching, Service, service
from tests.spool_kit import peer

FILE = """\
hostname: relay.example.com
listeners:
  devices: {bind: "0.0.0.0:25", tls: none, auth: "off"}
  submission: {bind: "0.0.0.0:587", auth: required}
clients:
  localhost: {networks: ["127.0.0.0/8", "::1/128"]}
  printers: {networks: [192.0.2.0/27], senders: ["*@example.com"], recipients: ["*@example.com"], rate: 60/minute}
  copier:
    networks: [192.0.2.17]
    password_hash: "$scrypt$ln=14,r=8,p=1$c2l4dGVlbiBieXRlcyBvaw$MlbyczpLOqUWLJVnCZoYv8zYT4RIX8VSZ9Hc66qhzt0"
    senders: ["*@example.com"]
    rewrite_sender: {to: scanner@example.com}
    rate: 60/minute
  erp: {token: erp, senders: ["*@example.com"], rate: 60/minute}
  billing: {token: billing, senders: [invoice@example.com], backend: google, rate: 60/minute}
  monitoring: {token: monitoring, senders: [alerts@example.com], recipients: ["*@example.net"], backend: smart}
backends:
  office: {type: graph, tenant: contoso.onmicrosoft.com, client_id: 6f1c9a52-0000-4000-8000-000000000000,
    client_secret_file: graph.secret, mailbox: noreply@example.com}
  google: {type: gmail, service_account_file: sa.json, mailbox: invoice@example.com}
  s2g: {type: smtp2go, api_key_file: s2g.key, region: eu, rate: 60/minute}
  smart: {type: smtp, host: smtp.example.net, port: 587}
routes:
  - {recipients: ["*@example.com"], backend: office}
  - {backend: s2g}
retry: {lifetime: 3d}
log: {level: debug}
"""
EXPIRED = "401 invalid_client: AADSTS7000222: The provided client secret keys for app '6f1c9a52' are expired."
FIX = (
    "Entra, App registrations, gateway, Certificates & secrets, New client secret. Copy its Value (not the Secret ID) "
    "into /etc/gateway/credentials/graph.secret"
)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ACCEPTED = (80, 90, 75, 85, 92, 70, 45, 20, 12, 10, 8, 8, 180, 25, 8, 9, 8, 15, 40, 80, 104, 98, 90, 243)
SENT = (80, 90, 75, 85, 92, 70, 45, 20, 12, 10, 8, 8, 120, 85, 8, 9, 8, 15, 40, 80, 104, 98, 90, 18)
LOST = (2, 0, 0, 0, 2, 16, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 7, 3, 5)


class Standing(Dispatching):
    """The dispatcher of such a relay; ``well``: all of it works."""

    def __init__(self, *, well: bool = False) -> None:
        super().__init__()
        self.well = well
        self.checked: list[str] = []
        self.reason = EXPIRED
        self.answer = Check(
            ok=False, summary="the client secret has expired", fix=FIX, facts={},
            steps=(
                good("login.microsoftonline.com and graph.microsoft.com are reached, their certificates are good."),
                good("The tenant contoso.onmicrosoft.com exists."),
                wrong("The client secret has expired.", EXPIRED),
                untried("Whether it may send as noreply@example.com"),
            ),
        )  # fmt: skip

    def status(self) -> Mapping[str, BackendStatus]:
        plain = BackendStatus("", "", 0, 0, None, "", "", START - MINUTE, concurrency=10)
        found = [
            replace(
                plain, name="office", type="graph", title="Microsoft 365", paused_by="misconfigured", state="stopped",
                reason=self.reason, fix=FIX, since=START - 44 * MINUTE, last_success=START - 45 * MINUTE,
                paused_until=START + timedelta(seconds=38),
            ),
            replace(plain, name="google", type="gmail", title="Gmail", uses=(Use("units", 200, 6000, "units", 60),)),
            replace(
                plain, name="s2g", type="smtp2go", title="SMTP2GO", paused_by="throttled", state="slowed_down",
                reason="429 Too Many Requests", since=START - MINUTE, paused_until=START + MINUTE,
                uses=(Use("rate", 12, 60, "messages", 60),),
            ),
            replace(
                plain, name="smart", type="smtp", title="SMTP", paused_by="operator", state="paused", who="root",
                reason="paused by the operator", since=START - 6 * MINUTE, paused_until=START + 54 * MINUTE,
            ),
        ]  # fmt: skip
        works = {"paused_by": "", "state": "working", "reason": "", "fix": "", "since": None, "paused_until": None}
        shown = [one if not self.well else replace(one, **works, who="") for one in found]
        shown = [one if one.name not in self.paused else replace(one, state="paused", paused_by="operator", who="root")
                 for one in shown]  # fmt: skip
        return {one.name: one for one in shown}

    async def resume(self, name: str) -> None:
        self.paused.pop(name, None)

    async def check(self, name: str) -> Check:
        self.checked.append(name)
        return self.answer if name == "office" and not self.well else Check(True, f"{name} is reached")


@asynccontextmanager
async def house(
    folder: Path, *, well: bool = False, file: Path | None = None, standing: Standing | None = None
) -> AsyncIterator[Service]:
    """Furnished as described above."""
    for name, text in (("graph.secret", "s"), ("sa.json", "{}"), ("s2g.key", "k" * 20)):
        (folder / name).write_text(text)
    if file is None:
        file = folder / "config.yaml"
        file.write_text(FILE)
    async with service(file) as running:
        running.dispatcher = standing or Standing(well=well)
        await furnish(running)
        yield running


async def furnish(running: Service) -> None:
    spool = running.spool
    for n in range(14):
        await spool.put(new_message(f"a{n}@example.com", backend="office", client="erp", peer="192.0.2.40"))
    for n in range(3):
        await spool.put(new_message(f"b{n}@example.net", backend="s2g", client="copier", peer="192.0.2.17"))
    for name, ago in (("billing", MINUTE), ("copier", 2 * MINUTE), ("erp", MINUTE / 2), ("localhost", 2 * HOUR)):
        spool.uses.note("client", name, START - ago, "192.0.2.17")
    for day in range(19, 11, -1):
        spool.uses.note("client", "printers", START - day * DAY, "192.0.2.5")
    for jti, subject, note, days in (
        ("2b67bdf7127a", "erp", "ERP server, Anna", 21), ("9f03c1d47e22", "billing", "invoice run", 90),
        ("c7a8e0116b5d", "monitoring", "", 210), ("41d2aa90f3c8", "erp", "old ERP server", 300),
        ("0000aa90f3c8", "gone", "ended", -20),
    ):  # fmt: skip
        await spool.add_token(TokenRow(jti, "own", subject, note, START - 60 * DAY, START + days * DAY))
        spool.uses.note("token", jti, START - 3 * MINUTE, "192.0.2.40")
    await running.revoke(jti="41d2aa90f3c8", subject="")
    spool.uses.note("revoked", "41d2aa90f3c8", START - HOUR, "192.0.2.41")
    for _ in range(58):
        running.quotas.rates.allow("erp", running.settings.clients["erp"].rate, running.clock.monotonic())
    mail(running)
    refusals(running)


TALLY = """
INSERT INTO tally VALUES (?, ?, ?, ?, ?, 0, ?, ?, 0, 0, ?) ON CONFLICT (hour_at, listener, client, backend)
DO UPDATE SET accepted = excluded.accepted, sent = excluded.sent, failed = excluded.failed,
    refused = excluded.refused"""


def mail(running: Service) -> None:
    """A day of it, written beside the service."""
    hour = micros(START.replace(minute=0, second=0, microsecond=0))
    folder = running.settings.state_dir
    for ago, (accepted, sent, lost) in enumerate(zip(ACCEPTED[::-1], SENT[::-1], LOST[::-1], strict=True)):
        at = hour - ago * 3_600_000_000
        peer(folder, TALLY, at, "devices", "erp", "", accepted, sent, lost // 2, lost - lost // 2)
        for name, part in (("office", 0 if ago == 0 else 5), ("google", 9), ("s2g", 7), ("smart", 2)):
            peer(folder, TALLY, at, "", "", name, 0, part, 0, 0)


def refusals(running: Service) -> None:
    rows = [
        (101, 9, 0, 3, "devices", "rcpt", "relay_denied", "192.0.2.41", "", "", "plotter@example.com",
         ["plans@example.com"], 550, "5.7.1", "Relay access denied: 192.0.2.41 is in no network of clients"),
        (102, 27, 27, 1, "devices", "mail", "sender_denied", "192.0.2.17", "copier", "", "copier@dev.local",
         ["max@example.com"], 553, "5.7.1", "<copier@dev.local>: sender not allowed"),
        (103, 44, 44, 1, "submission", "data", "too_big", "192.0.2.40", "erp", "erp", "erp@example.com",
         ["plans@partner.example"], 552, "5.3.4", "too big"),
        (104, 142, 139, 6, "submission", "auth", "auth_failed", "203.0.113.9", "", "admin", "", [], 535, "5.7.8",
         "Authentication credentials invalid"),
        (105, 156, 156, 1, "devices", "auth", "token_malformed", "192.0.2.19", "", "jwt", "", [], 535, "5.7.8",
         "Authentication credentials invalid"),
        (106, 190, 190, 12, "submission", "connect", "tls_failed", "192.0.2.25", "", "", "", [], 0, "", ""),
    ]  # fmt: skip
    add = f"INSERT INTO refusal VALUES ({', '.join('?' * 21)})"
    for ident, first, last, count, way, stage, reason, address, client, user, sender, to, code, enhanced, text in rows:
        times = (micros(START - first * MINUTE), micros(START - last * MINUTE))
        peer(
            running.settings.state_dir, add, ident, *times, count, way, stage, reason, address, True, False,
            "copier.local", "", client, user, sender, json.dumps(to), 9_200_000, code, enhanced, text, "",
        )  # fmt: skip
