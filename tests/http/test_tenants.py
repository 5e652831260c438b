"""Tenants: whoever logs in for one sees what is its own, by every route and page, and nothing of anybody else's."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
import pytest_asyncio

from gateway import auth
from gateway.actor import Actor, Order, Role
from gateway.clock import first_id
from gateway.delivery import BackendStatus
from gateway.http.access import Access
from gateway.http.pages import routes as pages
from gateway.http.routes import FOR_TENANTS, ROUTES
from gateway.http.signins import LINK_LASTS, hashed
from gateway.http.tenancy import narrowed
from gateway.http.work import Work
from gateway.refusals import Refused
from gateway.spool import DoorBook, Filter, TokenRow
from tests.builders import new_message
from tests.fakes import START
from tests.http.kit import Dispatching, Reply, Service, ask, service, serving
from tests.http.pages.kit import Browser
from tests.spool_kit import engine_of_file as engine_of_file  # noqa: PLC0414 - a fixture

pytestmark = pytest.mark.asyncio(loop_scope="module")
FILE = """\
hostname: relay.example.com
clients:
  localhost: {networks: ["127.0.0.0/8", "::1/128"]}
  northdesk: {token: northdesk, senders: ["*@north.example"]}
  southdesk: {token: southdesk, senders: ["*@south.example"]}
  rover: {networks: [192.0.2.9]}
backends:
  shared: {type: capture, directory: all}
  northbox: {type: capture, directory: n}
  southbox: {type: capture, directory: s}
routes:
  - {clients: [northdesk], backend: [northbox, shared]}
  - {clients: [southdesk], backend: [southbox, shared]}
  - {backend: shared}
tenants:
  north: {clients: [northdesk, rover], backends: [northbox], users: [nora]}
  south: {clients: [southdesk], backends: [southbox], users: [sam]}
