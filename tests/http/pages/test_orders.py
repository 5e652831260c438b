"""Acting on messages: what asks first, what is done once, and that nothing acts on what nobody has seen."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from gateway.model import SpoolUnavailable
from tests.builders import new_message
from tests.fakes import until
from tests.http.kit import Service
from tests.http.pages import mail
from tests.http.pages.kit import Browser, Seen

pytestmark = pytest.mark.asyncio(loop_scope="module")
_numbers: Iterator[int] = iter(range(1, 10**6))


async def some(running: Service, count: int, sender: str = "scanner@example.com", backend: str = "box") -> list[str]:
    """New mail that waits."""
    ids = [f"1K2{next(_numbers):010}" for _ in range(count)]
    await running.spool.put(*(
        new_message(f"r{n}@example.com", ident=ident, sender=sender, backend=backend) for n, ident in enumerate(ids)
    ))  # fmt: skip
    return ids


def number_of(page: Seen) -> str:
    found = re.search(r'name="number" value="(\w+)"', page.html)
    return found[1] if found else ""


async def states(running: Service, ids: list[str]) -> set[str]:
    return set((await running.spool.states(ids)).values())


async def ask(browser: Browser, verb: str, **fields: object) -> Seen:
    return await browser.press("/ui/messages/ask", {"verb": verb, **fields}, on="/ui/messages")


async def all_of(browser: Browser, verb: str, sender: str, upto: str) -> Seen:
    return await ask(browser, verb, all="1", upto=upto, f_q=sender, f_by="address")


async def shown(browser: Browser, seen: Seen) -> str:
    """The page that an answer leads to."""
    assert seen.status == 303, seen.text
    return (await browser.get(seen.headers["location"])).text


@pytest.mark.parametrize(("verb", "state"), [("hold", "held"), ("retry", "queued")])
async def test_a_few_are_acted_on_at_once(running: Service, browser: Browser, verb: str, state: str) -> None:
    """Up to 50 that were ticked; the same list comes back with one line on top, and says who did it."""
    ids = await some(running, 3)
    text = await shown(browser, await ask(browser, verb, id=ids))
    assert "3 messages are" in text
    assert await states(running, ids) == {state}
    (act,) = await running.spool.acts(message=ids[0])
    assert (act.name, act.way, act.verb, act.count) == ("root", "page", verb, 3)


async def test_a_press_counts_once_and_the_next_page_counts_anew(running: Service, browser: Browser) -> None:
    """A double press shows what the first did. Who presses the same button later, on the page that came, means it."""
    ids = await some(running, 1)

    async def press(form: str) -> str:
        return await shown(browser, await ask(browser, "hold", id=ids, one="1", form=form))

    pages = [(await browser.get(f"/ui/messages/{ids[0]}")).html for _ in range(2)]
    first, later = (re.findall(r'name="form" value="(\w+)"', page) for page in pages)
    assert len({*first, *later}) == 2  # one for each page
    assert "1 message is held." in await press(first[0])
    assert "1 message is held." in await press(first[0])
    assert "Nothing was done. 1 was left alone: it is held." in await press(later[0])


async def test_what_broke_off_may_be_pressed_again(
    running: Service, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spool that could not be written for a moment keeps nobody from pressing the same button again."""
    ids = await some(running, 1)

    async def broken(*_: object) -> int:
        raise SpoolUnavailable("the disk does not answer")

    with monkeypatch.context() as now:
        now.setattr(running.spool, "hold", broken)
        assert (await ask(browser, "hold", id=ids)).status == 503
    assert "1 message is held." in await shown(browser, await ask(browser, "hold", id=ids))


@pytest.mark.parametrize("verb", ["again", "reroute", "bounce", "delete"])
async def test_what_cannot_be_undone_asks_first(running: Service, browser: Browser, verb: str) -> None:
    """Also for one message. The question names the act and the number, and offers the way back first."""
    ids = await some(running, 1)
    page = await ask(browser, verb, id=ids)
    assert page.status == 200
    assert await states(running, ids) == {"queued"}
    assert "1 message" in page.h1
    assert page.html.index('class="button" href') < page.html.index('<button class="main')


async def test_deleting(running: Service, browser: Browser) -> None:
    """Pressed twice it shows what the first did; the number works for nobody else, and for nothing else."""
    ids = await some(running, 2)
    number = number_of(await ask(browser, "delete", id=ids))
    other = await Browser(running, app=browser.app).sign_in()
    assert (await other.press("/ui/messages/do", {"number": number}, on="/ui/messages")).status == 409
    assert await states(running, ids) == {"queued"}
    first = await browser.press("/ui/messages/do", {"number": number}, on="/ui/messages")
    again = await browser.press("/ui/messages/do", {"number": number}, on="/ui/messages")
    assert "2 messages are deleted." in await shown(browser, first)
    assert "2 messages are deleted." in await shown(browser, again)
    assert await states(running, ids) == set()
    assert len(await running.spool.acts(message=ids[0])) == 1


@pytest.mark.parametrize("number", ["", "0" * 32, "é"])
async def test_a_number_that_nobody_made(running: Service, browser: Browser, number: str) -> None:
    """Forged, or of before a restart: nothing is done, and it says so."""
    seen = await browser.press("/ui/messages/do", {"number": number}, on="/ui/messages")
    assert (seen.status, "Nothing was done" in seen.text) == (409, True)


