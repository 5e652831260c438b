"""All pages, each once in every cell of widths and themes: axe-core finds nothing, nothing is scrolled sideways."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.http.signins import hashed
from gateway.http.work import Work
from tests.builders import new_message
from tests.http.kit import Service, service, serving
from tests.http.pages import mail, ugly
from tests.http.pages.chromium import AXE, THEMES, WIDTHS, accessible, chromium, fits, needed, picture, shots, window
from tests.http.pages.house import house

pytestmark = [needed, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
PAGES = {
    "overview": "/ui/",
    "flow": "/ui/flow",
    "flow-days": "/ui/flow?days=7",
    "messages": "/ui/messages",
    "messages-found": "/ui/messages?q=max@example.com&state=failed",
    "messages-nothing": "/ui/messages?q=max@exmaple.com",
    "messages-unfit": "/ui/messages?state=held&client=erp",
    "messages-all": "/ui/messages/all?q=max@example.com&upto=~",
    "message-failed": "/ui/messages/1K1ER5XGPR3PN",
    "message-partly": "/ui/messages/1K1EQM5KE2HT7",
    "message-doubt": "/ui/messages/1K1EQ7Z0MBCN4",
    "message-waiting": "/ui/messages/1K1EN2F7C04RA",
    "message-sent": "/ui/messages/1K1EMN8GZ5YEP",
    **{f"message-{name}": f"/ui/messages/{ident}" for name, ident in ugly.IDS.items()},
    "message-many-all": f"/ui/messages/{ugly.IDS['many']}?all=1",
    "source": "/ui/messages/1K1EQM5KE2HT7/source",
    "header": "/ui/messages/1K1EQM5KE2HT7/header",
    "refused": "/ui/refused",
    "refused-nothing": "/ui/refused?q=nobody@example.org",
    "backends": "/ui/backends",
    "backend-stopped": "/ui/backends/office",
    "backend-working": "/ui/backends/google",
    "clients": "/ui/clients?ended=1",
    "client": "/ui/clients/printers",
    "client-tokens": "/ui/clients/erp",
    "settings": "/ui/settings",
    "settings-all": "/ui/settings?all=1",
    "settings-nothing": "/ui/settings?q=nothing-like-this",
    "work": "/ui/work/1",
    "no-page": "/ui/nothing-here",
    "no-message": "/ui/messages/1K1EQM5KE2HT8",
    "no-backend": "/ui/backends/nobody",
}
Look = Callable[[str], Awaitable[None]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relays(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, tuple[Service, str]]]:
    """One as in the design with ugly mail in it, one with much of everything, one where nothing was ever sent."""
    async with AsyncExitStack() as stack:
        drawn = await stack.enter_async_context(house(tmp_path_factory.mktemp("house")))
        await mail.furnish(drawn)
        await ugly.furnish(drawn)
        await drawn.doctor.run("root", ["settings", "spool", "senders"])
        drawn.works.start("hold", "all with client erp", "root", total=48_000, total_more=False, run=_slowly)
        folder = tmp_path_factory.mktemp("crowd")
        async with house(folder, file=ugly.file(folder), standing=ugly.Crowd()) as crowd:
            ugly.figures(crowd)
            for n in range(120):
                await crowd.spool.put(new_message(f"c{n}@example.net", backend="s2g", client="erp"))
            empty = await stack.enter_async_context(service())
            found = {}
            for name, one in (("drawn", drawn), ("crowd", crowd), ("empty", empty)):
                server = await stack.enter_async_context(serving(one, "127.0.0.1:0"))
                found[name] = (one, f"http://127.0.0.1:{server.port}")
            yield found


async def _slowly(work: Work) -> None:
    work.go_on(12_000)
    await asyncio.Event().wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def driven() -> AsyncIterator[Any]:
    async with chromium() as browser:
        yield browser


async def link(running: Service, role: str = "admin") -> str:
    key = secrets.token_urlsafe(32)
    await running.spool.add_link(hashed(key), "root", role, timedelta(minutes=5))
    return f"/ui/login?k={key}"


async def sign_in(page: Any, running: Service, role: str = "admin") -> None:
    await page.goto(await link(running, role))
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url("**/ui/")


CELLS = [(width, theme, True) for width in (320, *WIDTHS) for theme in THEMES] + [
    (390, "dark", False),
    (1280, "light", False),
]


@pytest.mark.timeout(900)
@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: npm install axe-core below $GATEWAY_NPM")
@pytest.mark.parametrize(("width", "theme", "script"), CELLS)
async def test_every_page(
    relays: dict[str, tuple[Service, str]], driven: Any, tmp_path: Path, width: int, theme: str, script: bool
) -> None:
    """axe-core finds nothing, nothing is scrolled sideways, and a picture is kept of each."""
    name, folder = f"{width}-{theme}{'' if script else '-plain'}", shots(tmp_path)
    wrong: list[str] = []
    for relay, tour in (("drawn", _tour), ("crowd", _crowd), ("empty", _empty)):
        running, base = relays[relay]
        async with window(driven, base, width, theme, script=script, statuses=True) as page:

            async def look(at: str, page: Any = page) -> None:
                for check in (fits, accessible):
                    try:
                        await check(page)
                    except AssertionError as error:
                        wrong.append(f"{at}: {error}"[:1500])
                await picture(page, folder, f"{at}-{name}")

            await tour(page, running, look)
    assert wrong == [], "\n".join(wrong)


async def _tour(page: Any, running: Service, look: Look) -> None:
    await page.goto("/ui/")
    await look("signed-out")
    await page.goto(await link(running, "read"))
    await look("login")
    await page.get_by_role("button", name="Sign in").click()
    await page.goto("/ui/messages")
    await look("messages-read")
    await page.get_by_role("button", name="Sign out").click()
    await sign_in(page, running)
    for at, path in PAGES.items():
        await page.goto(path)
        await look(at)
    await page.goto("/ui/messages")
    await page.get_by_role("button", name="Try now").click()
    await look("nothing-chosen")
    for verb in ("Send again", "Send by another backend", "Delete"):
        await page.goto("/ui/messages")
        await page.get_by_label("Choose 1K1ER5XGPR3PN").check()
        await page.get_by_label(f"Choose {ugly.IDS['rtl']}").check()
        await page.locator("summary", has_text="More").click()
        if verb == "Delete":
            await look("messages-chosen")
        await page.get_by_role("button", name=verb).click()
        await look(f"ask-{verb.lower().replace(' ', '-')}")
    await page.goto("/ui/clients")
    await page.get_by_role("button", name="Revoke token 2b67bdf7127a").click()
    await look("ask-revoke")
    await page.goto("/ui/backends")
    await page.get_by_role("button", name="Check and resume office").click()
    await page.get_by_role("alert").filter(has_text="office is still stopped").wait_for()
    await look("backends-checked")
    await page.goto("/ui/clients")
    await page.get_by_label("Subject").fill("erp")
    await page.get_by_role("button", name="Make the token").click()
    await look("token")
    if page.viewport_size["width"] < 640:
        await page.locator(".menu summary").click()
        await look("menu")
    before, running.in_force = (
        running.in_force,
        running.in_force.after_failure(
            running.clock.now(),
            ["config.yaml:3:1: hostname: wrong", "config.yaml:41:9: backends.office.tennant: unknown key"],
        ),
    )
    await page.goto("/ui/settings")
    await look("settings-refused")
    running.in_force, running.reload_error = before, RuntimeError("a fault")
    await page.get_by_role("button", name="Reload the file").click()
    running.reload_error = None
    await page.get_by_role("heading", level=1, name="Something went wrong").wait_for()
    await look("wrong")
    await page.goto("/ui/messages")
    await page.get_by_label("Choose 1K1ER5XGPR3PN").check()
    await page.context.clear_cookies()
    await page.get_by_role("button", name="Try now").click()
    await page.get_by_role("heading", level=1, name="Your sign-in has ended").wait_for()
    await look("ended")


async def _crowd(page: Any, running: Service, look: Look) -> None:
    await sign_in(page, running)
    for at, path in (("overview", "/ui/"), ("flow", "/ui/flow"), ("backends", "/ui/backends")):
        await page.goto(path)
        await look(f"crowd-{at}")
    await page.goto("/ui/messages/all?upto=~")
    await page.get_by_role("button", name="Delete").click()
    await page.get_by_role("button", name="Delete 137 messages").click()
    await page.get_by_role("alert").filter(has_text="Type 137").wait_for()
    await look("ask-typed")


async def _empty(page: Any, running: Service, look: Look) -> None:
    await sign_in(page, running)
    for at in ("", "flow", "messages", "refused", "backends", "clients", "settings"):
        await page.goto(f"/ui/{at}")
        await look(f"empty-{at or 'overview'}")