"""
HOUR = timedelta(hours=1)
# What stands nowhere but in what belongs to others: the other tenant's, and the operators' own.
FOREIGN = re.compile(r"south|sam\b|operator-only|192\.0\.2\.66", re.IGNORECASE)
NAMED = "this is for operators"


class Standing(Dispatching):
    def status(self) -> Mapping[str, BackendStatus]:
        said = "550 <someone@south.example> is unknown"
        plain = BackendStatus("", "capture", 7777, 7777, None, "misconfigured", said, START, fix=said, state="stopped")
        of = {"shared": said, "southbox": said, "northbox": "550 north"}
        return {name: replace(plain, name=name, reason=text, fix=text) for name, text in of.items()}


@dataclass
class Two:
    """``ids`` of messages by whose they are."""

    running: Service
    port: int
    ids: dict[str, str]
    browser: Browser | None = None
    form_token: str = ""
    tokens: dict[str, str] = field(default_factory=dict)

    def token(self, tenant: str, role: str = "admin", **more: Any) -> str:
        claims = {"aud": auth.ADMIN_AUDIENCE, "role": role, **({"tenant": tenant} if tenant else {}), **more}
        now = self.running.clock.now()
        return auth.mint(
            self.running.settings, "own", subject="who", expires_in=HOUR, now=now, jti=f"t-{tenant}", claims=claims
        )

    def shown(self, tenant: str) -> str:
        return self.tokens.get(tenant) or self.tokens.setdefault(tenant, self.token(tenant))

    async def ask(self, method: str, path: str, body: object = None, tenant: str = "north") -> Reply:
        return await ask(self.port, method, path, body, authorization=f"Bearer {self.shown(tenant)}")

    async def get(self, path: str, tenant: str = "north") -> Any:
        reply = await self.ask("GET", f"/api/v1/{path}", tenant=tenant)
        assert reply.status == 200, reply.body
        return reply.json


async def furnish(running: Service) -> dict[str, str]:
    """Two tenants, operators, and a client that went from one tenant to the other."""
    spool, clock, ids = running.spool, running.clock, dict[str, str]()

    async def put(whose: str, client: str, domain: str, backend: str, **more: Any) -> None:
        clock.advance(1)
        ids[whose] = first_id(clock.now())
        await spool.put(
            new_message(
                f"to@{domain}", backend=backend, ident=ids[whose], client=client, sender=f"from@{domain}",
                received_at=clock.now(), message_id=f"<{whose}@{domain}>", **more,
            )
        )  # fmt: skip

    await put("before", "northdesk", "operator-only.example", "shared")
    clock.advance(1)
    await spool.belong({"northdesk": "north", "southdesk": "south", "rover": "south"})
    await put("moved", "rover", "south.example", "shared")
    clock.advance(7200)
    await spool.belong({"northdesk": "north", "southdesk": "south", "rover": "north"})
    await put("rover", "rover", "north.example", "shared")
    await put("north", "northdesk", "north.example", "northbox")
    await put("north2", "northdesk", "north.example", "shared")
    await put("south", "southdesk", "south.example", "southbox")
    await put("south2", "southdesk", "south.example", "shared")
    await put("own", "localhost", "operator-only.example", "shared")
    await put("copy", "rover", "south.example", "shared", resend_of=ids["moved"])
    await put("copy2", "rover", "south.example", "shared", resend_of=ids["copy"])
    book = DoorBook(spool.note_refusals, clock, running.events)
    for client, domain in (("northdesk", "north.example"), ("southdesk", "south.example"), ("", "south.example")):
        peer = "192.0.2.65" if client == "northdesk" else "192.0.2.66"
        book.note(
            Refused(
                listener="local", peer=peer, stage="rcpt", reason="sender", code=553, enhanced="5.7.1", client=client,
                sender=f"bad@{domain}", text=f"bad@{domain} may not", recipients=(f"x@{domain}",),
            )
        )  # fmt: skip
    await book.flush()
    for name in ("north", "south"):
        now = clock.now()
        await spool.add_token(TokenRow(f"jti{name}", "own", f"{name}desk", f"note {name}", now, now + HOUR))
        spool.uses.note("token", f"jti{name}", now, "192.0.2.66" if name == "south" else "192.0.2.65")
        spool.uses.note("client", f"{name}desk", now, "192.0.2.66" if name == "south" else "192.0.2.65")
        order = Order(Actor(f"{name}-person", "token", Role.ADMIN, name), "hold")
        await spool.hold(Filter(ids=(ids[name],)), spool.now(), order=order)
    everybody = Order(Actor("operator-only", "socket", Role.ADMIN), "hold", "all with sender from@south.example")
    await spool.hold(Filter(ids=(ids["north2"], ids["south2"])), spool.now(), order=everybody)
    running.works.start("hold", "all of south", "sam", total=5, total_more=False, run=_nothing, tenant="south")
    running.works.start("hold", "operator-only", "root", total=5, total_more=False, run=_nothing)
    return ids


async def _nothing(_work: Work) -> None:
    pass


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(engine: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Two]:
    file = tmp_path_factory.mktemp("two") / "config.yaml"
    file.write_text(FILE)
    async with service(file) as running:
        again = running.dispatcher.again  # type: ignore[union-attr]
        running.dispatcher = Standing()
        running.dispatcher.again = again
        async with serving(running) as server:
            yield Two(running, server.port, await furnish(running))


def paths(two: Two, path: str) -> list[str]:
    """A path with everything in its place that it could be asked about."""
    given = {
        "{id}": [*two.ids.values(), "1", "2", "3"] if "acts" in path else [*two.ids.values()],
        "{name}": ["northdesk", "southdesk", "rover", "localhost", "northbox", "southbox", "shared"],
        "{action}": ["hold", "release", "retry", "bounce", "resend", "reroute", "delete", "pause", "check"],
        "{number}": ["1", "2"], "{n}": ["1", "2"], "{jti}": ["jtinorth", "jtisouth"],
    }  # fmt: skip
    found = [path]
    for mark, values in given.items():
        found = [one.replace(mark, value) for one in found for value in (values if mark in one else [""])]
    return found


FEW = ["", "?what={south}", "?q=south.example", "?client=southdesk&total=exact&days=7&all=1"]
QUERIES = [
    "", "?what=south.example", "?q=south.example", "?sender=*@south.example", "?client=southdesk", "?total=exact",
    "?days=7", "?content=1", "?all=1", "?message={south}", "?id={south}", "?backend=southbox", "?q=southdesk&by=client",
    "?ended=1", "?verb=hold", "?what={south}", "?what=from@suoth.example", "?q={south}", "?state=held",
    "?peer=192.0.2.66",
]  # fmt: skip


def strange(two: Two, text: str, said: str) -> list[str]:
    """What of others stands in an answer, beside what was asked: that comes back in errors, and tells nothing."""
    known = [ident for whose, ident in two.ids.items() if whose not in ("north", "north2", "rover")]
    for word in re.findall(r"[\w.@*-]*(?:south|suoth|192\.0\.2\.66)[\w.@*-]*|[0-9A-Z]{13}", said):
        text = re.sub(rf"(?<![\w.@-]){re.escape(word)}", "", text)
    return [*FOREIGN.findall(text), *(ident for ident in known if ident in text)]


MUCH = [pytest.param(FEW, id="few"), pytest.param(QUERIES, id="many", marks=pytest.mark.slow)]


@pytest.mark.parametrize("queries", MUCH)
@pytest.mark.parametrize(("method", "path", "handler", "role"), ROUTES)
async def test_every_route(
    two: Two, method: str, path: str, handler: object, role: Role, queries: Sequence[str]
) -> None:
    """Nothing of others in any answer, whatever is asked for; what is not made for tenants is refused them."""
    if not role or path.endswith("openapi.json"):
        return  # health; what providers call; what is the same for all; metrics: see below
    fit = path in FOR_TENANTS or (method, path) in FOR_TENANTS
    for where in paths(two, path) if fit else paths(two, path)[:1]:
        if not fit:
            refused = await two.ask(method, where, {} if method == "POST" else None)
            assert (refused.status, NAMED in refused.json["detail"]) == (403, True)
        elif method == "GET":
            for query in queries if "{" not in path else ["?content=1&all=1"]:
                asked = where + query.format(**two.ids)
                got = await two.ask("GET", asked)
                shown = got.body.decode() if "openapi" not in path else ""
                assert not strange(two, shown, asked), (asked, shown)
                assert got.status in (200, 400, 404), (asked, got.body)


@pytest.mark.parametrize(
    "whose",
    ["south", "copy2", *(pytest.param(one, marks=pytest.mark.slow) for one in ("own", "before", "moved", "copy"))],
)
async def test_by_id(two: Two, whose: str) -> None:
    """Another's queue id is one that there is not: for looking, reading and for every act."""
    ident = two.ids[whose]
    unknown = "0" * 13
    for path in ("messages/{}", "messages/{}/raw"):
        mine, none = [await two.ask("GET", f"/api/v1/{path}".format(one)) for one in (ident, unknown)]
        assert (mine.status, mine.body.decode().replace(ident, unknown)) == (404, none.body.decode())
    before = await two.running.spool.show(ident)
    for verb in ("hold", "release", "retry", "bounce", "resend", "delete", "reroute"):
        body = {"backend": "northbox"} if verb == "reroute" else {}
        assert (await two.ask("POST", f"/api/v1/messages/{ident}/{verb}", body)).status == 404
        many = await two.ask("POST", f"/api/v1/messages/{verb}", {"ids": [ident], **body})
        assert (many.status, many.json["changed"], many.json["unchanged"]) == (200, 0, [ident])
    assert await two.running.spool.show(ident) == before
    assert (await two.get("trace?what=" + ident))["messages"] == []


