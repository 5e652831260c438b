"""The operator's way in real Chromium: find a failed scan, read why, repair it, send it again, see it sent."""

from __future__ import annotations

import asyncio
import secrets
import smtplib
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from gateway.app import App
from gateway.backends import settings_types
from gateway.config.loading import load
from gateway.http.signins import hashed
from tests.flow.kit import free_port
from tests.http.kit import Service, service, serving
from tests.http.pages import mail
from tests.http.pages.chromium import THEMES, WIDTHS, chromium, fits, needed, picture, shots, window

pytestmark = needed
SCAN = "From: scanner@example.com\r\nTo: max@example.com\r\nSubject: Scan_0921\r\n\r\nThe scan.\r\n"


class Upstream:
    """Refuses the scanner for good, until it is told to take it."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.taken: list[bytes] = []

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _: Any) -> str:  # noqa: N802
        if not self.open.is_set():
            return "550 5.7.1 scanner@example.com may not send here"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        self.taken.append(envelope.content)
        return "250 2.0.0 ok"


@pytest.fixture
def upstream() -> Iterator[tuple[Upstream, int]]:
    handler, port = Upstream(), free_port()
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    yield handler, port
    controller.stop()


@asynccontextmanager
async def gateway(folder: Path, upstream: int) -> AsyncIterator[tuple[App, str]]:
    """A whole one, and the address of its pages."""
    http = free_port()
    file = folder / "config.yaml"
    file.write_text(
        f"state_dir: {folder / 'state'}\nhostname: relay.example.com\nhttp: {{bind: '127.0.0.1:{http}'}}\n"
        "listeners: {devices: {bind: '127.0.0.1:0', auth: 'off'}}\nbounces: {mode: 'off'}\nlog: {level: error}\n"
        f"backends: {{up: {{type: smtp, host: 127.0.0.1, port: {upstream}, tls: none}}}}\nroutes: [{{backend: up}}]\n"
    )
    loaded = load(file, {}, settings_types())
    app = App(loaded, lambda: loaded)
    await app.start()
    try:
        yield app, f"http://127.0.0.1:{http}"
    finally:
        await app.stop(0)


async def link(service: Any, role: str = "admin") -> str:
    key = secrets.token_urlsafe(32)
    await service.spool.add_link(hashed(key), "root", role, timedelta(minutes=5))
    return f"/ui/login?k={key}"


async def sign_in(page: Any, service: Any) -> None:
    await page.goto(await link(service))
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url("**/ui/")


async def press(locator: Any, *, keyboard: bool) -> None:
    """By mouse or finger; or by the keyboard alone."""
    if keyboard:
        await locator.focus()
        await locator.press("Enter")
    else:
        await locator.click()


async def walk(page: Any, app: App, upstream: Upstream, pictures: Path, *, keyboard: bool = False) -> None:
    def send() -> None:
        with smtplib.SMTP("127.0.0.1", app.listeners["devices"].port) as client:
            client.sendmail("scanner@example.com", ["max@example.com"], SCAN)

    await asyncio.to_thread(send)
    while not [row for row in await app.spool.find() if row.state == "failed"]:
        await asyncio.sleep(0.02)
    await sign_in(page, app)
    await page.goto("/ui/messages")
    box = page.get_by_label("Address, domain or id")
    await box.fill("max@example.com")
    await box.press("Enter")
    await picture(page, pictures, "1-found")
    await press(page.get_by_role("link", name="max@example.com", exact=True), keyboard=keyboard)
    await page.get_by_role("heading", level=1, name="Not sent to max@example.com").wait_for()
    assert "scanner@example.com may not send here" in await page.content()
    await fits(page)
    await picture(page, pictures, "2-why")
    upstream.open.set()
    await press(page.get_by_role("button", name="Send again"), keyboard=keyboard)
    await page.get_by_role("heading", level=1, name="Send 1 message again?").wait_for()
    await picture(page, pictures, "3-asked")
    await press(page.get_by_role("button", name="Send 1 message again"), keyboard=keyboard)
    await page.get_by_role("status").filter(has_text="1 message goes out again.").wait_for()
    while not upstream.taken or (await app.spool.find())[0].state != "done":
        await asyncio.sleep(0.02)
    await page.reload()
    await page.get_by_role("heading", level=1, name="Sent to max@example.com").wait_for()
    assert "root" in await page.locator(".life").inner_text()  # who sent it again
    await picture(page, pictures, "4-sent")
    assert b"The scan." in upstream.taken[0]


@pytest.mark.parametrize(
    ("width", "theme", "script", "keyboard"),
    [
        (1280, "light", True, False),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in product(WIDTHS, THEMES, (True, False), (True, False))
        ),
    ],
)
async def test_the_walk(
    tmp_path: Path, upstream: tuple[Upstream, int], width: int, theme: str, script: bool, keyboard: bool
) -> None:
    """With JavaScript and without, by mouse and by keyboard, on a desk and on a phone."""
    handler, port = upstream
    way = "-".join(("walk", str(width), theme, "script" if script else "plain", "keys" if keyboard else "mouse"))
    async with AsyncExitStack() as stack:
        app, base = await stack.enter_async_context(gateway(tmp_path, port))
        browser = await stack.enter_async_context(chromium())
        page = await stack.enter_async_context(window(browser, base, width, theme, script=script))
        await walk(page, app, handler, shots(tmp_path) / way, keyboard=keyboard)


@pytest.fixture
async def furnished() -> AsyncIterator[Service]:
    async with service() as made:
        await mail.furnish(made)
        yield made


async def test_a_refresh_takes_nothing_away(furnished: Service) -> None:
    """What is open, focused or ticked stays while parts are fetched anew; newer mail is told; and where the service
    does not answer the page says so and keeps what it shows."""
    async with chromium() as browser:
        async with serving(furnished, "127.0.0.1:0") as server:
            base = f"http://127.0.0.1:{server.port}"
            context = await browser.new_context(base_url=base)
            page = await context.new_page()
            await page.clock.install()
            await sign_in(page, furnished)
            await page.goto("/ui/messages")
            await page.get_by_label("Choose 1K1ER5XGPR3PN").check()
            assert "1 chosen" in await page.locator(".acts").inner_text()
            await page.keyboard.press("Escape")
            await page.get_by_label("Choose 1K1ER5XGPR3PN").press("/")
            await mail.put(furnished, "1K1EZZ0000000", "new@example.com", backend="box", minutes=0)
            await page.clock.run_for(31_000)
            await page.get_by_text("1 newer message has come in").wait_for()
            assert await page.get_by_label("Choose 1K1ER5XGPR3PN").is_checked()
            assert await page.get_by_label("Choose 1K1EZZ0000000").count() == 0
        await page.clock.run_for(31_000)
        await page.get_by_text("The service does not answer").wait_for()
        assert await page.get_by_label("Choose 1K1ER5XGPR3PN").is_checked()
        await context.close()


async def test_links_from_elsewhere_and_the_way_back(furnished: Service) -> None:
    """A link in a mail works for who is signed in, though the cookie is strict; after sign-out none works."""
    async with serving(furnished, "127.0.0.1:0") as server, chromium() as browser:
        base = f"http://127.0.0.1:{server.port}"
        context = await browser.new_context(base_url=base)
        page = await context.new_page()
        await sign_in(page, furnished)
        elsewhere = f'<a href="{base}/ui/messages/1K1EQM5KE2HT7">the scan</a>'
        await context.route(
            "http://mail.example/", lambda route: route.fulfill(body=elsewhere, content_type="text/html")
        )
        await page.goto("http://mail.example/")
        await page.get_by_text("the scan").click()
        await page.get_by_role("heading", level=1, name="Not sent to max@example.com").wait_for()
        await page.get_by_role("button", name="Sign out").click()
        await page.get_by_role("heading", level=1, name="Sign in").wait_for()
        await page.go_back()
        await page.get_by_role("heading", level=1, name="Sign in").wait_for()
        assert "max@example.com" not in await page.content()
        await context.close()
