"""A spool as it is after 90 days: a million messages of history, a queue, and all that operators and the door left.

``python -m tests.million_kit DIRECTORY [HISTORY [QUEUED]]`` makes one, with a configuration, in two or three minutes.
"""

from __future__ import annotations

import json
import random
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from gateway.clock import SystemClock, first_id
from gateway.spool import tables
from gateway.spool.acts import Act, ActMessage
from gateway.spool.checked import Checked
from gateway.spool.counting import HOUR
from gateway.spool.door_tables import Refusal, Tally
from gateway.spool.keys import key_of
from gateway.spool.lastuse import UseRow
from gateway.spool.records import micros, moment
from gateway.spool.rests import Rest
from gateway.spool.seal import checksum
from gateway.spool.sql import insert_into as _insert_into
from tests.spool_kit import made

insert_into = cache(_insert_into)
DAYS = 90
CLIENTS = [f"app{n:02d}" for n in range(40)]
BACKENDS = ("office", "google", "s2g", "smart", "archive")
OWN = "example.com"
RARE = "rare.example"  # three messages in all
REFUSALS, ACTS, TOKENS = 100_000, 400, 300
KEPT = 60_000  # sent messages whose bodies are kept, the last
_SECOND, _DAY = 1_000_000, 86_400_000_000
_BATCH = 20_000
_SAID = {
    "sent": ("sent", 250, "2.0.0", "Ok: queued as 4XKj2w1kz9z5V", "smtp", ""),
    "failed": (
        "rejected",
        550,
        "5.1.1",
        "The email account that you tried to reach does not exist",
        "smtp",
        "recipient",
    ),
    "deferred": ("deferred", 451, "4.7.1", "Greylisting in action, please come back later", "smtp", "message"),
    "doubt": ("in_doubt", None, "", "the connection was lost after the message was sent", "gateway", "message"),
    "": ("", None, "", "", "", ""),
}
_MESSAGE = (
    "id state sender sender_key message_id header_from client login listener peer pin ret envid smtputf8 eightbit"
    " bounce delay_notified has_body size checksum received_at expires_at finished_at features sealed authors original"
    " original_key how resend_of"
)
_ANSWER = "verdict code enhanced detail said_by scope remote_id fix"
_RECIPIENT = f"message_id address n key backend state notify orcpt updated_at {_ANSWER}"
_DELIVERY = (
    "n message_id backend state next_attempt_at received_at attempts sticky in_doubt"
    " attempt_id started_at addresses owner"
)
_ATTEMPT = f"id message_id backend addresses started_at ended_at owner {_ANSWER}"
_EVENT = "id message_id backend address remote_id state detail reported_at key source"
_COUNTS = ("accepted", "again", "sent", "failed", "deleted", "deferred", "refused")
CONFIG = """\
hostname: relay.example.com
state_dir: {state}
http: {{bind: "127.0.0.1:{http}"}}
listeners:
  devices: {{bind: "127.0.0.1:{port}", tls: none, auth: "off"}}
clients:
  inflow: {{networks: ["127.0.0.0/8"]}}
{clients}
backends:
{backends}
routes:
  - {{recipients: ["*@example.com"], backend: office}}
  - {{backend: s2g}}
retention: {{history: 120d, sent_body: 60d, refusals: 60d}}
log: {{level: warning}}
"""


def config(directory: Path, *, port: int, http: int) -> str:
    """For a gateway that serves it: nothing that it delivers leaves this machine."""
    clients = "\n".join(
        f'  {name}: {{networks: [198.18.{n}.0/24], senders: ["*@{OWN}"], rate: 600/minute}}'
        for n, name in enumerate(CLIENTS)
    )
    backends = "\n".join(f"  {name}: {{type: capture, directory: captured-{name}}}" for name in BACKENDS)
    return CONFIG.format(state=directory, port=port, http=http, clients=clients, backends=backends)


def make(directory: Path, history: int = 1_000_000, queued: int = 100_000, seed: int = 1) -> Path:
    """``history`` messages that have ended and ``queued`` that have not, up to now; the path of the file."""
    path = made(directory)
    with closing(sqlite3.connect(path)) as file:
        file.executescript("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000")
        indexes = [sql for (sql,) in file.execute("SELECT sql FROM sqlite_master WHERE type = 'index' AND sql > ''")]
        for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql > ''").fetchall():
            file.execute(f'DROP INDEX "{name}"')
        _Maker(file, random.Random(seed), micros(SystemClock().now())).fill(history, queued)
        for sql in indexes:
            file.execute(sql)
        file.commit()
        file.execute("PRAGMA journal_mode = WAL")
    return path