async def test_its_own(two: Two) -> None:
    """All that is its own is there: mail while its clients were its own, refusals, tokens, acts, counts, backends."""
    page = await two.get("messages?total=exact")
    mine = {two.ids[whose] for whose in ("north", "north2", "rover")}
    assert {row["id"] for row in page["messages"]} == mine
    assert page["total"] == 3
    south = {row["id"] for row in (await two.get("messages", "south"))["messages"]}
    assert south == {two.ids[whose] for whose in ("south", "south2", "moved")}
    refusals = await two.get("refusals")
    assert ([row["client"] for row in refusals["refusals"]], refusals["reasons"]) == (["northdesk"], {"sender": 1})
    assert refusals["kept"] == 1
    assert [one["jti"] for one in (await two.get("tokens"))["tokens"]] == ["jtinorth"]
    assert [one["name"] for one in (await two.get("acts"))["acts"]] == ["north-person"]
    assert [one["name"] for one in (await two.get("clients"))["clients"]] == ["northdesk", "rover"]
    backends = await two.get("backends")
    assert {name: (one["queued"], one["reason"]) for name, one in backends.items()} == {
        "northbox": (0, "550 north"),
        "shared": (1, ""),
    }
    flow = await two.get("flow")
    assert flow["waiting"] == {"queued": 1, "held": 2, "corrupt": 0}
    assert set(flow["clients"]) <= {"northdesk", "rover"}
    assert (await two.get("work"))["work"] == []
    shared = await two.get(f"messages/{two.ids['north2']}")
    assert [(act["name"], act["what"], act["count"]) for act in shared["acts"]] == [("the operator", "", 1)]


