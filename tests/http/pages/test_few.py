"""Each page asks little: a handful of statements of one moment, whatever it shows, and is not long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from gateway.spool import TokenRow
from tests.fakes import START
from tests.http.kit import Service
from tests.http.pages.house import house
from tests.http.pages.kit import Browser
from tests.spool_kit import statements

MOST = 8
PAGES = (
    "/ui/", "/ui/flow", "/ui/flow?days=90", "/ui/refused", "/ui/refused?q=erp", "/ui/refused?q=192.0.2.0/24",
    "/ui/backends/office", "/ui/clients", "/ui/settings?all=1", "/ui/messages", "/ui/messages?state=waiting",
    "/ui/messages?q=example.com", "/ui/messages?client=erp", "/ui/messages?backend=office&order=oldest",
)  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def furnished(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    async with house(tmp_path_factory.mktemp("few")) as running:
        for n in range(100):
            row = TokenRow(f"{n:012x}", "own", "erp", "one of many", START, START + timedelta(days=n + 1))
            await running.spool.add_token(row)
        yield running


@pytest.mark.asyncio(loop_scope="module")
async def test_the_page_of_clients_says_that_learn_mode_is_on(furnished: Service) -> None:
    """And loudly where strangers are heard out; nothing where it is off."""
    browser = await Browser(furnished).sign_in()
    assert "Learn mode" not in (await browser.get("/ui/clients")).html
    await furnished.learner.begin(timedelta(hours=1), "root", [], ["192.0.2.0/24"])
    try:
        page = (await browser.get("/ui/clients")).html
    finally:
        await furnished.learner.stop()
    assert "Strangers of 192.0.2.0/24 are heard to the end" in page


@pytest.mark.parametrize("path", [*PAGES, "message"])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_page_asks_little_of_one_moment_and_is_short(furnished: Service, path: str) -> None:
    """One question is who he is; all others are of one transaction. It is the first page that somebody loads."""
    browser = await Browser(furnished).sign_in()
    path = path if path != "message" else f"/ui/messages/{(await furnished.spool.find(limit=1))[0].id}"
    with statements() as seen:
        page = await browser.get(path)
    assert page.status == 200
    who, *asked = [text for text in seen if text != "BEGIN" and text != "COMMIT"]
    assert "signin" in who
    assert len(asked) <= MOST, asked
    assert seen.count("BEGIN") <= 2
    assert len(page.html.encode()) <= 60_000
