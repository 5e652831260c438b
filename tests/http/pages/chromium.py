"""Real headless Chromium: each page that it loads is listened to, and nothing may be said or asked of another host."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

PROGRAM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
AXE = Path(os.environ.get("GATEWAY_NPM", "/nonexistent")) / "node_modules/axe-core/axe.min.js"
needed = pytest.mark.skipif(not PROGRAM, reason="no chromium is installed (Debian package chromium)")
_PLAIN: dict[Any, Any] = {}  # of each page without script, how that is switched
WIDTHS, THEMES = (390, 768, 1280), ("light", "dark")


def shots(folder: Path) -> Path:
    """Where pictures are kept: $GATEWAY_SHOTS, else with the test."""
    found = Path(os.environ.get("GATEWAY_SHOTS", folder))
    found.mkdir(parents=True, exist_ok=True)
    return found


@asynccontextmanager
async def chromium() -> AsyncIterator[Any]:
    playwright = pytest.importorskip("playwright.async_api")
    async with playwright.async_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-background-networking"]
        browser = await driver.chromium.launch(executable_path=PROGRAM, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def window(
    browser: Any,
    base: str,
    width: int = 1280,
    theme: str = "light",
    *,
    script: bool = True,
    statuses: bool = False,
    **more: Any,
) -> AsyncIterator[Any]:
    """A page whose console and requests are watched. ``statuses``: answers of 400 and more are what is looked at."""
    phone = width < 640
    context = await browser.new_context(
        base_url=base, viewport={"width": width, "height": 900}, color_scheme=theme, has_touch=phone,
        is_mobile=phone, **{"reduced_motion": "reduce", **more},
    )  # fmt: skip
    context.set_default_timeout(10_000)
    page = await context.new_page()
    if not script:  # not by java_script_enabled: that could not be switched on again for axe-core
        _PLAIN[page] = await context.new_cdp_session(page)
        await _let_run(page, script=False)
    said: list[str] = []
    expected = "Failed to load resource: the server responded" if statuses else "\n"
    page.on("console", lambda one: None if one.text.startswith(expected) else said.append(one.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    context.on("request", lambda request: said.append(request.url) if not request.url.startswith(base) else None)
    try:
        yield page
        assert said == [], f"{urlsplit(page.url).path}: {said}"
    finally:
        _PLAIN.pop(page, None)
        await context.close()


async def _let_run(page: Any, *, script: bool) -> None:
    await _PLAIN[page].send("Emulation.setScriptExecutionDisabled", {"value": not script})


async def picture(page: Any, folder: Path, name: str) -> None:
    await page.screenshot(path=folder / f"{name}.png", full_page=True)


async def fits(page: Any) -> None:
    """Nothing has to be scrolled sideways."""
    sizes = await page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert sizes[0] <= sizes[1], (page.url, sizes)


async def accessible(page: Any) -> None:
    """axe-core finds nothing (WCAG 2.2 AA and its best practices). It waits by timers: without script those stand."""
    if page in _PLAIN:
        await _let_run(page, script=True)
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    if page in _PLAIN:
        await _let_run(page, script=False)
    wrong = [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]]
    assert wrong == [], (page.url, wrong)
