"""Who gets to a page: hosts, origins, links, cookies, roles, proxies. Everything fails closed and says what to do."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from gateway.http.access import Access
from gateway.http.pages.routes import PAGES
from gateway.http.signins import hashed
from tests.fakes import until
from tests.http.kit import Service, ask, serving
from tests.http.pages.kit import Browser

pytestmark = pytest.mark.asyncio(loop_scope="module")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
MARKS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


async def new_link(running: Service, name: str = "anna", role: str = "admin") -> str:
    key = secrets.token_urlsafe(32)
    await running.spool.add_link(hashed(key), name, role, timedelta(minutes=5))
    return key


def filled(path: str) -> str:
    return path.format(id="M001", name="box", jti="j1", n="1")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/ui/"),
        ("GET", "/ui/login?k=x"),
        ("GET", "/ui/nothing"),
        ("PUT", "/ui/"),
        ("GET", "/ui/%0a"),
        ("POST", "/ui/"),
    ],
)
async def test_every_answer_is_marked(running: Service, method: str, path: str) -> None:
    """Pages, refusals and errors alike: the strict policy, nothing kept, nothing framed."""
    for browser in (Browser(running), await Browser(running).sign_in()):
        seen = await browser.ask(method, path)
        assert {name: seen.headers.get(name) for name in MARKS} == MARKS
        assert "style=" not in seen.html
        assert " on" not in "".join(part.split(">")[0] for part in seen.html.split("<"))


async def test_the_real_server_sends_pages_by_tcp_only(running: Service) -> None:
    """The admin socket is for commands; by TCP a stranger sees how to sign in, and no name of anything."""
    async with serving(running) as server:
        seen = await ask(server.port, "GET", "/ui/", host=f"127.0.0.1:{server.port}")
        assert (seen.status, b"gateway ui-login" in seen.body) == (401, True)
        assert running.settings.hostname.encode() not in seen.body
        assert (await ask(running.settings.http.socket, "GET", "/ui/")).status == 404
        assert (await ask(server.port, "GET", "/ui", host="localhost")).headers["location"] == "/ui/"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "relay.example.com:8026", "[", "0x7f.1"]
)
async def test_a_foreign_host_gets_nothing(running: Service, method: str, host: str) -> None:
    """A name that somebody points at us (DNS rebinding) is no name of ours, whoever is signed in."""
    browser = await Browser(running).sign_in()
    browser.host = host
    assert (await browser.ask(method, "/ui/", origin=f"http://{host}")).status == 421


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://evil.example", "sec_fetch_site": "same-origin"}, 403),
        ({"origin": "https://127.0.0.1:8026", "sec_fetch_site": "same-origin"}, 403),  # another scheme, another origin
        ({"origin": "null"}, 403),
        ({"origin": "null", "sec_fetch_site": "cross-site"}, 403),
        ({"origin": "http://127.0.0.1:8026", "sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "none"}, 403),
        ({"origin": "http://127.0.0.1:8026"}, 303),
        ({"origin": "null", "sec_fetch_site": "same-origin"}, 303),  # a form under no-referrer (Fetch)
    ],
)
async def test_only_a_page_of_ours_may_post(browser: Browser, headers: dict[str, str], status: int) -> None:
    """Same origin, as the browser says it; neither a cookie nor a right form token makes up for it."""
    fields = f"form_token={(await browser.get('/ui/')).token}&zone=utc&back=/ui/".encode()
    assert (await browser.ask("POST", "/ui/times", fields, **headers)).status == status


@pytest.mark.parametrize("token", ["", "0" * 32, "é", "other"])
async def test_a_form_needs_its_token(running: Service, browser: Browser, token: str) -> None:
    """Of this sign-in: another person's is none."""
    if token == "other":
        token = (await (await Browser(running).sign_in()).get("/ui/")).token
    seen = await browser.post("/ui/times", {"form_token": token, "zone": "utc"})
    assert (seen.status, "Nothing was done" in seen.text) == (403, True)


