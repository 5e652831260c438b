"""The spool: messages go in durably, are claimed and settled, found and shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from gateway.clock import Clock
from gateway.config.models import RetentionSettings
from gateway.events import Events
from gateway.model import NewMessage, SpoolFull, SpoolTrouble
from gateway.spool import (
    alerts,
    changes,
    checked,
    digests,
    lastuse,
    notices,
    putting,
    queries,
    refusals,
    rests,
    settle,
    signins,
    sql,
    tokens,
    tracking,
    upkeep,
    vault,
)
from gateway.spool.afterwards import Afterwards
from gateway.spool.engine import Engine, Unreadable
from gateway.spool.keeper import Keeper
from gateway.spool.moments import Moments
from gateway.spool.ordering import LEASE
from gateway.spool.progress import Progress
from gateway.spool.records import (
    Claim,
    DeliveryId,
    Notice,
    Offer,
    RestRow,
    Settlement,
    SpoolError,
    Taken,
    TokenRow,
    Told,
    micros,
)
from gateway.spool.secrets import Secrets
from gateway.spool.space import Room
from gateway.spool.sqlite import SQLite
from gateway.spool.stowing import LEFT, MISSING
from gateway.spool.transaction import Transaction
from gateway.spool.writer import Writer

_GRACE = timedelta(minutes=1)  # a worker that works takes what is due sooner than this


@dataclass(eq=False, repr=False)
class Spool(Afterwards):
    """An engine's database while it is open. What changes it raises SpoolTrouble."""

    _keeper: Keeper
    _parts: AsyncExitStack
    uses: lastuse.Uses
    secrets: Secrets
    _offer: Callable[[str], Offer | None]

    @classmethod
    async def open(
        cls,
        directory: Path,
        clock: Clock,
        *,
        engine: Engine | None = None,
        events: Events,
        wake: Callable[[str], None] = lambda backend: None,
        offer: Callable[[str], Offer | None] = lambda backend: None,
        reserve: float,
        most: int | None = None,
        retention: RetentionSettings | None = None,
    ) -> Spool:
        """Lock, check, migrate, recover. Raises SpoolError when another process has it or it is damaged.

        ``wake`` is called with each backend that got new work, ``offer`` with each that is about to: an offer takes it
        in the commit that puts it. ``reserve`` and ``most`` are Room's. Without an ``engine`` it is the file in the
        directory.
        """
        engine = engine or SQLite(directory, reserve=reserve, most=most, progress=Progress(events, clock))
        run = asyncio.get_running_loop().run_in_executor
        async with AsyncExitStack() as parts:
            # A pool of its own: looking through mail must not wait for names, tokens or anybody else's disk.
            pool = ThreadPoolExecutor(2, thread_name_prefix="spool-read")
            parts.callback(pool.shutdown, wait=False)
            thread = parts.enter_context(ThreadPoolExecutor(1, thread_name_prefix="spool"))
            connection = await run(thread, engine.open)
            parts.callback(engine.close)
            seals = vault.Vault(await run(thread, vault.key, directory), events)
            time = await run(thread, engine.time, clock, connection)
            writer = Writer(engine, connection, thread, clock=clock, time=time, events=events, wake=wake, vault=seals)
            parts.push_async_callback(writer.aclose)
            keeper = Keeper(time, writer, events)
            await keeper.look()  # before what was under way is put off
            try:
                found = await writer.submit(changes.recover)
            except SpoolTrouble as error:
                raise SpoolError(f"spool {engine.name} cannot be recovered: {error}, see the log") from error
            writer.drop_sent = not (retention or RetentionSettings()).sent_body
            readers = engine.readers()  # closed before the writer: the last to close checkpoints the log
            parts.push_async_callback(readers.dispose)
            room = Room(engine, partial(run, pool), writer.heal, reserve=reserve, most=most, clock=clock, events=events)
            writer.on_trouble, writer.after_rescue = room.close, readers.dispose
            await room.look()
            parts.callback(asyncio.create_task(room.watch(), name="spool-space").cancel)
            if files := engine.notes.get("missing"):
                events.error("spool_bodies_missing", files=files, fix=MISSING)
            if files := engine.notes.get("left"):
                events.warning("spool_bodies_left", files=files, fix=LEFT)
            known: dict[str, object] = {engine.kind: engine.version, **found}
            events.info("spool_opened", path=engine.name, last_used=time.last_used, **known)
            parts.push_async_callback(keeper.look, last=True)
            moments = Moments(readers, engine)
            async with moments.own() as reader:
                others = moments.own if engine.shared else None
                uses = lastuse.Uses(writer, clock, await lastuse.known(reader), others)
            parts.push_async_callback(uses.write, last=True)
            known_to = keeper, parts.pop_all(), uses, Secrets(writer.submit)
            return cls(engine, moments, pool, time, writer, room, events, *known_to, offer)

    async def aclose(self) -> None:
        """Carry out what was asked, then close."""
        await self._parts.aclose()

    # -- mail in, mail out -------------------------------------------------------------------------------------------

    async def put(self, *messages: NewMessage, told: Sequence[Told] = ()) -> None:
        """Returns once they are on disk, all or none. Raises SpoolFull or SpoolUnavailable."""
        with self.room.taking(messages):
            await self._submit(messages, told)
        for message in (one for one in messages if not one.bounce):  # in memory only
            self.uses.note("client", message.client, message.received_at, message.peer)

    def _submit(self, messages: Sequence[NewMessage], told: Sequence[Told]) -> asyncio.Future[list[Claim]]:
        """With those who take some of it at once: whatever becomes of it, they hear of that."""
        offers = {}
        for each in messages:
            for name in () if each.held else each.deliveries:
                if (offer := self._offer(name)) is not None:
                    offers[each.id, name] = offer
        if not offers:
            return self._writer.submit(partial(putting.put, messages=messages, told=told), fresh=True)
        raw = {each.id: each.raw for each in messages}

        def ended(answer: list[Claim] | BaseException) -> None:
            made = (
                {} if isinstance(answer, BaseException) else {(each.message.id, each.backend): each for each in answer}
            )
            unwanted = []
            for (ident, name), offer in offers.items():
                claim = made.get((ident, name))
                if not offer.taken(claim, raw[ident]) and claim is not None:
                    unwanted.append(claim)
            if unwanted:  # at once, for who stopped may be followed by the spool; where it cannot be, the lease ends
                self._writer.submit(partial(changes.release_claims, claims=unwanted)).cancel()

        run = partial(putting.put, messages=messages, told=told, offers=offers)
        try:
            return self._writer.submit(run, fresh=True, then=ended)
        except SpoolTrouble as trouble:
            ended(trouble)
            raise

    async def claim(
        self,
        backend: str,
        *,
        now: datetime,
        lease: timedelta,
        limit: int,
        busy: Sequence[DeliveryId] = (),
        eager: int = 0,
    ) -> Taken:
        """Take due deliveries of a backend, each out of reach for ``lease``; the attempts are on disk by then.

        With the bodies of up to ``eager`` bytes: one that is damaged is not among the claims, and corrupt. With none
        where one cannot even be read: whoever asks for each alone finds out which.
        """
        given = {"backend": backend, "limit": limit, "busy": [ident for ident, _ in busy]}

        def run(tx: Transaction, eager: int = eager) -> Taken:
            return changes.take(tx, micros(now), micros(now + lease), eager=eager, **given)

        try:
            return await self._taking(run, lambda taken: taken.claims)
        except Unreadable:
            return await self._taking(partial(run, eager=-1), lambda taken: taken.claims)

    async def release_claims(self, claims: Sequence[Claim]) -> None:
        """Undo claims that never reached the network."""
        await self._writer.submit(lambda tx: changes.release_claims(tx, claims))

    async def settle(self, settlement: Settlement) -> None:
        """Write down what became of a claim, with its bounces, in one transaction."""
        await self._writer.submit(lambda tx: settle.settle(tx, settlement), [settlement.claim.message.id])

    async def notice(self, told: Sequence[Notice]) -> list[str]:
        """Tell senders of a delay, all in one transaction; returns of which messages: of others something has changed.

        Raises SpoolFull where there is no room for new mail.
        """
        with self.room.taking([bounce for each in told for bounce in each.bounces]):
            return await self._writer.submit(lambda tx: notices.notice(tx, told), late=True, fresh=True)

    async def bodies(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The bytes of these messages. One that is damaged is missing here, and is corrupt from now on."""
        async with self._moments.reading() as reader:
            found = await queries.bodies(reader, list(ids))
        whole, damaged = await self._run(lambda: queries.verified(self._engine, *found))
        if damaged:
            async with self._moments.own() as reader:  # what was deleted since the first look is gone, not damaged
                found = await queries.bodies(reader, damaged)
            more, damaged = await self._run(lambda: queries.verified(self._engine, *found))
            whole |= more
        if damaged:
            await self._writer.submit(lambda tx: changes.corrupt(tx, damaged), late=True)
        return whole

    async def move(self, delivery_ids: Sequence[DeliveryId], backend: str, now: datetime) -> int:
        """Let what waits in these deliveries leave by another backend, due now. Returns how many were moved."""
        moved = 0
        for n in range(0, len(delivery_ids), queries.STEP):
            ids = delivery_ids[n : n + queries.STEP]
            run = partial(changes.move, delivery_ids=ids, backend=backend, due=micros(now))
            moved += await self._writer.submit(run, late=True)
        return moved

    async def overdue(self, now: datetime, working: Sequence[str] = (), limit: int = 200) -> list[Claim]:
        """Claims on deliveries past their message's lifetime of backends that do not work; the caller settles them.

        At most ``limit``: whoever wants all asks until there are none.
        """
        given = {"now": micros(now), "before": micros(now - _GRACE), "working": list(working), "limit": limit}
        keys = [(row["message_id"], row["backend"]) for row in await self._ask(queries.OVERDUE, **given)]
        return await self._claim(now, LEASE, sql.IDLE, keys=keys) if keys else []

    # -- what became of it afterwards --------------------------------------------------------------------------------

    async def keep_check(self, row: checked.CheckRow) -> None:
        """In the place of the check before."""
        await self._writer.submit(lambda tx: checked.keep(tx, row))

    async def rested(self, began: Sequence[RestRow], ended: Sequence[str], *, anew: bool) -> None:
        """Keep that these backends do not work, and that those do again; ``anew``: by a service that has just begun."""
        await self._writer.submit(partial(rests.note, began=began, ended=ended, anew=anew), late=True)

    async def add_token(self, row: TokenRow) -> None:
        await self._writer.submit(lambda tx: tokens.add(tx, row))

    async def revoke(self, jti: str = "", subject: str = "", *, now: datetime) -> None:
        """A token by its id, or all of a subject that were issued before now."""
        await self._writer.submit(lambda tx: tokens.revoke(tx, jti, subject, micros(now)))

    async def add_link(self, key: str, name: str, role: str, lasts: timedelta, tenant: str = "") -> None:
        """A link that signs in to the operator's pages once; ``key`` is the hash of its secret."""
        await self._writer.submit(lambda tx: signins.add(tx, key, name, role, lasts, tenant=tenant))

    async def use_link(self, link: str, session: str, peer: str, lasts: timedelta) -> bool:
        """Make a session of a link that is good; False where it is not, or was used."""
        return await self._writer.submit(lambda tx: signins.use(tx, link, session, peer, lasts))

    async def see_signin(self, key: str) -> None:
        await self._writer.submit(lambda tx: signins.seen(tx, key))

    async def end_signins(self, key: str = "") -> int:
        """This one, or all and the links not yet used; returns how many."""
        return await self._writer.submit(lambda tx: signins.end(tx, key))

    async def note_refusals(self, rows: Sequence[tuple[Any, ...]], counts: Mapping[tuple[str, str], int]) -> None:
        """Write down who was turned away, and how often by (way in, client). Never of the last room that there is.

        Raises SpoolTrouble.
        """
        if self.room.shut:
            raise SpoolFull("no room for what is no mail")
        await self._writer.submit(partial(refusals.add, rows=rows, counts=counts), fresh=True)

    async def digest(self, what: digests.Untold, message: NewMessage | None, reason: str) -> None:
        """Put the mail that tells a sender all of it, and mark that; without one, why he is not told."""
        with self.room.taking([message] if message is not None else []):
            await self._writer.submit(lambda tx: digests.told(tx, what, message, reason), late=True, fresh=True)

    async def keep_alerts(self, entries: Sequence[alerts.Kept], forgotten: Sequence[str]) -> None:
        """What somebody was told of, for the next run."""
        await self._writer.submit(lambda tx: alerts.keep(tx, entries, forgotten), late=True)

    # -- upkeep ------------------------------------------------------------------------------------------------------

    async def keep_time(self) -> None:
        """Look whether the machine's clock was set; for the owner to call now and then."""
        await self._keeper.look()

    async def sweep(self, now: datetime, retention: RetentionSettings) -> int:
        """Remove some bodies and rows past their time, returns how many: at the end 0, and the file may have shrunk."""
        self._writer.drop_sent = not retention.sent_body
        if await self._ask(f"{tracking.EARLY} LIMIT 1"):
            self._tell(await self._writer.submit(tracking.adopt))
        removed = sum([await self._writer.submit(step, late=True) for step in upkeep.sweeps(now, retention)])
        if not removed:
            await self._writer.shrink()
        return removed

    async def backup(self, to: Path) -> None:
        """A consistent copy while the service runs. Raises SpoolError."""
        await self._run(lambda: self._engine.copy(to))

    def writable(self) -> bool:
        """The writer lives and its last commit succeeded: claims and settlements can be written down."""
        return self._writer.alive and self._writer.healthy

    @property
    def alive(self) -> bool:
        """The writer's task runs; without it nothing will ever be written again."""
        return self._writer.alive

    def accepting(self) -> bool:
        """Writable, and there is room: new mail is taken."""
        return self.writable() and not self.room.shut
