"""A database that does not answer shuts the door after a moment, with the cause, and opens it again by itself."""

from __future__ import annotations

import io
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from gateway.events import Events
from gateway.model import SpoolUnavailable
from gateway.postgresql.engine import Postgres
from gateway.postgresql.server import Server
from gateway.spool import Spool
from tests import postgres_kit
from tests.fakes import FakeClock, until
from tests.spool_kit import message


async def test_the_door_shuts_while_the_database_is_away(tmp_path: Path) -> None:
    """Not at once, for a restart is short; and it is no bug of ours."""
    clock, log = FakeClock(), io.StringIO()
    events = Events(CollectorRegistry(), format="json", level="info", clock=clock, stream=log)
    with postgres_kit.cluster() as server:
        engine = Postgres(Server(server.url("postgres"), "a", timedelta(seconds=2)))
        spool = await Spool.open(tmp_path, clock, engine=engine, events=events, reserve=0.1)
        room = spool.room

        async def second() -> str:
            clock.advance(1)
            await until(lambda: clock.asleep("spool-space"))
            return room.shut

        assert room.database == f"postgres on {server.folder}"
        assert await second() == ""
        server.stop()
        assert [await second() for _ in range(5)] == ["", "", "", "", "away"]
        with pytest.raises(SpoolUnavailable):
            await spool.put(message())
        server.start()
        for _ in range(20):
            if not await second():
                break
        assert (room.shut, spool.accepting()) == ("", True)
        await spool.put(message())
        await spool.aclose()
    events.close()
    assert '"cause":"away"' in log.getvalue().replace(": ", ":")
    assert '"bug"' not in log.getvalue()