ROWS = [(verb, filled(path), role) for verb, path, _, role in PAGES]


@pytest.mark.parametrize(("verb", "path", "role"), ROWS)
async def test_nobody_sees_a_page_unasked(running: Service, verb: str, path: str, role: Any) -> None:
    """Without a sign-in every page is the same one, and every POST says that nothing was done."""
    seen = await Browser(running).ask(verb, path, origin="http://127.0.0.1:8026", sec_fetch_site="same-origin")
    assert seen.status == 401
    assert ("was not done" in seen.text) == (verb == "POST")
    assert not running.done


@pytest.mark.parametrize(("verb", "path", "role"), ROWS)
async def test_roles(running: Service, verb: str, path: str, role: Any) -> None:
    """Who may only look sees no button, and what he posts all the same is refused."""
    if not await running.spool.find():
        await running.put(1)
    looking = await Browser(running).sign_in("read")
    if verb == "GET":
        seen = await looking.get(path)
        assert seen.buttons == []
        assert (await looking.ask("HEAD", path)).status == seen.status
        return
    seen = await looking.press(path)
    assert (seen.status == 403) == (role.word != "read")
    assert not running.done
    assert running.dispatcher is not None
    assert not running.dispatcher.paused


async def test_a_link_works_once(running: Service) -> None:
    """Looking at it uses nothing up; afterwards it says when and from where it was used."""
    key = await new_link(running, role="operate")
    first, second = Browser(running), Browser(running, peer="192.0.2.7")
    for _ in range(3):
        seen = await second.get(f"/ui/login?k={key}")
        assert (seen.status, seen.h1, second.cookie) == (200, "Sign in as anna", "")
        assert (await second.ask("HEAD", f"/ui/login?k={key}")).status == 200
    seen = await first.post("/ui/login", {"k": key})
    assert (seen.status, seen.headers["location"]) == (303, "/ui/")
    assert "HttpOnly; SameSite=Strict" in seen.headers["set-cookie"]
    assert "Path=/ui" in seen.headers["set-cookie"]
    assert "Domain" not in seen.headers["set-cookie"]
    for again in (await second.post("/ui/login", {"k": key}), await second.get(f"/ui/login?k={key}")):
        assert again.status == 403
        assert "used at" in again.text
        assert "from 127.0.0.1" in again.text
    assert second.cookie == ""
    assert "Signed in as anna (operate) until" in (await first.get("/ui/")).text


@pytest.mark.parametrize("forged", ["x" * 43, "é", "", "%00", "k" * 9000])
async def test_a_forged_link_is_none(running: Service, forged: str) -> None:
    """Cut off, made up or empty."""
    key = await new_link(running)
    browser = Browser(running)
    assert key
    assert (await browser.post("/ui/login", {"k": forged or key[:-1]})).status == 403
    assert browser.cookie == ""
    assert (await browser.get("/ui/")).status == 401


async def test_a_link_ends_after_five_minutes(running: Service) -> None:
    """By the spool's time: setting the machine's clock back does not help."""
    key = await new_link(running)
    running.clock.advance(301)
    running.clock.set(timedelta(days=-1))
    for seen in (
        await Browser(running).get(f"/ui/login?k={key}"),
        await Browser(running).post("/ui/login", {"k": key}),
    ):
        assert (seen.status, seen.h1) == (403, "This link has ended")


async def test_guessing_is_slowed_down_and_keeps_nobody_out(running: Service) -> None:
    """Ten wrong keys a minute from one address, then 429; the right one is let in all the same."""
    browser = Browser(running)
    found = [(await browser.post("/ui/login", {"k": f"{n:043}"})).status for n in range(12)]
    assert found == [403] * 10 + [429] * 2
    assert (await Browser(running, peer="192.0.2.9").post("/ui/login", {"k": "x"})).status == 403
    await browser.sign_in()
    running.clock.advance(60)
    assert (await Browser(running).post("/ui/login", {"k": "x"})).status == 403


