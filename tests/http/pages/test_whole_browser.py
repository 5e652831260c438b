"""The pages about the whole in real Chromium: a backend is repaired, nothing open is lost, all is accessible."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.http.signins import hashed
from tests.builders import new_message
from tests.http.kit import Service, serving
from tests.http.pages.chromium import AXE, accessible, chromium, fits, needed, picture, shots, window
from tests.http.pages.house import Standing, house

pytestmark = needed


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Service]:
    async with house(tmp_path) as made:
        yield made


async def sign_in(page: Any, running: Service) -> None:
    key = secrets.token_urlsafe(32)
    await running.spool.add_link(hashed(key), "root", "admin", timedelta(minutes=5))
    await page.goto(f"/ui/login?k={key}")
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url("**/ui/")


@pytest.mark.parametrize(
    ("width", "theme", "script"),
    [(1280, "light", True), pytest.param(390, "dark", False, marks=pytest.mark.slow)],
)
async def test_a_backend_is_repaired(running: Service, tmp_path: Path, width: int, theme: str, script: bool) -> None:
    """From the overview: read why, press, hear that it is not repaired yet, repair it, press again."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(running, "127.0.0.1:0"))
        browser = await stack.enter_async_context(chromium())
        base = f"http://127.0.0.1:{server.port}"
        page = await stack.enter_async_context(window(browser, base, width, theme, script=script))
        await sign_in(page, running)
        await page.get_by_role("heading", level=1, name="1 thing needs you").wait_for()
        await page.get_by_text("What Microsoft 365 said").click()
        await page.get_by_text("AADSTS7000222").first.wait_for()
        await page.get_by_role("button", name="Check and resume office").click()
        await page.get_by_role("alert").filter(has_text="office is still stopped").wait_for()
        await page.get_by_text("2 good, 1 wrong, 1 not tried").wait_for()
        await fits(page)
        await picture(page, shots(tmp_path), f"still-stopped-{width}-{theme}")
        standing = running.dispatcher
        assert isinstance(standing, Standing)
        standing.well = True
        await page.goto("/ui/")
        await page.get_by_role("heading", level=1, name="Everything is all right").wait_for()
        await page.goto("/ui/backends")
        await page.locator("#office summary", has_text="Pause").press("Enter")
        await page.locator("#office").get_by_role("button", name="For 1 hour").press("Enter")
        await page.get_by_role("status").filter(has_text="office is paused for 1h.").wait_for()
        assert standing.paused == {"office": 3600.0}


@pytest.mark.slow
async def test_a_token_is_made_and_copied(running: Service, tmp_path: Path) -> None:
    """Shown once with a button that copies it, which only the script makes; loading again shows it no more."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(running, "127.0.0.1:0"))
        browser = await stack.enter_async_context(chromium())
        page = await stack.enter_async_context(window(browser, f"http://127.0.0.1:{server.port}"))
        await sign_in(page, running)
        await page.goto("/ui/clients")
        await page.get_by_label("Subject").fill("erp")
        await page.get_by_role("button", name="Make the token").click()
        made = page.locator(".made")
        await made.get_by_role("button", name="Copy").wait_for()
        assert "shown this once" in await made.inner_text()
        await accessible(page) if AXE.is_file() else None
        await picture(page, shots(tmp_path), "token")
        await page.goto("/ui/clients")
        assert await page.locator(".made").count() == 0


async def test_a_refresh_takes_nothing_away(running: Service) -> None:
    """The overview is brought up to date by itself, but not while something in it is open."""
    async with serving(running, "127.0.0.1:0") as server, chromium() as browser:
        context = await browser.new_context(base_url=f"http://127.0.0.1:{server.port}")
        page = await context.new_page()
        await page.clock.install()
        await sign_in(page, running)
        queue = page.get_by_role("link", name="17 waiting")
        await queue.wait_for()
        await page.get_by_text("What Microsoft 365 said").click()
        await running.spool.put(new_message("new@example.net", backend="s2g", client="erp"))
        async with page.expect_response(lambda answer: answer.request.headers.get("x-part") == "lead"):
            await page.clock.run_for(15_500)
        await queue.wait_for()
        assert await page.get_by_text("AADSTS7000222").first.is_visible()
        await page.get_by_text("What Microsoft 365 said").click()
        await page.evaluate("document.activeElement.blur()")
        await page.clock.run_for(15_500)
        await page.get_by_role("link", name="18 waiting").wait_for()
        await context.close()