@pytest.mark.parametrize("tenant", ["", "south"])
async def test_others_see_theirs(two: Two, tenant: str) -> None:
    """Operators see all, each tenant its own: what the walk above looks for is there to be seen."""
    found = json.dumps([await two.get(path, tenant) for path in ("messages", "refusals", "tokens", "acts", "backends")])
    assert "southbox" in found
    assert ("northbox" in found) == (not tenant)
    assert ("operator-only" in found) == (not tenant)


async def test_verbs_stop_at_its_own(two: Two) -> None:
    """A filter that means everything means everything of its own."""
    spool = two.running.spool
    theirs = [two.ids[whose] for whose in ("south", "south2", "own", "before", "moved", "copy", "copy2")]
    states = await spool.states(theirs)
    for verb in ("release", "hold", "retry", "release"):
        done = await two.ask("POST", f"/api/v1/messages/{verb}", {"filter": {}})
        assert done.status == 200, done.body
        assert done.json["changed"] <= 3
    given = {"filter": {"sender": "from@south.example"}}
    assert (await two.ask("POST", "/api/v1/messages/delete", given)).json["changed"] == 0
    assert (await two.ask("POST", "/api/v1/messages/bounce", given)).json["changed"] == 0
    other = {"filter": {}, "backend": "southbox"}
    assert (await two.ask("POST", "/api/v1/messages/reroute", other)).status == 404
    assert (await two.ask("POST", "/api/v1/messages/reroute", {"filter": {}, "backend": "shared"})).status == 200
    assert await spool.states(theirs) == states
    assert await spool.states([two.ids["north"]]) == {two.ids["north"]: "queued"}
    await spool.hold(Filter(ids=(two.ids["north"], two.ids["north2"])), spool.now())


@pytest.mark.parametrize("queries", MUCH)
@pytest.mark.parametrize(("method", "path", "page", "role"), pages.PAGES)
async def test_every_page(two: Two, method: str, path: str, page: object, role: Role, queries: Sequence[str]) -> None:
    """The same of the pages; also of the one that a proxy's user sees."""
    browser = two.browser = two.browser or await signed_in(two, "north")
    token = two.form_token = two.form_token or (await browser.get("/ui/messages")).token
    for where in paths(two, path) if path in pages.FOR_TENANTS else paths(two, path)[:1]:
        if path not in pages.FOR_TENANTS:
            seen = await (browser.get(where) if method == "GET" else browser.post(where, {"form_token": token}))
            assert (seen.status, "This is for operators" in seen.text) == (403, True), where
            assert not strange(two, seen.html, where)
        elif method == "GET":
            for query in queries if "{" not in path else [""]:
                asked = where + query.format(**two.ids)
                seen = await browser.get(asked)
                assert not strange(two, seen.html, asked), (asked, seen.text)
                assert seen.status in (200, 303, 400, 403, 404), (asked, seen.text)


