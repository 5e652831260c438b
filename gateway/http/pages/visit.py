"""One visit to a page: who asks, what he gave, and how he is answered."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakValueDictionary

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from gateway.actor import Actor, Role
from gateway.clock import Clock
from gateway.http.pages.text import Times, url
from gateway.http.service import Service
from gateway.ratelimit import FailureLimit, remember

_WRONG_KEYS = 10  # a minute, from one address


@dataclass(frozen=True, slots=True)
class Flash:
    """What was done, in a line above the page that comes next; ``tone`` is ok, warn or bad."""

    text: str
    tone: str = "ok"
    link: str = ""
    link_text: str = ""


@dataclass(frozen=True, slots=True)
class Person:
    """Who is signed in. ``key`` names the sign-in here, ``secret`` is what only his browser and we know."""

    actor: Actor
    key: str
    secret: str = field(repr=False)
    until: datetime | None = None

    @property
    def token(self) -> str:
        """What every form carries, so that no other page can send one (a second lock beside Origin)."""
        return hmac.new(self.secret.encode(), b"form", hashlib.sha256).hexdigest()[:32]


class Desk:
    """What the pages keep in memory, of the service that runs; nothing here is missed after a restart."""

    def __init__(self, clock: Clock) -> None:
        self.started = clock.now()
        self.secret = secrets.token_hex(32)
        self.wrong_keys = FailureLimit(_WRONG_KEYS, 60 / _WRONG_KEYS)
        self.seen: dict[str, datetime] = {}  # of each sign-in, when it was used last
        self.utc: dict[str, bool] = {}
        # When it was counted, and what came of it: things that need somebody, and failed messages.
        self.badge: tuple[float, int] | None = None
        self.failed: dict[str, tuple[float, str]] = {}  # by tenant
        self._asks: dict[tuple[str, str], object] = {}
        self._flashes: dict[tuple[str, str], Flash] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def keep(self, person: str, flash: Flash, number: str = "") -> str:
        """The number under which that person finds it."""
        number = number or secrets.token_hex(6)
        remember(self._flashes, (person, number), flash)
        return number

    def find(self, person: str, number: str) -> Flash | None:
        return self._flashes.get((person, number)) if number else None

    def keep_ask(self, person: str, ask: object) -> str:
        """The number with which that person, and nobody else, may confirm it."""
        number = secrets.token_hex(16)
        self.put_ask(person, number, ask)
        return number

    def put_ask(self, person: str, number: str, ask: object) -> None:
        remember(self._asks, (person, number), ask)

    def find_ask(self, person: str, number: str) -> object:
        """None where it was not asked, or too long ago."""
        return self._asks.get((person, number))

    def see(self, person: str, now: datetime) -> None:
        remember(self.seen, person, now)

    def lock(self, person: str) -> asyncio.Lock:
        """Held during a list query: one at a time for each sign-in."""
        if (lock := self._locks.get(person)) is None:
            lock = self._locks[person] = asyncio.Lock()
        return lock


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A page: the name of its template and what it prints. ``needs`` is how many things need somebody, if it knows."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    needs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """``form`` are the fields of a POST. ``part`` is what follows the dash of the part asked for."""

    service: Service
    desk: Desk
    request: Request
    person: Person
    form: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def actor(self) -> Actor:
        return self.person.actor

    @property
    def asked_part(self) -> str:
        """The whole name of the part that the script asks for; "" for the page."""
        return self.request.headers.get("x-part", "")

    @property
    def times(self) -> Times:
        return Times(self.service.clock.now(), utc=self.desk.utc.get(self.person.key, False))

    def may(self, role: str) -> bool:
        return self.actor.role >= Role[role.upper()]

    def text(self, name: str) -> str:
        """A field of the form, or of the address where it is a GET; "" where it is not given."""
        if self.request.method == "POST":
            return (self.form.get(name) or [""])[0].strip()
        return self.request.query_params.get(name, "").strip()

    def texts(self, name: str) -> list[str]:
        return [one for one in self.form.get(name, ()) if one]

    def say(self, text: str, tone: str = "ok", *, link: str = "", link_text: str = "") -> str:
        """Keep a line for the next page; its number is for ``go``."""
        return self.desk.keep(self.person.key, Flash(text, tone, link, link_text))

    @staticmethod
    def go(path: str, /, **query: object) -> Response:
        """See other (RFC 9110 15.4.4): what a POST is answered with, so that a reload does nothing twice."""
        return Response(status_code=303, headers={"location": url(path, **query)})

    @property
    def token_field(self) -> Markup:
        """What every form of a page holds; by ``form`` two presses of one button are told from two pages."""
        fields = '<input type="hidden" name="form_token" value="{}"><input type="hidden" name="form" value="{}">'
        return Markup(fields).format(self.person.token, secrets.token_hex(6))  # noqa: S704 - both are ours


IDLE = timedelta(hours=1)
LONGEST = timedelta(hours=8)