def _shares(number: int, power: float) -> list[float]:
    """Running sums of shares with a long tail, for random.choices."""
    return list(accumulate(1 / (n + 1) ** power for n in range(number)))


@dataclass
class _Maker:
    file: sqlite3.Connection
    rng: random.Random
    now: int
    rows: dict[str, list[Any]] = field(default_factory=dict)
    tally: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    attempts: int = 0
    deliveries: int = 0
    events: int = 0
    ids: list[str] = field(default_factory=list)

    def fill(self, history: int, queued: int) -> None:
        self._people()
        total = history + queued
        for n in range(total):
            at = self.now - DAYS * _DAY + int((DAYS * _DAY - 60 * _SECOND) * (n / total)) + n % 7
            old = n < total - 2 * queued or n % 2 == 0
            self._message(n, at, ended=old, rare=n in (10, total // 2, total - 51), kept=total - n < 2 * KEPT)
            if n % _BATCH == 0:
                self._write()
        self._door()
        self._operators()
        self._write()

    def _people(self) -> None:
        domains = [f"d{n}.example.net" for n in range(2999)] + [OWN]
        shares = _shares(3000, 0.9)
        domains.reverse()  # our own is the most frequent
        of = self.rng.choices(domains, cum_weights=shares, k=30_000)
        self.people = [f"user{n}@{domain}" for n, domain in enumerate(of)]
        self.people_shares, self.client_shares = _shares(30_000, 0.6), _shares(40, 1.1)
        self.keys = {address: key_of(address) for address in self.people}

    def _add(self, statement: str, row: tuple[Any, ...]) -> None:
        self.rows.setdefault(statement, []).append(row)

    def _write(self) -> None:
        for statement, rows in self.rows.items():
            self.file.executemany(statement, rows)
        self.rows = {}
        self.file.commit()

    # -- mail ----------------------------------------------------------------------------------------------------------

    def _message(self, n: int, at: int, *, ended: bool, rare: bool, kept: bool) -> None:
        rng = self.rng
        client = rng.choices(CLIENTS, cum_weights=self.client_shares)[0]
        fate = rng.random()
        state = ("failed" if fate < 0.02 else "done") if ended else ("held" if fate < 0.12 else "queued")
        doubt = state == "held" and fate < 0.05
        people = rng.choices(self.people, cum_weights=self.people_shares, k=self._how_many())
        people = list(dict.fromkeys(people)) if not rare else [f"ann@{RARE}"]
        rewritten = rng.random() < 0.05
        sender = f"scanner{n % 50}@{OWN}" if rewritten else f"{client}-{n % 30}@{OWN}"
        was = f"device{n % 500}@dev.local" if rewritten else ""
        ident = first_id(moment(at))
        self._put(
            ident, n, at, client, sender, was, people, state, doubt, has_body=not ended or state == "failed" or kept
        )
        if state == "failed" and fate < 0.01:
            self._bounce(ident, at, client, sender)

    def _how_many(self) -> int:
        dice = self.rng.random()
        if dice < 0.88:
            return 1
        return self.rng.randint(2, 5) if dice < 0.985 else self.rng.randint(6, 20) if dice < 0.9997 else 300

    def _put(
        self, ident: str, n: int, at: int, client: str, sender: str, was: str, people: list[str], state: str,
        doubt: bool, *, has_body: bool, bounce: bool = False,
    ) -> None:  # fmt: skip
        rng = self.rng
        raw = self._raw(n, sender, people[0]) if has_body else b""
        expires = max(at + 5 * _DAY, self.now + 3 * _DAY)  # nothing is given up while it is looked at
        backends: dict[str, list[str]] = {}
        for address in people:
            name = (
                "office" if address.endswith(f"@{OWN}") else BACKENDS[1 + (hash_of(address) % 10 > 5) + (n % 97 == 0)]
            )
            backends.setdefault(name, []).append(address)
        order = [address for addresses in backends.values() for address in addresses]
        seal = checksum((sender, "", "", 0, 0, at, expires), [(address, "", "") for address in order], raw)
        how = _how(client, tuple((name, len(some)) for name, some in backends.items()))
        ended = at + _SECOND + int(rng.random() * 29 * _SECOND) if state in ("done", "failed") else None
        self._add(
            insert_into(tables.Message, _MESSAGE),
            (ident, state, sender, key_of(sender), f"<{n}.{at}@{client}.{OWN}>", sender, client, "", "devices",
             f"198.18.{CLIENTS.index(client) if client in CLIENTS else 0}.{n % 20}", "", "", "", False, False, bounce,
             not ended, has_body, len(raw) or 1000 + int(rng.random() * 89_000), seal, at, expires, ended, "", None,
             "[]", was, key_of(was), how, ""),
        )  # fmt: skip
        if has_body:
            self._add(insert_into(tables.Body, "message_id raw", segment="0", start="0", length="0"), (ident, raw))
        self._count(at, ended, client, state)
        place = 0
        for name, addresses in backends.items():
            place = self._delivery(ident, at, name, addresses, place, state, doubt=doubt)
        if len(self.ids) < 50_000 and n % 11 == 0:
            self.ids.append(ident)

    def _raw(self, n: int, sender: str, to: str) -> bytes:
        head = f"From: {sender}\r\nTo: {to}\r\nSubject: Report {n}\r\nMessage-ID: <{n}@{OWN}>\r\n\r\n"
        return (head + "Nothing to see here.\r\n" * (5 + n % 60)).encode()

    def _delivery(
        self, ident: str, at: int, name: str, addresses: list[str], place: int, state: str, *, doubt: bool
    ) -> int:
        rng = self.rng
        self.deliveries += 1
        tries = (
            1 + (rng.random() < 0.08) + (rng.random() < 0.02) if state in ("done", "failed") else rng.randrange(0, 9)
        )
        tries = max(tries, doubt)
        now = {
            "done": "sent",
            "failed": "failed",
            "queued": "deferred" if tries else "",
            "held": "doubt" if doubt else "",
        }
        said = now[state]
        end, listed = at + tries * 1_500_000, '["' + '", "'.join(addresses) + '"]'
        for one in range(tries):
            self.attempts += 1
            last = one == tries - 1
            answer = self._answer(said if last else "deferred", ident, name)
            self._add(
                insert_into(tables.Attempt, _ATTEMPT),
                (self.attempts, ident, name, listed, at + one * 1_500_000,
                 at + one * 1_500_000 + 400_000, "", *answer),
            )  # fmt: skip
            self.tally[end // HOUR * HOUR, "", "", name, "deferred"] += 0 if last else len(addresses)
        column = {"sent": "sent", "failed": "failed", "deferred": "deferred"}.get(said)
        if column:
            self.tally[end // HOUR * HOUR, "", "", name, column] += len(addresses)
        to_do = {"done": "done", "failed": "done"}.get(state, state)
        due = self.now + 2 * HOUR + int(rng.random() * 4 * HOUR)
        self._add(
            insert_into(tables.Delivery, _DELIVERY),
            (self.deliveries, ident, name, to_do, due, at, tries, doubt, int(doubt), None, None, "", ""),
        )
        each = {"done": "sent"}.get(state, state)
        for n, address in enumerate(addresses, place):
            # one recipient of a failed message failed
            own = "sent" if state == "failed" and n else each
            answer = self._answer("sent" if own == "sent" else said, ident, name)
            key = self.keys.get(address) or key_of(address)
            self._add(
                insert_into(tables.Recipient, _RECIPIENT), (ident, address, n, key, name, own, "", "", end, *answer)
            )
        if said == "sent" and name in ("s2g", "google") and rng.random() < 0.15:
            self.events += 1
            happened = "delivered" if rng.random() < 0.97 else "bounced"
            self._add(
                insert_into(tables.Event, _EVENT),
                (self.events, ident, name, addresses[0], f"{name}-{ident}", happened, "250 Ok", end + 5 * _SECOND,
                 str(self.events), "webhook"),
            )  # fmt: skip
        return place + len(addresses)

    def _answer(self, said: str, ident: str, name: str) -> tuple[Any, ...]:
        verdict, code, enhanced, detail, by, scope = _SAID[said]
        return verdict, code, enhanced, detail, by, scope, f"{name}-{ident}" if said == "sent" else "", ""

    def _count(self, at: int, ended: int | None, client: str, state: str) -> None:
        self.tally[at // HOUR * HOUR, "devices", client, "", "accepted"] += 1
        if ended is not None:
            column = "sent" if state == "done" else "failed"
            self.tally[ended // HOUR * HOUR, "devices", client, "", column] += 1

    def _bounce(self, ident: str, at: int, client: str, sender: str) -> None:
        bounce = first_id(moment(at + 2 * _SECOND))[:-1] + "Z"
        self._put(bounce, 1, at + 2 * _SECOND, "gateway", "", "", [sender], "done", False, has_body=False, bounce=True)
        add = insert_into(tables.Bounce, "message_id kind bounce_id reason made_at", id="NULL")
        self._add(add, (ident, "failed", bounce, "", at + 2 * _SECOND))

    # -- the door and the operators -----------------------------------------------------------------------------------

    def _door(self) -> None:
        rng = self.rng
        reasons = (
            ("relay_denied", "rcpt", 550, "5.7.1"), ("auth_failed", "auth", 535, "5.7.8"),
            ("sender_denied", "mail", 553, "5.7.1"), ("rate_limited", "mail", 450, "4.7.1"),
            ("too_big", "data", 552, "5.3.4"), ("tls_failed", "connect", 0, ""),
        )  # fmt: skip
        columns = (
            "id first_at last_at count listener stage reason peer near mixed helo tls client user sender recipients"
            " size code enhanced text detail"
        )
        for n in range(REFUSALS):
            reason, stage, code, enhanced = reasons[min(5, int(rng.expovariate(0.8)))]
            near = rng.random() < 0.1
            client = rng.choice(CLIENTS) if near else ""
            last = self.now - int(30 * _DAY * rng.random() ** 2)
            peer = f"198.18.{n % 40}.{n % 250}" if near else f"203.0.{rng.randrange(256)}.{rng.randrange(256)}"
            self._add(
                insert_into(Refusal, columns),
                (n + 1, last - rng.randrange(HOUR), last, 1 + int(rng.expovariate(0.5)), "devices", stage, reason, peer,
                 near, False, f"host{n % 900}.example.org", "", client, "admin" if stage == "auth" else "",
                 f"someone{n % 5000}@elsewhere{n % 700}.example", json.dumps([f"user{n % 30_000}@{OWN}"]), 0, code,
                 enhanced, f"{code} {enhanced} {reason.replace('_', ' ')}", ""),
            )  # fmt: skip
            self.tally[last // HOUR * HOUR, "devices", client, "", "refused"] += 1
        keys = dict.fromkeys(key[:4] for key in self.tally)
        add = insert_into(Tally, f"hour_at listener client backend {' '.join(_COUNTS)}")
        for key in keys:
            self._add(add, (*key, *(self.tally[(*key, column)] for column in _COUNTS)))

    def _operators(self) -> None:
        rng, token = self.rng, "jti key subject note issued_at expires_at revoked_at"
        for n in range(ACTS):
            ids = rng.sample(self.ids, min(len(self.ids), int(rng.paretovariate(0.7)))) if self.ids else []
            at, verb = self.now - (ACTS - n) * _DAY // 10, rng.choice(("retry", "release", "hold", "check", "resend"))
            act = (n + 1, at, at, "root", "socket", verb, "client app01", len(ids), bool(ids))
            self._add(insert_into(Act, "id made_at spool_at name way verb what count named"), act)
            for ident in ids:
                self._add(insert_into(ActMessage, "act_id message_id"), (n + 1, ident))
        for n in range(TOKENS):
            ends = self.now + (n - 20) * _DAY
            row = (f"{n:012x}", "own", CLIENTS[n % 40], "made for a test", self.now - 60 * _DAY, ends, None)
            self._add(insert_into(tables.Token, token), row)
            use = ("token", f"{n:012x}", self.now - n * HOUR // 9, "198.18.1.1", 7)
            self._add(insert_into(UseRow, "kind name at peer days"), use)
        for name in CLIENTS:
            self._add(
                insert_into(UseRow, "kind name at peer days"), ("client", name, self.now - HOUR, "198.18.0.9", 127)
            )
        for n in range(300):
            since = self.now - (300 - n) * _DAY // 4
            row = (n + 1, BACKENDS[n % 5], since, since + 90 * _SECOND, "throttled", "", "429 Too Many Requests", "")
            self._add(insert_into(Rest, "id backend since_at ended_at by who detail fix"), row)
        for name in BACKENDS:
            row = (name, self.now - HOUR, "root", True, "works", "", "{}", "[]")
            self._add(insert_into(Checked, "backend at who ok summary fix facts steps"), row)


@cache
def _how(client: str, ways: tuple[tuple[str, int], ...]) -> str:
    route = [[1, "recipients *@example.com", name, ""] for name, _ in ways]
    how = {"with": "ESMTP", "by": "network", "helo": f"{client}.{OWN}", "routes": route}
    return json.dumps(how, separators=(",", ":"))


def hash_of(text: str) -> int:
    """The same in every run."""
    return sum(text.encode())


def main() -> None:
    directory = Path(sys.argv[1])
    state = directory / "state"
    state.mkdir(parents=True, mode=0o700)
    make(state, *map(int, sys.argv[2:]))
    (directory / "config.yaml").write_text(config(state, port=2525, http=8026))
    print(directory / "config.yaml")


if __name__ == "__main__":
    main()
