"""How pages bear what the picture does not show: a keyboard, forced colours, paper, a frame, a service that went."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.http.kit import Service, service, serving
from tests.http.pages import mail
from tests.http.pages.chromium import chromium, fits, needed, picture, shots, window
from tests.http.pages.house import house
from tests.http.pages.test_every_page import sign_in

pytestmark = [needed, pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]
PAGES = (
    "/ui/", "/ui/flow", "/ui/messages", "/ui/messages?q=nothing", "/ui/messages/1K1EQM5KE2HT7",
    "/ui/messages/1K1EQM5KE2HT7/source", "/ui/messages/all?upto=~", "/ui/refused", "/ui/backends",
    "/ui/backends/office", "/ui/clients", "/ui/clients/printers", "/ui/settings",
)  # fmt: skip
# What has the focus: its place, whether the ring is drawn, and whether something lies over it.
FOCUSED = """() => {
  const one = document.activeElement, at = one.getBoundingClientRect(), style = getComputedStyle(one);
  const shown = document.elementFromPoint(at.left + Math.min(at.width, 20) / 2, at.top + at.height / 2);
  return {
    html: one.outerHTML.slice(0, 120), body: one === document.body, ring: style.outlineStyle, width: style.outlineWidth,
    inside: at.top >= -1 && at.left >= -1 && at.bottom <= innerHeight + 1 && at.right <= innerWidth + 1,
    hidden: !shown || !(one.contains(shown) || shown.contains(one)),
  };
}"""
# Links and buttons that are called the same and lead elsewhere.
TWINS = """() => {
  const found = {};
  for (const one of document.querySelectorAll("main a[href], main form button:not([hidden]), main summary")) {
    const name = (one.getAttribute("aria-label") || one.textContent).replace(/\\s+/g, " ").trim();
    const where = one.matches("a") ? one.href : one.matches("summary") ? one.closest("details").textContent
      : one.form.getAttribute("action") + one.value + new URLSearchParams(new FormData(one.form));
    (found[name] = found[name] || new Set()).add(where);
  }
  return Object.entries(found).filter(([, places]) => places.size > 1).map(([name]) => name);
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(engine: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    async with house(tmp_path_factory.mktemp("house")) as made:
        await mail.furnish(made)
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(running: Service) -> AsyncIterator[str]:
    async with serving(running, "127.0.0.1:0") as made:
        yield f"http://127.0.0.1:{made.port}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def driven() -> AsyncIterator[Any]:
    async with chromium() as browser:
        yield browser


@pytest.mark.parametrize("width", [390, 1280])
async def test_by_keyboard(running: Service, server: str, driven: Any, width: int) -> None:
    """On each page the first step is the skip link; each further one is seen, has a ring, and none is a trap."""
    wrong: list[str] = []
    async with window(driven, server, width) as page:
        await sign_in(page, running)
        for path in PAGES:
            await page.goto(path)
            await page.keyboard.press("Tab")
            if "To the page" not in await page.evaluate("document.activeElement.textContent"):
                wrong.append(f"{path}: the skip link is not first")
            wrong += [f"{path}: {one}" for one in await _steps(page)]
            await page.locator(".skip").focus()
            await page.keyboard.press("Enter")
            assert await page.evaluate("document.activeElement.id") == "main"
    assert wrong == []


async def _steps(page: Any) -> list[str]:
    found = []
    for _ in range(400):
        await page.keyboard.press("Tab")
        at = await page.evaluate(FOCUSED)
        if at["body"] or "To the page" in at["html"]:
            return found
        if at["ring"] == "none" or at["width"] == "0px" or not at["inside"] or at["hidden"]:
            found.append(str(at))
    return [*found, "no end"]


async def test_names_out_of_context(running: Service, server: str, driven: Any) -> None:
    """Read in a list of links or buttons, what is called the same does the same; recipients aside."""
    found: dict[str, list[str]] = {}
    async with window(driven, server) as page:
        await sign_in(page, running)
        for path in PAGES:
            await page.goto(path)
            if twins := [one for one in await page.evaluate(TWINS) if "@" not in one]:
                found[path] = twins
    assert found == {}


async def test_menus(running: Service, server: str, driven: Any) -> None:
    """Enter opens, Escape closes and gives the focus back; also on a phone."""
    async with window(driven, server, 390) as page:
        await sign_in(page, running)
        await page.goto("/ui/messages")
        for menu in (page.locator("details.menu"), page.locator("details.drop")):
            summary = menu.locator("summary")
            await summary.press("Enter")
            assert await menu.get_attribute("open") is not None
            await fits(page)
            await page.keyboard.press("Tab")
            await page.keyboard.press("Escape")
            assert await menu.get_attribute("open") is None
            assert await summary.evaluate("one => one === document.activeElement")


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_forced_colours_and_zoom(running: Service, server: str, driven: Any, tmp_path: Path, theme: str) -> None:
    """At 400 % of 1280, in the colours of who needs them: nothing sideways, bars and meters are seen."""
    more = {"forced_colors": "active", "device_scale_factor": 2}
    async with window(driven, server, 320, theme, **more) as page:
        await sign_in(page, running)
        for number, path in enumerate(PAGES):
            await page.goto(path)
            await fits(page)
            await picture(page, shots(tmp_path), f"forced-{number}-{theme}")


async def test_on_paper(running: Service, server: str, driven: Any, tmp_path: Path) -> None:
    """What is listed is printed, what is pressed is not."""
    async with window(driven, server) as page:
        await sign_in(page, running)
        for path, words in (("/ui/messages", "orders@partner.example"), ("/ui/clients", "192.0.2.0/27")):
            await page.goto(path)
            await page.emulate_media(media="print")
            assert await page.get_by_text(words).first.is_visible()
            assert not await page.locator("main button:visible, nav:visible, .find:visible").count()
            await picture(page, shots(tmp_path), f"print-{path.rpartition('/')[2]}")


async def test_in_no_frame(running: Service, server: str, driven: Any) -> None:
    """Neither of another site nor of our own."""
    context = await driven.new_context(base_url=server)
    page = await context.new_page()
    await sign_in(page, running)
    framing = f'<iframe src="{server}/ui/"></iframe>'
    await context.route("http://evil.example/", lambda route: route.fulfill(body=framing, content_type="text/html"))
    await page.goto("http://evil.example/")
    assert "need" not in await page.frame_locator("iframe").locator("body").inner_text()
    assert page.frames[1].url.startswith("chrome-error:")
    await context.close()


async def test_the_service_goes_between_question_and_deed(driven: Any) -> None:
    """Nothing is done of what was asked before, the page says so, and the question can be asked again."""
    async with service() as running:
        await mail.furnish(running)
        await _between(running, driven)


async def _between(running: Service, driven: Any) -> None:
    async with serving(running, "127.0.0.1:0") as first:
        port = first.port
        context = await driven.new_context(base_url=f"http://127.0.0.1:{port}")
        page = await context.new_page()
        await sign_in(page, running)
        await page.goto("/ui/messages")
        await page.get_by_label("Choose 1K1ER5XGPR3PN").check()
        await page.locator("summary", has_text="More").click()
        await page.get_by_role("button", name="Delete").click()
        await page.get_by_role("heading", name="Delete 1 message?").wait_for()
    async with serving(running, f"127.0.0.1:{port}"):
        await page.get_by_role("button", name="Delete 1 message").click()
        await page.get_by_role("heading", name="There was nothing to do").wait_for()
        assert "Nothing was done: the question is too old" in await page.locator("main").inner_text()
        assert await running.spool.states(["1K1ER5XGPR3PN"]) == {"1K1ER5XGPR3PN": "failed"}
        await context.close()
