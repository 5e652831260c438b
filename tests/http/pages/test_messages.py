"""Finding mail, one message, and text of strangers: what the pages say, and that nothing in them runs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from gateway.http.pages.text import Times
from gateway.model import Outcome, Verdict
from tests.fakes import START
from tests.http.kit import Service, service
from tests.http.pages import mail
from tests.http.pages.kit import Browser
from tests.spool_kit import statements

pytestmark = pytest.mark.asyncio(loop_scope="module")
ONE, FAILED, DOUBT, SENT, WAITS = "1K1EQM5KE2HT7", "1K1ER5XGPR3PN", "1K1EQ7Z0MBCN4", "1K1ES4128SV0C", "1K1EN2F7C04RA"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(engine: str) -> AsyncIterator[Service]:
    async with service() as made:
        await mail.furnish(made)
        yield made


ROWS = {
    ONE: ("Partly failed 1 of 2 not sent", "max@example.com and 1 more from scanner@example.com", "403"),
    FAILED: ("Failed nobody was told", "max@example.com", "The account is not allowed to do this. 403"),
    "1K1EMR3A71XJK": (
        "Failed sender told",
        "c.moreau@exmaple.org",
        "There is no such domain, or it takes no mail. 550 5.1.2",
    ),
    DOUBT: ("In doubt held, may have arrived", "oncall@example.net", "connection lost"),
    SENT: ("Sent", "orders@partner.example from invoice@example.com", "Taken as r1 250 2.0.0"),
    "1K1EMN8GZ5YEP": ("Sent", "reception@example.com", "Taken as 1w8gKj-FnQW0hPx3CD-kT2z 202"),
    WAITS: ("Waiting", "admin@example.com", "The mailbox is full. 452 4.2.2"),
    "1K1ETM2VAWG42": ("Waiting when office works", "reception@example.com", "Not tried yet, office does not run"),
}


@pytest.mark.parametrize("ident", ROWS)
async def test_a_line_says_what_and_why(browser: Browser, ident: str) -> None:
    """Words before codes: state and what comes next, to and from, meaning and code."""
    text = (await browser.get("/ui/messages")).text.partition(ident)[2][:400]
    for words in ROWS[ident]:
        assert words in text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=max@example.com", {ONE, FAILED}),
        ("q=partner.example", {ONE, SENT}),
        ("q=*@partner.example", {ONE, SENT}),
        ("q=<1K1EQM5KE2HT7@copier.dev.local>", {ONE}),
        ("q=1w8gKj-FnQW0hPx3CD-kT2z", {ONE, "1K1EMN8GZ5YEP"}),
        ("state=failed", {ONE, FAILED, "1K1EMR3A71XJK"}),
        ("state=failed&client=erp", {"1K1EMR3A71XJK"}),
        ("state=doubt", {DOUBT}),
        ("state=in_doubt", {DOUBT}),  # as the API calls it
        ("backend=b8", {SENT}),
        ("from=50h&to=45m&client=billing", set()),
        ("q=max@example.com&state=sent", set()),
    ],
)
async def test_finding(browser: Browser, query: str, found: set[str]) -> None:
    """One box takes address, domain, Message-ID and provider's id; the rest narrows it."""
    page = await browser.get(f"/ui/messages?{query}")
    assert page.status == 200
    assert {link.rpartition("/")[2] for link in page.reader.links if "/ui/messages/1K" in link} == found


async def test_an_id_goes_straight_to_the_message(browser: Browser) -> None:
    seen = await browser.get(f"/ui/messages?q={ONE.lower()}")
    assert (seen.status, seen.headers["location"]) == (303, f"/ui/messages/{ONE}")


async def test_nothing_found_says_where_it_was_looked(browser: Browser) -> None:
    """Never "no message" for what was not searched; an address like it, and the same search among the refused."""
    page = await browser.get("/ui/messages?q=max@exmaple.com")
    assert "No message has max@exmaple.com" in page.text
    for words in ("sender, rewritten sender nor recipient", "Message-ID", "90 days"):
        assert words in page.text
    assert "/ui/refused?q=max%40exmaple.com" in page.reader.links
    assert "/ui/messages?q=max%40example.com" in page.reader.links


