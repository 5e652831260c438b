"""Mail and a relay as no designer draws them: long addresses, other scripts, many recipients, attempts and backends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from gateway.delivery import BackendStatus
from gateway.model import Outcome, Scope, Verdict
from gateway.spool.records import micros
from tests.fakes import START
from tests.http.kit import Service
from tests.http.pages import mail
from tests.http.pages.house import FILE, TALLY, Standing
from tests.spool_kit import peer, settlement

LONG = f"{'scanner.in.the.basement.' * 3}x@{'quite.a.long.name.of.a.department.' * 3}example.com"
RTL = "\u202egnp.exe@\u05d3\u05d5\u05d0\u05e8.example.com"
JAPANESE = "\u55b6\u696d\u90e8@\u4f8b\u3048.\u30c6\u30b9\u30c8"
WORDS = Outcome(
    Verdict.REJECTED, code=550, enhanced="5.1.1", said_by="smtp", scope=Scope.RECIPIENT,
    detail="<script>alert(1)</script>\"><img src=x onerror=alert(1)> \u202egnp.exe " + "no-such-user-here" * 600,
)  # fmt: skip
IDS = {"long": "1K1EZA0000001", "rtl": "1K1EZA0000002", "many": "1K1EZA0000003", "tried": "1K1EZA0000004"}


async def furnish(service: Service) -> None:
    """One of each, the newest of all."""
    await mail.put(service, IDS["long"], LONG, backend="u1", minutes=1, sender=LONG)
    await mail.answer(service, "u1", WORDS)
    await mail.put(service, IDS["rtl"], JAPANESE, RTL, backend="u2", minutes=1, sender=RTL)
    await mail.answer(service, "u2", mail.FULL)
    people = [f"person{n}@example.com" for n in range(300)]
    await mail.put(service, IDS["many"], *people, backend="u3", minutes=1)
    await mail.answer(service, "u3", {one: mail.TAKEN if n % 3 else WORDS for n, one in enumerate(people)})
    await mail.put(service, IDS["tried"], "max@example.com", backend="u4", minutes=400)
    for _ in range(60):
        (claim,) = (
            await service.spool.claim("u4", now=service.spool.now(), lease=timedelta(minutes=5), limit=1)
        ).claims
        again = service.spool.now()
        await service.spool.settle(settlement(claim, mail.FULL, ended_at=START, next_attempt_at=again))


class Crowd(Standing):
    """Twenty backends with long names, three of them stopped."""

    def status(self) -> Mapping[str, BackendStatus]:
        four = super().status()
        names = [f"branch_office_with_quite_a_long_name_{n}" for n in range(16)]
        office = four["office"]
        more = {
            name: replace(office, name=name) if n < 2 else replace(four["google"], name=name, type="smtp", title="SMTP")
            for n, name in enumerate(names)
        }
        return {**four, **more}


def file(folder: Path) -> Path:
    """Of such a relay."""
    backends = "".join(
        f"  branch_office_with_quite_a_long_name_{n}: {{type: smtp, host: mail{n}.branch.example.net, port: 587}}\n"
        for n in range(16)
    )
    made = folder / "config.yaml"
    made.write_text(FILE.replace("routes:\n", f"{backends}routes:\n"))
    return made


def figures(service: Service) -> None:
    """Ten thousands in a column."""
    hour = micros(START.replace(minute=0, second=0, microsecond=0))
    for ago in range(24):
        at, folder = hour - ago * 3_600_000_000, service.settings.state_dir
        peer(folder, TALLY, at, "devices", "erp", "", 123_456 + ago * 1000, 10_000, 12, 34_567)
        peer(folder, TALLY, at, "", "", "office", 0, 123_456, 12, 0)
