"""The pages about the whole: what is wrong and what to do, who may send, who was refused, how backends stand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.config import ConfigError
from gateway.doctor import Report
from gateway.doctor.finding import finding
from gateway.http.pages.charts import charts, nice
from gateway.http.pages.text import Times, short
from gateway.spool import CheckRow, Counts, Flow, Point
from tests.fakes import START
from tests.http.kit import Service
from tests.http.pages.house import Standing, house
from tests.http.pages.kit import Browser
from tests.spool_kit import statements

pytestmark = pytest.mark.asyncio(loop_scope="module")
HOUR = timedelta(hours=1)
PATHS = ("/ui/", "/ui/flow", "/ui/flow?days=7", "/ui/refused", "/ui/backends", "/ui/backends/office", "/ui/clients",
         "/ui/clients/printers", "/ui/clients?ended=1", "/ui/settings", "/ui/settings?all=1")  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(engine: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    async with house(tmp_path_factory.mktemp("house")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def browser(running: Service) -> Browser:
    return await Browser(running).sign_in()


@pytest.mark.parametrize("path", PATHS)
async def test_budget(browser: Browser, path: str) -> None:
    """At most 60 KB of HTML and, beside who asks, 20 statements a page: what waits or is kept costs no more."""
    await browser.get(path)
    with statements() as asked:
        seen = await browser.get(path)
    assert seen.status == 200
    assert len(seen.html.encode()) < 60_000
    assert len([one for one in asked if "signin" not in one and one not in ("BEGIN", "COMMIT")]) <= 20


@pytest.mark.parametrize(("count", "shown"), [(0, "0"), (9_000, "9,000"), (10_000, "10k"), (150_000, "150k"),
                                              (1_500_000, "1.5M"), (40_000_000, "40M")])  # fmt: skip
async def test_the_number_at_an_axis_has_room(count: int, shown: str) -> None:
    """It stands right of the bars, where six characters end in the next chart."""
    assert short(count) == shown


async def test_every_link_leads_somewhere(browser: Browser) -> None:
    """From each of these pages, with the filters that it gives along."""
    links = {link for path in PATHS for link in (await browser.get(path)).reader.links if link.startswith("/ui/")}
    lost = [link for link in sorted(links) if (await browser.get(link)).status != 200]
    assert lost == []
    assert "/ui/messages?state=waiting&backend=office" in links


async def test_what_is_wrong_comes_first(browser: Browser) -> None:
    """The verdict is the heading; each problem says since when, what it costs and what to do, and has one button."""
    seen = await browser.get("/ui/")
    assert seen.h1 == "1 thing needs you"
    assert "Mail is being accepted and nothing is lost. s2g is slowed down until 12:01" in seen.text
    assert "smart is paused by root until 12:54, the rest works." in seen.text
    main = seen.html.partition("<main")[2]
    problem = main.partition('class="problem bad"')[2].partition("</section>")[0]
    for words in (
        "office cannot send",
        "for 44 min",
        "14 messages wait",
        "To do:",
        "AADSTS7000222",
        "press the button",
    ):
        assert words in problem
    assert problem.count("<button") == 1
    assert "Check and resume office" in problem
    assert 'data-label="Sent this hour">9</td>' in main
    assert main.index("office cannot send") < main.index("Mail in the last 24 hours") < main.index("Queue by backend")


async def test_everything_is_all_right(tmp_path: Path) -> None:
    """Said in words, with what ends next; nothing needs a button."""
    async with house(tmp_path, well=True) as well:
        seen = await (await Browser(well).sign_in()).get("/ui/")
    assert seen.h1 == "Everything is all right"
    assert "All 4 backends work, the oldest waiting message is 0 seconds old, and" in seen.text
    assert seen.buttons == []
    assert 'class="badge"' not in seen.html


@pytest.mark.parametrize("part", ["lead", "now"])
async def test_parts_of_the_overview(browser: Browser, part: str) -> None:
    """The script gets that block and nothing else."""
    seen = await browser.get("/ui/", x_part=part)
    assert seen.status == 200
    assert "<main" not in seen.html
    assert ("office cannot send" in seen.text, "thing needs you" in seen.text) == (part == "now", part == "lead")


async def test_charts_are_read_out_and_are_a_table(browser: Browser) -> None:
    """A sentence for readers, and the same numbers by the hour; all colours and sizes by attributes or classes."""
    seen = await browser.get("/ui/")
    labels = [part.partition('"')[0] for part in seen.html.split('role="img" aria-label="')[1:]]
    assert labels[0].startswith("1,512 messages accepted in the last 24 hours, 260 of them now. Most, 260, in the hour")
    assert labels[2].startswith("37 times refused or failed in the last 24 hours, 5 of them now.")
    table = await browser.get("/ui/flow")
    assert table.h1 == "1,512 messages accepted in the last 24 hours"
    assert [row in table.text for row in ("By listener", "By client", "By backend")] == [True] * 3
    assert (await browser.get("/ui/flow?days=5")).status == 400


def flow(*values: int) -> Flow:
    points = tuple(Point(at=START + n * HOUR, accepted=value) for n, value in enumerate(values))
    return Flow(
        since=START, step="hour", points=points, total=Counts(), waiting={}, before=0, listeners={}, clients={},
        backends={}, running={},
    )  # fmt: skip


@pytest.mark.parametrize(("most", "top"), [(0, 5), (5, 5), (6, 6), (11, 15), (243, 250), (260, 300), (48_000, 50_000)])
async def test_scales_are_round(most: int, top: int) -> None:
    """The upper line is a number that people can read, and no bar is higher."""
    assert nice(most) == top
    made = charts(flow(0, most, 1), Times(START, utc=True))[0]
    assert made.top == top
    assert all(bar.y >= 0 and bar.height >= 1.5 and bar.y + bar.height <= 60.1 for bar in made.bars)
    assert [bar.running for bar in made.bars][-1:] == [True]


async def test_a_looping_client_is_one_line(browser: Browser) -> None:
    """With the times, the plain reason and the code; the newest is open."""
    seen = await browser.get("/ui/refused")
    assert "3 times since 11:51" in seen.text
    assert "6 lines, 24 refusals" in seen.text
    assert "203.0.113.9 not a client, login admin, port 587" in seen.text
    assert "535 5.7.8 auth_failed" in seen.text
    assert "192.0.2.17, port 25" in seen.text
    assert "tls_failed" in (await browser.get("/ui/refused?q=192.0.2.25")).text


@pytest.mark.parametrize(
    ("query", "words", "lines"),
    [
        ("q=192.0.2.0/24", "5 lines", 5),
        ("reason=auth_failed", "1 line, 6 refusals", 1),
        ("q=copier@dev.local", "1 line, 1 refusal", 1),
        ("q=nobody@example.org", "it never reached this machine: look at server name and port", 0),
        ("days=1&reason=made_up", "Nothing like this was refused in the last 24 hours", 0),
        ("before=nonsense", "not the address of a page", 0),
        ("days=x", "days is one of", 0),
    ],
)
async def test_refusals_are_searched(browser: Browser, query: str, words: str, lines: int) -> None:
    """And what is not found says where else to look, with a link that keeps what was asked for."""
    seen = await browser.get(f"/ui/refused?{query}")
    assert words in seen.text
    assert seen.html.partition("<tbody")[2].count("<tr") == lines
    if "nobody" in query:
        assert "/ui/messages?q=nobody%40example.org" in seen.reader.links


async def test_backends_worst_first(browser: Browser, running: Service) -> None:
    """State, cause, what to do, the steps of the last check, four figures, and the buttons in their place."""
    office = CheckRow(backend="office", at=START, who="anna", check=running.dispatcher.answer)  # type: ignore[union-attr]
    await running.spool.keep_check(office)
    seen = await browser.get("/ui/backends")
    assert seen.h1 == "1 of 4 backends is stopped"
    places = [seen.html.index(f'id="{name}"') for name in ("office", "s2g", "smart", "google")]
    assert places == sorted(places)
    for words in (
        "Microsoft 365 does not accept us since 11:16. 14 messages wait, the oldest for 0 seconds.",
        "by anna: 2 good, 1 wrong, 1 not tried",
        "Not tried: Whether it may send as noreply@example.com.",
        "SMTP2GO asked to wait until 12:01:00. Nothing to do.",
        "Paused by root at 11:54 until 12:54:00.",
        "200 of 6,000 units",
        "12 of 60 messages",
    ):
        assert words in seen.text
    alone = await browser.get("/ui/backends/office")
    assert alone.h1 == "office is stopped"
    assert (await browser.get("/ui/backends/none")).status == 404
    part = await browser.get("/ui/backends", x_part="state-smart")
    assert ("Paused by root" in part.text, "office" in part.text, "<main" in part.html) == (True, False, False)
    assert (await browser.get("/ui/backends", x_part="state-none")).status == 404


async def test_fix_says_how_it_went(browser: Browser, running: Service) -> None:
    """Never "resumed" before a check has passed; who checked is kept, with the steps."""
    standing = running.dispatcher
    assert isinstance(standing, Standing)
    seen = await browser.press("/ui/backends/office/fix")
    assert seen.status == 303
    after = await browser.get(seen.headers["location"])
    assert "office is still stopped: the client secret has expired." in after.text
    assert 'role="alert"' in after.html
    assert "#check-office" in after.reader.links
    assert (running.done[-1], standing.checked[-1]) == (("renew", "office"), "office")
    good = await browser.press("/ui/backends/google/check")
    assert "google passed the check: google is reached." in (await browser.get(good.headers["location"])).text
    acts = await running.spool.acts(limit=2)
    assert [(one.name, one.verb) for one in acts] == [("root", "check"), ("root", "fix")]


@pytest.mark.parametrize(
    ("lasts", "kept", "words"),
    [("1h", 3600.0, "google is paused for 1h."), ("", None, "google is paused until you resume it.")],
)
async def test_pause_and_resume(browser: Browser, running: Service, lasts: str, kept: float | None, words: str) -> None:
    """For how long is asked; its mail waits."""
    standing = running.dispatcher
    assert isinstance(standing, Standing)
    seen = await browser.press("/ui/backends/google/pause", {"for": lasts})
    assert words in (await browser.get(seen.headers["location"])).text
    assert standing.paused == {"google": kept}
    seen = await browser.press("/ui/backends/google/resume")
    assert "google is resumed" in (await browser.get(seen.headers["location"])).text
    assert standing.paused == {}
    assert (await browser.press("/ui/backends/google/pause", {"for": "soon"})).status == 400
    assert (await browser.press("/ui/backends/none/pause")).status == 404


async def test_clients_with_numbers_of_today(browser: Browser) -> None:
    """Known by, may send, rate, counts, last; who fell silent stands out; the file is the truth."""
    seen = await browser.get("/ui/clients")
    for words in ("changed in config.yaml", "192.0.2.0/27", "others become scanner@example.com", "58 of 60 / min",
                  "12 days ago", "never seen", "tried again", "also show ended ones (1)"):  # fmt: skip
        assert words in seen.text
    assert "0000aa90f3c8" not in seen.text
    assert "0000aa90f3c8" in (await browser.get("/ui/clients?ended=1")).text
    one = await browser.get("/ui/clients/printers")
    assert one.h1 == "printers has not sent for 12 days"
    assert "It used to send daily." in one.text
    refused = (await browser.get("/ui/clients/copier")).text
    assert "copier may not send as copier@dev.local 553 5.7.1 sender_denied" in refused
    assert "192.0.2.41" not in refused
    assert (await browser.get("/ui/clients/none")).status == 404


async def minted(browser: Browser, **fields: str) -> Any:
    page = await browser.get("/ui/clients")
    once = page.html.partition('name="once" value="')[2].partition('"')[0]
    return await browser.press("/ui/tokens", {"once": once, "subject": "plotter", "expires": "90d", **fields})


async def test_a_token_is_shown_once(browser: Browser, running: Service) -> None:
    """With its length and the warning about 128 characters; the same form sent again makes no other."""
    page = await browser.get("/ui/clients")
    once = page.html.partition('name="once" value="')[2].partition('"')[0]
    fields = {"once": once, "subject": "monitoring", "expires": "90d", "senders": "a@example.com", "note": "hall"}
    seen = await browser.press("/ui/tokens", fields)
    token = seen.html.partition("data-copy>")[2].partition("<")[0]
    assert (seen.status, seen.headers["cache-control"], token[:3]) == (200, "no-store", "eyJ")
    assert f"{len(token)} characters. Many panels take 128 or fewer" in seen.text
    client = await running.authenticator.login("jwt", token, "192.0.2.1")
    assert (client.login, client.senders[-1]) == ("monitoring", ("a@example.com",))
    again = await browser.press("/ui/tokens", fields)
    assert "was shown once already" in again.text
    assert token not in again.html + (await browser.get("/ui/clients")).html
    assert [row.subject for row in await running.spool.tokens()].count("monitoring") == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"subject": ""}, "the token needs a subject"),
        ({"expires": "soon"}, '"soon" is not a duration'),
        ({"senders": "nobody"}, "Nothing was made"),
        ({"subject": "x\u202ey"}, "Nothing was made"),
    ],
)
async def test_a_token_that_is_not_made(browser: Browser, running: Service, fields: dict[str, str], words: str) -> None:
    """Says why and keeps what was typed."""
    before = len(await running.spool.tokens())
    seen = await minted(browser, note="in the hall", **fields)
    assert words in seen.text
    assert 'value="in the hall"' in seen.html
    assert len(await running.spool.tokens()) == before


async def test_revoking_asks_first(browser: Browser, running: Service) -> None:
    """The page names the token; nothing is done without ``sure``; done twice it says so."""
    asked = await browser.press("/ui/tokens/9f03c1d47e22/revoke")
    assert (asked.status, asked.h1) == (200, "Revoke the token of billing?")
    assert asked.html.index("Keep it") < asked.html.index("Revoke the token</button>")
    states = {row.jti: row.revoked_at for row in await running.spool.tokens()}
    assert states["9f03c1d47e22"] is None
    done = await browser.press("/ui/tokens/9f03c1d47e22/revoke", {"sure": "1"})
    assert "Revoked: the token 9f03c1d47e22 of billing." in (await browser.get(done.headers["location"])).text
    again = await browser.press("/ui/tokens/9f03c1d47e22/revoke", {"sure": "1"})
    assert "was revoked already" in (await browser.get(again.headers["location"])).text
    assert (await browser.press("/ui/tokens/nope/revoke")).status == 404


async def test_settings_in_force(browser: Browser) -> None:
    """What differs, with its place; a secret by its file only; found by words."""
    seen = await browser.get("/ui/settings")
    for words in ("set, not shown graph.secret, from config.yaml:", "config.yaml:26, default", "also show the"):
        assert words in seen.text
    assert "The token of erp (ERP server, Anna) token:2b67bdf7127a 11 December 21 days" in seen.text
    found = await browser.get("/ui/settings?q=lifetime")
    assert "retry.lifetime" in found.text
    assert "hostname" not in found.html.partition("<tbody")[2]
    nothing = await browser.get("/ui/settings?q=%22%3E%3Cscript%3E")
    assert "No setting has" in nothing.text
    assert "<script>" not in nothing.html


async def test_reload_shows_what_changed_or_every_error(browser: Browser, running: Service) -> None:
    """The errors stay on the page with file and line until a reload succeeds."""
    seen = await browser.press("/ui/reload")
    assert "The settings were read again: limits.max_size." in (await browser.get(seen.headers["location"])).text
    errors = ["config.yaml:3:1: wrong", "config.yaml:7:2: <b>worse</b>"]
    running.reload_error = ConfigError(errors)
    running.in_force = running.in_force.after_failure(START, errors)
    seen = await browser.press("/ui/reload")
    after = await browser.get(seen.headers["location"])
    assert "Nothing was changed: the file is wrong" in after.text
    assert "was refused: 2 errors. The settings from before stay in force." in after.text
    assert all(line in after.text for line in errors)
    assert "<b>worse" not in after.html


async def test_the_doctor_looks(browser: Browser, running: Service) -> None:
    """Pressed, it runs beside; then its findings stand worst first with what to paste; what is good is one line."""
    assert (await browser.get("/ui/settings")).h1 == "The doctor has not looked yet"
    await running.doctor.run("root", ["settings", "spool"])
    seen = await browser.get("/ui/settings")
    assert seen.h1.startswith("Doctor: ")
    assert "Look again" in seen.text
    assert "all right" in seen.text
    report = running.doctor.last
    assert report is not None
    for one in report.findings:
        assert one.what.rstrip(".")[1:60] in seen.text


HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>\u202egnp.exe\x07{{ 7*7 }}"


@pytest.mark.parametrize("path", ["/ui/", "/ui/refused", "/ui/clients", "/ui/clients?ended=1", "/ui/backends"])
async def test_what_strangers_wrote_is_text(path: str, tmp_path: Path) -> None:
    """Markup stays text, bidi and control characters are shown, and what is too long is cut."""
    async with house(tmp_path) as bad:
        await hostile(bad)
        seen = await (await Browser(bad).sign_in()).get(path)
    main = seen.html.partition("<main")[2]
    assert "<script" not in main
    assert "<img" not in main
    assert "\u202e" not in main
    assert "\x07" not in main
    assert "49gnp" not in main
    assert "alert(1)" in main
    assert len(seen.html) < 60_000


async def test_what_a_check_heard_is_text(tmp_path: Path) -> None:
    """Also in the line that says how it went, which is never cut."""
    async with house(tmp_path) as bad:
        standing = bad.dispatcher
        assert isinstance(standing, Standing)
        standing.answer = replace(standing.answer, summary=HOSTILE)
        browser = await Browser(bad).sign_in()
        done = await browser.press("/ui/backends/office/fix")
        seen = await browser.get(done.headers["location"])
    main = seen.html.partition("<main")[2]
    assert not {"\u202e", "\x07"} & set(main)
    assert "office is still stopped: \"'><script>alert(1)</script>" in seen.text


async def hostile(running: Service) -> None:
    """Every field that a stranger fills, filled."""
    from gateway.spool import TokenRow
    from tests.spool_kit import peer

    await running.spool.add_token(TokenRow("bad0", "own", HOSTILE, HOSTILE, START, START + timedelta(days=2)))
    peer(
        running.settings.state_dir,
        "UPDATE refusal SET sender = ?, helo = ?, \"user\" = ?, recipients = ?, text = ?, peer = ?",
        *[HOSTILE + "x" * 5000] * 3, "[\"" + "y" * 5000 + "<script>\"]", HOSTILE, HOSTILE,
    )  # fmt: skip
    standing = running.dispatcher
    assert isinstance(standing, Standing)
    standing.reason = HOSTILE + "z" * 5000


@pytest.mark.parametrize(
    ("what", "about", "heading"),
    [
        ("cannot connect", "backends.office", "office: cannot connect"),
        ("office cannot connect", "backends.office", "office cannot connect"),
        ("the SPF record does not name it", "example.com", "example.com: the SPF record does not name it"),
        ("the clock is wrong", "", "The clock is wrong"),
        ("example.com: no SPF", "", "example.com: no SPF"),
    ],
)
async def test_a_finding_names_what_it_is_about(
    browser: Browser, running: Service, what: str, about: str, heading: str
) -> None:
    """Once; a sentence begins with a capital and a name as it is written."""
    found = finding("backend_fails", "bad", what, "do this", paste="this", about=about)
    running.doctor.last = Report(
        at=START, by="root", seconds=1.0, service=True, areas=("backends",), findings=(found,)
    )  # fmt: skip
    seen = await browser.get("/ui/settings")
    assert f"<h2>{heading}</h2>" in seen.html
    assert "Do this" in seen.text