async def test_chips_take_one_choice_away(browser: Browser) -> None:
    page = await browser.get("/ui/messages?q=max@example.com&state=failed&client=copier")
    assert "/ui/messages?q=max%40example.com&by=address&client=copier" in page.reader.links
    assert "/ui/messages?state=failed&client=copier" in page.reader.links


@pytest.mark.parametrize(
    "query",
    [
        "state=no",
        "from=x",
        "to=yesterday!",
        "by=id",
        "before=%00",
        "after=%ff&before=x",
        "q=%00%0d%0a",
        "q=" + "x" * 5000,
    ],
)
async def test_odd_addresses(browser: Browser, query: str) -> None:
    """Nothing in the address breaks a page or widens what is found."""
    assert (await browser.get(f"/ui/messages?{query}")).status in (200, 400)


async def test_newer_mail_is_told_and_moves_nothing(browser: Browser) -> None:
    seen = await browser.get(f"/ui/messages?top={ONE}", x_part="newer")
    assert "4 newer messages have come in" in seen.text
    assert "<table" not in seen.html
    assert (await browser.get("/ui/messages?top=~", x_part="newer")).text == ""


VERDICTS = {
    ONE: "Not sent to max@example.com",
    FAILED: "Not sent to max@example.com",
    DOUBT: "It may or may not have arrived",
    SENT: "Sent to orders@partner.example",
    "1K1ETM2VAWG42": "Waiting. It waits for office, which is not configured",
}


@pytest.mark.parametrize("ident", VERDICTS)
async def test_the_first_line_is_the_verdict(browser: Browser, ident: str) -> None:
    page = await browser.get(f"/ui/messages/{ident}")
    assert (page.status, page.h1) == (200, VERDICTS[ident])
    assert (await browser.get(f"/ui/messages/{ident}", x_part="life")).html.strip().startswith("<ol")


async def test_one_message(browser: Browser) -> None:
    """Cause, way out and button; the life line; recipients; facts; parts by name, never by content."""
    page = await browser.get(f"/ui/messages/{ONE}")
    for words in (
        "1 of 2 recipients of a message from copier", "orders@partner.example has it.", "until 20 December",
        "Send As on scanner@example.com", "Nobody was told of the failure", "bounces.from is not set",
        "Nothing more happens by itself", "application/pdf", "Scan_0921.pdf",
    ):  # fmt: skip
        assert words in page.text
    assert "The scan." not in page.html


async def test_text_and_file(browser: Browser) -> None:
    """Header and source are text in a <pre>; the bytes are a file that no browser shows."""
    header = await browser.get(f"/ui/messages/{ONE}/header")
    assert "Subject: Scan_0921" in header.text
    assert "The scan." not in header.text
    assert "The scan." in (await browser.get(f"/ui/messages/{ONE}/source")).text
    file = await browser.get(f"/ui/messages/{ONE}/download")
    assert file.headers["content-type"] == "application/octet-stream"
    assert file.headers["content-disposition"] == f'attachment; filename="{ONE}.eml"'
    assert file.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert file.headers["x-content-type-options"] == "nosniff"
    assert (await browser.get("/ui/messages/1K1EQM5KE2HT0/download")).status == 404


async def test_who_only_looks_sees_no_content(running: Service) -> None:
    looking = await Browser(running).sign_in("read")
    page = await looking.get(f"/ui/messages/{ONE}")
    assert "Scan_0921" not in page.html
    for what in ("header", "source", "download"):
        assert (await looking.get(f"/ui/messages/{ONE}/{what}")).status == 403


EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(2)>\u202egnp.exe\x00\x1b[31m'


async def test_text_of_strangers_is_text(running: Service, browser: Browser) -> None:
    """Markup, control and bidi characters, and 10,000 characters: shown, cut, and never active."""
    head = f'From: {"A" * 10_000} <a@example.com>\r\nSubject: {EVIL}\r\nContent-Type: text/html; name="{EVIL}"'
    raw = f"{head}\r\n\r\n{EVIL}".encode()
    await mail.put(running, "1K1EVZ0000000", "b@example.org", backend="evil", minutes=200, raw=raw, client=EVIL)
    answer = Outcome(Verdict.REJECTED, code=550, enhanced="5.7.1", detail=EVIL * 100, said_by="smtp", fix=EVIL)
    await mail.answer(running, "evil", answer)
    for path in (
        "",
        "/1K1EVZ0000000",
        "/1K1EVZ0000000/source",
        "/1K1EVZ0000000/header",
        "?q=<script>alert(1)</script>",
    ):
        page = await browser.get(f"/ui/messages{path}")
        assert page.status == 200
        assert "<script>alert" not in page.html
        assert "<img" not in page.html
        assert not {"\u202e", "\x00", "\x1b"} & set(page.html)
        assert len(page.html) < 60_000
        if path != "?q=<script>alert(1)</script>":
            assert "\\u202e" in page.text


async def test_a_page_is_small_and_asks_little(running: Service, browser: Browser) -> None:
    """50 rows in 60 KB; at most 8 statements, of one moment. What is counted for Overview is good for seconds."""
    for n in range(60):
        await mail.put(running, f"1K0AAAAAAA{n:03}", "someone.with.a.name@example.com", backend="box", minutes=300)
    await browser.get("/ui/messages")
    with statements() as asked:
        page = await browser.get("/ui/messages")
    assert len(page.html.encode()) < 60_000
    assert page.text.count("50 shown") == 1
    own = [one for one in asked if "signin" not in one]
    assert len([one for one in own if one != "BEGIN"]) <= 7, own  # and one for the sign-in
    assert own.count("BEGIN") <= 2, own  # the sign-in's, and one moment for all of the list


async def test_older_and_newer(browser: Browser) -> None:
    """By ids: first page, the next, and back to the first."""
    first = await browser.get("/ui/messages")
    older = next(link for link in first.reader.links if "before=" in link)
    second = await browser.get(older)
    newer = next(link for link in second.reader.links if "after=" in link)
    assert (await browser.get(newer)).reader.links.count("/ui/messages/" + ONE) == 1
    assert f"/ui/messages/{ONE}" not in second.reader.links


async def test_sentences_go_by_the_clock_of_the_page() -> None:
    """Those of commands say UTC; here the zone is that of the page, and nothing else in them is touched."""
    times = Times(START, utc=True)
    assert times.told("Kept until 2026-12-20 12:00Z. Until then") == "Kept until 20 Dec 12:00. Until then"
    assert times.told("Next try by up at 12:21:05Z") == "Next try by up at 12:21:05"
    assert times.told("since 2026-13-40 12:00:00Z, 99:99Z") == "since 2026-13-40 12:00:00Z, 99:99Z"


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
async def test_a_year_that_a_zone_does_not_reach_stays_as_it_is(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address may hold one, and every page that names it would fail."""
    with monkeypatch.context() as there:
        there.setenv("TZ", zone)
        time.tzset()
        found = [Times(START, utc=False).told(f"to {year} 23:59:59Z@x") for year in ("0001-01-01", "9999-12-31")]
        found += [Times(START, utc=False).told("to 0001-01-01 00:00:00Z@x")]
    time.tzset()
    assert any("Z@x" in one for one in found)


async def test_what_is_cut_is_shown_by_one_link(running: Service, browser: Browser) -> None:
    """The codes before a stranger's words do not make a second, shorter "all" of what was cut."""
    await mail.put(running, "1K1EZZ0000009", "max@example.com", backend="b9", minutes=1)
    await mail.answer(running, "b9", replace(mail.FULL, detail="full " * 100))
    seen = await browser.get("/ui/messages/1K1EZZ0000009")
    life = seen.html.partition('class="life"')[2].partition("</ol>")[0]
    assert "Show all of it" in life
    assert "show all" not in life