async def test_a_session_of_another_is_none(running: Service, browser: Browser) -> None:
    """The cookie is a secret of 32 bytes; its hash in the database, or a link's key, opens nothing."""
    kept = browser.cookie
    key = await new_link(running)
    for forged in (hashed(kept), key, kept[:-1], kept + "x", ""):
        assert (await Browser(running, cookie=forged).get("/ui/")).status == 401
    assert (await Browser(running, cookie=kept).get("/ui/")).status == 200


async def test_a_sign_in_ends(running: Service) -> None:
    """After an hour without a visit, after 8 hours in any case; what the script fetches is no visit."""
    browser = await Browser(running).sign_in()
    for _ in range(9):
        running.clock.advance(3000)
        assert (await browser.get("/ui/")).status == 200
    running.clock.advance(1900)  # 28,900 s
    assert (await browser.get("/ui/")).status == 401
    idle = await Browser(running).sign_in()
    running.clock.advance(3000)
    await idle.get("/ui/", x_part="now")
    running.clock.advance(700)
    assert (await idle.get("/ui/")).status == 401


@pytest.mark.parametrize(
    "cookies", ["gateway_ui={0}; gateway_ui=x", "gateway_ui=x; gateway_ui={0}", 'gateway_ui="{0}"']
)
async def test_a_cookie_of_another_port_signs_nobody_out(running: Service, cookies: str) -> None:
    """Cookies know no port: whatever another server of this host sets beside ours, ours counts."""
    browser = await Browser(running).sign_in()
    mine, browser.cookie = browser.cookie, ""
    assert (await browser.get("/ui/", cookie=cookies.format(mine))).status == 200
    assert (await browser.get("/ui/", cookie="; ".join(f"gateway_ui=x{n}" for n in range(500)))).status == 401


async def test_signing_out(running: Service, browser: Browser) -> None:
    """The cookie is gone from the browser, and worth nothing to who kept it."""
    kept = browser.cookie
    seen = await browser.press("/ui/logout")
    assert (seen.status, browser.cookie) == (303, "")
    assert "Max-Age=0" in seen.headers["set-cookie"]
    assert (await Browser(running, cookie=kept).get("/ui/")).status == 401


async def test_ui_login_and_end_all_over_the_socket(running: Service) -> None:
    """The link names the address of the settings and holds 32 random bytes; ending all voids sign-ins and links."""
    async with serving(running):
        socket = running.settings.http.socket
        made = (await ask(socket, "POST", "/api/v1/signins", {"role": "operate"})).json
        other = (await ask(socket, "POST", "/api/v1/signins", {})).json
        assert made["url"].startswith(f"http://{running.settings.http.bind}/ui/login?k=")
        assert (made["role"], other["role"]) == ("operate", "admin")
        assert made["url"] != other["url"]
        key = made["url"].partition("k=")[2]
        assert len(key) == 43
        browser = Browser(running)
        assert (await browser.post("/ui/login", {"k": key})).status == 303
        assert (await ask(socket, "POST", "/api/v1/signins", {"role": "king"})).status == 400
        assert (await ask(socket, "POST", "/api/v1/signins/end", {})).json["ended"] >= 2
        assert (await ask(socket, "POST", "/api/v1/signins/end", {})).json["ended"] == 0
        assert (await browser.get("/ui/")).status == 401
        assert (await Browser(running).post("/ui/login", {"k": other["url"].partition("k=")[2]})).status == 403
    await until(lambda: '"signed_in"' in running.log.read_text())


async def test_a_token_makes_no_link(running: Service) -> None:
    """What is signed in by it would go on when it has ended or is revoked."""
    async with serving(running) as served:
        made = await ask(served.port, "POST", "/api/v1/signins", {}, authorization=f"Bearer {running.admin_token()}")
    assert (made.status, "gateway ui-login" in made.json["detail"]) == (403, True)


PROXY: dict[str, Any] = {
    "ui_hosts": ("relay.example.com",),
    "trusted_proxies": ("192.0.2.1",),
    "user_header": "X-Forwarded-User",
    "roles": {"anna": "operate", "boss": "admin", "*": "read"},
}
TLS = {"x-forwarded-proto": "https"}