async def signed_in(two: Two, tenant: str) -> Browser:
    browser, key = Browser(two.running, Access.LOOPBACK), secrets.token_urlsafe(32)
    await two.running.spool.add_link(hashed(key), f"{tenant}-person", "admin", LINK_LASTS, tenant)
    await browser.post("/ui/login", {"k": key})
    return browser


async def test_page_verbs(two: Two) -> None:
    """What is pressed on a page stops there as well: nothing is done to another's mail."""
    browser = await signed_in(two, "north")
    states = await two.running.spool.states([two.ids["south"]])
    for verb in ("release", "retry", "delete", "again", "bounce"):
        seen = await browser.press("/ui/messages/ask", {"verb": verb, "id": [two.ids["south"]]}, on="/ui/messages")
        found = re.search(r'name="(?:ask|number)" value="(\w+)"', seen.html)
        if found:
            seen = await browser.press("/ui/messages/do", {"ask": found[1], "number": found[1]}, on="/ui/messages")
        assert not [word for word in strange(two, seen.html, two.ids["south"]) if word != "south"]
    assert await two.running.spool.states([two.ids["south"]]) == states


async def test_no_such_tenant(two: Two) -> None:
    """A log-in for a tenant that the settings do not name any more sees nothing at all."""
    with pytest.raises(ValueError, match='there is no tenant "east"'):
        two.token("east")
    with pytest.raises(Exception, match="no tenant east"):
        await narrowed(two.running, Actor("who", "token", Role.READ, "east"))  # type: ignore[arg-type]


async def test_metrics(two: Two) -> None:
    """Numbers by client and backend are not for whoever reaches the port, where tenants do."""
    async with serving(two.running, "0.0.0.0:0") as server:
        assert (await ask(server.port, "GET", "/metrics")).status == 401
        for tenant, status in (("north", 403), ("", 200)):
            token = two.token(tenant)
            assert (await ask(server.port, "GET", "/metrics", authorization=f"Bearer {token}")).status == status


async def test_by_the_proxy(two: Two) -> None:
    """Whom the proxy names is looked up among the tenants' users; the page of one shows nothing of the other."""
    settings = two.running.settings
    http = {
        "ui_hosts": ("relay.example.com",),
        "user_header": "X-Forwarded-User",
        "roles": {"nora": "read", "root": "read"},
    }
    given = settings.http.model_copy(update={**http, "trusted_proxies": (ip_network("127.0.0.1"),)})
    two.running.settings = settings.model_copy(update={"http": given})
    try:
        for user, seen in (("nora", ["north", "north2", "rover"]), ("root", list(two.ids))):
            more = {"x-forwarded-proto": "https", "x-forwarded-user": user}
            page = await Browser(two.running, host="relay.example.com", scheme="https", more=more).get("/ui/messages")
            assert page.status == 200, page.text
            assert [whose for whose, ident in two.ids.items() if ident in page.html] == sorted(
                seen, key=list(two.ids).index
            )
    finally:
        two.running.settings = settings


async def test_a_link_for_a_tenant(two: Two) -> None:
    """``ui-login --tenant``: only of those that there are, and only at the admin socket."""
    socket = two.running.settings.http.socket
    made = await ask(socket, "POST", "/api/v1/signins", {"tenant": "north"})
    assert (made.status, made.json["tenant"]) == (201, "north")
    assert (await ask(socket, "POST", "/api/v1/signins", {"tenant": "east"})).status == 400
