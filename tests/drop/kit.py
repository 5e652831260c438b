"""A collector on a real folder, a real spool and a dispatcher behind it; it looks when it is told to."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gateway.drop import folder, letter, posted
from gateway.drop.collector import Collector, Kind
from gateway.drop.folder import Places
from gateway.drop.judge import Judge
from gateway.intake import Rules
from gateway.model import Client
from gateway.quotas import Quotas
from gateway.spool import Filter
from tests import builders
from tests.delivery.kit import House, house, routing, settings
from tests.fakes import ScriptedBackend

HERE = Client(name="localhost", senders=(("*@x.org",),), recipients=(("*@x.org",),))
OURS, PLAIN = Kind(letter.read, ours=True, quiet=0), Kind(partial(posted.read, domain="x.org"), ours=False, quiet=5)
MAIL = b"From: s@x.org\r\nTo: a@x.org\r\nSubject: s\r\n\r\nhello\r\n"


@dataclass
class Rig:
    at: House
    backend: ScriptedBackend
    collector: Collector
    state: Path

    @property
    def places(self) -> Places:
        return self.collector.places

    def drop(self, *addresses: str, raw: bytes = MAIL, sender: str = "s@x.org", **more: Any) -> None:
        """As gateway-sendmail does."""
        folder.make_maildrop(self.places)
        folder.drop(
            self.places, letter.write(builders.envelope(*addresses or ("a@x.org",), sender=sender, **more), raw)
        )

    def put(self, name: str, data: bytes, age: float = 60.0) -> Path:
        """A file by any other program, so many seconds old."""
        self.places.new.mkdir(parents=True, exist_ok=True)
        path = self.places.new / name
        path.write_bytes(data)
        self.age(path, age)
        return path

    def age(self, path: Path, seconds: float) -> None:
        then = self.at.clock.now().timestamp() - seconds
        os.utime(path, (then, then), follow_symlinks=False)

    def change(self, **judge: Any) -> None:
        self.collector.judge = replace(self.collector.judge, **judge)

    async def states(self, ident: str) -> list[tuple[str, str]]:
        detail = await self.at.spool.show(ident)
        return [(one.address, one.state) for one in detail.recipients] if detail else []

    def lies(self) -> list[str]:
        """The names of the files in all three folders."""
        folders = {"new": self.places.new, "taken": self.places.taken, "corrupt": self.places.corrupt}
        return sorted(
            f"{name}/{path.name.partition('~')[2] or path.name}"
            for name, where in folders.items()
            for path in (where.iterdir() if where.exists() else ())
            if not path.is_dir() or path.is_symlink()
        )

    def logged(self, event: str) -> list[dict[str, Any]]:
        return self.at.logged(event)


@asynccontextmanager
async def rig(path: Path, kind: Kind = OURS, client: Client | None = HERE, **changes: Any) -> AsyncIterator[Rig]:
    """``client``: whom this machine is to the settings. Deliveries go to one backend, that takes them."""
    backend = ScriptedBackend("b")
    config = settings(path / "state", "b", **changes)
    async with house(path / "state", backend, config=config) as at:
        places = folder.maildrop(path / "state") if kind is OURS else folder.pickup(path / "out")
        rules = Rules.of(config, routing(config, {"b": backend}))
        refuse, put = at.dispatcher.refuse, at.spool.put
        judge = Judge(rules, lambda _: client, Quotas(), put, refuse, at.events, at.clock)

        async def known(ids: Any) -> set[str]:
            return {row.id for row in await at.spool.find(Filter(ids=tuple(ids)))}

        collector = Collector("maildrop" if kind is OURS else "out", places, kind, judge, at.ids, known)
        yield Rig(at, backend, collector, path / "state")