def behind(running: Service, peer: str = "192.0.2.1", access: Access = Access.NETWORK, **headers: str) -> Browser:
    more = TLS | {name.replace("_", "-"): value for name, value in headers.items()}
    more = {name: value for name, value in more.items() if value}
    return Browser(running, access, "relay.example.com", peer, "https", more)


@pytest.fixture
def proxied(running: Service) -> Iterator[Service]:
    http = type(running.settings.http).model_validate({**running.settings.http.model_dump(), **PROXY})
    before = running.settings
    running.settings = before.model_copy(update={"http": http})
    yield running
    running.settings = before


@pytest.mark.parametrize("access", [Access.NETWORK, Access.LOOPBACK])
@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("192.0.2.1", {}, 200),
        ("192.0.2.1", {"x_forwarded_proto": "http"}, 421),
        ("192.0.2.1", {"x_forwarded_proto": ""}, 421),
        ("192.0.2.2", {}, 421),
        ("127.0.0.1", {}, 421),
        ("192.0.2.1", {"host": "other.example.com"}, 421),
        ("192.0.2.1", {"x_forwarded_user": ""}, 401),
        ("192.0.2.1", {"x_forwarded_user": "a\tb"}, 403),
        ("192.0.2.1", {"x_forwarded_user": "x" * 300}, 403),
    ],
)
async def test_behind_a_proxy(
    proxied: Service, access: Access, peer: str, headers: dict[str, str], status: int
) -> None:
    """Only a listed proxy, only over TLS, only by a listed name; what it says of the person counts, from others not."""
    given = {"x_forwarded_user": "anna", **headers}
    assert (await behind(proxied, peer, access, **given).get("/ui/")).status == status


@pytest.mark.parametrize("name", ["x-forwarded-user", "x-forwarded-proto"])
async def test_a_proxy_says_it_once(proxied: Service, name: str) -> None:
    """One that puts its header behind that of whoever asks lets nobody choose who he is."""
    given = {"host": "relay.example.com", **TLS, "x-forwarded-user": "boss"}
    headers = [*given.items(), (name, "guest" if name.endswith("user") else "http")]
    transport = httpx.ASGITransport(behind(proxied).app, client=("192.0.2.1", 5555))
    async with httpx.AsyncClient(transport=transport, base_url="http://relay.example.com") as client:
        reply = await client.get("/ui/", headers=headers)
    assert (reply.status_code, name in reply.text.lower()) == (400, True)


@pytest.mark.parametrize(("user", "role"), [("anna", "operate"), ("boss", "admin"), ("guest", "read")])
async def test_roles_of_a_proxy(proxied: Service, user: str, role: str) -> None:
    """By name, else as for everybody; the form token is that person's."""
    browser = behind(proxied, x_forwarded_user=user)
    assert f"{user} ({role}), signed in by the proxy" in (await browser.get("/ui/")).text
    assert (await browser.press("/ui/times", {"zone": "utc"})).status == 303
    assert (
        await behind(proxied, x_forwarded_user="other").post(
            "/ui/times", {"form_token": (await browser.get("/ui/")).token}
        )
    ).status == 403


async def test_who_has_no_role_is_told(proxied: Service) -> None:
    """Without "*" only those listed."""
    http = proxied.settings.http.model_copy(update={"roles": {"anna": "read"}})
    proxied.settings = proxied.settings.model_copy(update={"http": http})
    seen = await behind(proxied, x_forwarded_user="eve").get("/ui/")
    assert (seen.status, "http.roles" in seen.text) == (403, True)


async def test_a_link_behind_a_proxy(proxied: Service) -> None:
    """The cookie travels over TLS only."""
    browser = behind(proxied)
    key = await new_link(proxied)
    seen = await browser.post("/ui/login", {"k": key})
    assert "; Secure" in seen.headers["set-cookie"]
    assert (await browser.get("/ui/")).status == 200