async def test_nothing_acts_on_what_came_later(running: Service, browser: Browser) -> None:
    """All that were found stops at the newest that the page knew, between list and question, and question and deed."""
    ids = await some(running, 3, sender="later@example.com")
    between = await some(running, 1, sender="later@example.com")
    page = await all_of(browser, "delete", "later@example.com", ids[-1])
    assert page.h1 == "Delete 3 messages?"
    after = await some(running, 1, sender="later@example.com")
    done = await browser.press("/ui/messages/do", {"number": number_of(page)}, on="/ui/messages")
    assert "3 messages are deleted." in await shown(browser, done)
    assert await states(running, [*between, *after]) == {"queued"}
    assert await states(running, ids) == set()


async def test_a_hundred_are_deleted_by_typing_their_number(running: Service, browser: Browser) -> None:
    """Anything else typed does nothing, and the question stays."""
    ids = await some(running, 101, sender="many@example.com")
    page = await all_of(browser, "delete", "many@example.com", ids[-1])
    assert "Type 101 to go on" in page.text
    for typed in ("", "100", "yes"):
        seen = await browser.press("/ui/messages/do", {"number": number_of(page), "typed": typed}, on="/ui/messages")
        assert (seen.status, "Nothing was done" in seen.text) == (422, True)
    assert len(await running.spool.states(ids)) == 101
    done = await browser.press("/ui/messages/do", {"number": number_of(page), "typed": "101"}, on="/ui/messages")
    assert "101 messages are deleted." in await shown(browser, done)


async def test_nothing_chosen(browser: Browser) -> None:
    """A button without a tick acts on nothing, least of all on everything."""
    for fields in ({}, {"all": "1"}, {"upto": "~"}):
        seen = await ask(browser, "delete", **fields)
        assert (seen.status, seen.h1) == (400, "Nothing chosen")


@pytest.mark.parametrize("verb", ["", "drop", "DELETE"])
async def test_an_act_that_does_not_exist(running: Service, browser: Browser, verb: str) -> None:
    ids = await some(running, 1)
    assert (await ask(browser, verb, id=ids)).status == 400


async def test_what_was_left_alone_is_said(running: Service, browser: Browser) -> None:
    """With the reason: nothing to do, and no such message, are different answers."""
    ids = await some(running, 1)
    text = await shown(browser, await ask(browser, "release", id=[*ids, "1K2NOSUCHMAIL"]))
    for words in ("Nothing was done.", "1 was left alone: it waits.", "1 was left alone: no such message."):
        assert words in text


async def test_failed_mail_goes_again(running: Service, browser: Browser) -> None:
    """The same message by its own id, and its page is what comes next."""
    (ident,) = await some(running, 1, backend="own")
    await mail.answer(running, "own", mail.MAY_NOT)
    assert await states(running, [ident]) == {"failed"}
    page = await ask(browser, "again", id=[ident], one="1")
    done = await browser.press("/ui/messages/do", {"number": number_of(page)}, on="/ui/messages")
    assert done.headers["location"].startswith(f"/ui/messages/{ident}?done=")
    assert "1 message goes out again." in await shown(browser, done)
    assert await states(running, [ident]) == {"queued"}


async def test_long_work_runs_by_itself_and_can_be_stopped(running: Service, browser: Browser) -> None:
    """More than 1,000: the page of the work says how far it is; what was done holds."""
    ids = await some(running, 1001, sender="flood@example.com")
    page = await all_of(browser, "hold", "flood@example.com", ids[-1])
    assert page.h1 in ("Hold 1,001 messages?", "Hold more than 1,000 messages?")  # counted in bounded time
    done = await browser.press("/ui/messages/do", {"number": number_of(page)}, on="/ui/messages")
    where = done.headers["location"]
    assert where.startswith("/ui/work/")
    work = running.works.get(int(where.rpartition("/")[2]))
    assert work is not None
    again = await browser.press("/ui/messages/do", {"number": number_of(page)}, on="/ui/messages")
    assert again.headers["location"] == where
    await browser.press(f"{where}/stop", on="/ui/messages")
    await until(lambda: work.ended_at is not None)
    seen = await browser.get(where)
    assert seen.h1 in ("Stopped", "Done")
    assert f"Hold: {work.changed:,} of" in seen.text
    assert len([one for one in (await running.spool.states(ids)).values() if one == "held"]) == work.changed
    part = await browser.get(where, x_part="progress")
    assert "data-reload" in part.html
    assert (await browser.get("/ui/work/999")).status == 404


async def test_who_only_looks_cannot_even_ask(running: Service) -> None:
    looking = await Browser(running).sign_in("read")
    ids = await some(running, 1)
    for path, fields in (("ask", {"verb": "delete", "id": ids}), ("do", {"number": "0" * 32})):
        assert (await looking.press(f"/ui/messages/{path}", fields)).status == 403
    assert (await looking.get("/ui/messages/all?upto=~")).status == 403
    assert "Try now" not in (await looking.get("/ui/messages")).html