@pytest.mark.parametrize("way", [Access.NETWORK, Access.LOOPBACK])
async def test_spoofed_headers_are_nothing_without_the_settings(running: Service, way: Access) -> None:
    """Off by default: no header makes anybody somebody."""
    browser = Browser(running, way, more={"x-forwarded-user": "root", **TLS})
    assert (await browser.get("/ui/")).status == (421 if way is Access.NETWORK else 401)


async def test_a_token_looks_and_does_nothing(running: Service) -> None:
    """A bearer token sees the pages without a button: no page of another site can make a browser send it."""
    browser = Browser(running, more={"authorization": f"Bearer {running.admin_token()}"})
    seen = await browser.get("/ui/")
    assert (seen.status, seen.buttons) == (200, [])
    assert (await browser.press("/ui/times")).status == 403  # its form token is good for nothing
    assert (await Browser(running, more={"authorization": "Bearer x.y.z"}).get("/ui/")).status == 401


async def test_a_link_from_elsewhere_asks_again(running: Service, browser: Browser) -> None:
    """From a mail the browser brings no cookie (SameSite=Strict); one load later it does. Never for ever."""
    nobody = Browser(running)
    assert 'http-equiv="refresh"' in (await nobody.get("/ui/", sec_fetch_site="cross-site")).html
    assert 'http-equiv="refresh"' not in (await nobody.get("/ui/", sec_fetch_site="same-origin")).html


async def test_static_files_are_kept_for_ever(browser: Browser) -> None:
    """By the hash of what is in them, so another hash is another address."""
    page = (await browser.get("/ui/")).html
    for name, kind in (("pages.css", "text/css"), ("pages.js", "text/javascript"), ("icons.svg", "image/svg+xml")):
        path = page.partition("/ui/static/")[2].partition("/")[0]
        seen = await browser.get(f"/ui/static/{path}/{name}")
        assert seen.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert seen.headers["content-type"].startswith(kind)
        assert (await browser.get(f"/ui/static/000000000000/{name}")).status == 404
    assert (await browser.get(f"/ui/static/{path}/..%2fframe.html")).status == 404


async def test_a_part_is_a_block_of_the_same_page(browser: Browser) -> None:
    """Who keeps it must know: Vary. What is no part is not found."""
    seen = await browser.get("/ui/", x_part="nothing")
    assert seen.status == 404
    assert (await browser.get("/ui/")).headers["vary"] == "X-Part"


@pytest.mark.parametrize(
    ("path", "status", "section"),
    [
        ("/ui/nothing", 404, ""),
        ("/ui/messages/1K1EQM5KE2HT8", 404, "Messages"),
        ("/ui/backends/nobody", 404, "Backends"),
    ],
)
async def test_an_error_takes_nobody_s_way(
    running: Service, browser: Browser, path: str, status: int, section: str
) -> None:
    """Who is signed in keeps the way to the other pages and out; who is not sees none, nor what is wrong with his."""
    seen = await browser.get(path)
    main = seen.html.partition("<main")[2]
    assert (seen.status, seen.h1 != "", main.count("<h1")) == (status, True, 1)
    assert {"/ui/messages", "/ui/backends", "/ui/settings"} <= set(seen.reader.links)
    assert re.findall(r'aria-current="page">(\w+)', seen.html) == [section] * (2 if section else 0)
    assert "Sign out" in seen.text
    stranger = await Browser(running).get(path)
    assert (stranger.status, stranger.reader.links) == (401, []) if section else (404, ["/ui/"])


async def test_an_error_of_ours_has_a_number(
    browser: Browser, running: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page says whether something was changed and under which number the log has it; never what it was."""

    def broken() -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setattr(running.spool, "counts", broken)
    seen = await browser.get("/ui/")
    assert (seen.status, "Nothing was changed." in seen.text, "secret inside" in seen.html) == (500, True, False)
    assert "/ui/messages" in seen.reader.links
    number = seen.text.partition("under ")[2].split()[0].strip(":")
    await until(lambda: number in running.log.read_text())
