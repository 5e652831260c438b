"""What several backends keep and ask in the same way: a bounded memory, and one question for all who want to know."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from gateway.backends.shared.base import NoAnswer
from gateway.backends.shared.flight import SingleFlight
from gateway.backends.shared.recent import Recent

# -- Recent ----------------------------------------------------------------------------------------------------------


def test_what_was_not_used_for_longest_is_forgotten_first() -> None:
    """Reading counts as use, and so does writing again."""
    kept: Recent[str, int] = Recent(3)
    for number, key in enumerate("abc"):
        assert kept.put(key, number) == number
    assert kept.get("a") == 0
    kept.put("b", 9)
    kept.put("d", 3)
    assert [kept.get(key) for key in "abcd"] == [0, 9, None, 3]
    assert sorted(kept.values()) == [0, 3, 9]


def test_what_is_in_use_is_never_forgotten() -> None:
    """There are more than the limit while so many are busy; nothing that is free is kept beside them."""
    busy = {1, 2, 3}
    kept: Recent[int, int] = Recent(2, lambda value: value in busy)
    for number in range(1, 6):
        kept.put(number, number)
    assert sorted(kept.values()) == [1, 2, 3, 5]
    busy.clear()
    kept.put(6, 6)
    assert sorted(kept.values()) == [5, 6]


# -- SingleFlight ----------------------------------------------------------------------------------------------------


class Question:
    """Counts how often it is asked; answered when the gate opens."""

    def __init__(self, answer: str | Exception = "yes") -> None:
        self.asked = 0
        self.gate = asyncio.Event()
        self._answer = answer

    async def __call__(self) -> str:
        self.asked += 1
        await self.gate.wait()
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


async def test_many_ask_and_one_question_goes_out() -> None:
    """Another key is another question; after the answer the next who asks asks anew."""
    flight: SingleFlight[str, str] = SingleFlight()
    question, other = Question(), Question("no")
    asked = [asyncio.create_task(flight.get("a", question)) for _ in range(50)]
    asked.append(asyncio.create_task(flight.get("b", other)))
    await asyncio.sleep(0)
    assert ("a" in flight, "c" in flight, len(flight)) == (True, False, 2)
    question.gate.set()
    other.gate.set()
    assert await asyncio.gather(*asked) == ["yes"] * 50 + ["no"]
    assert (question.asked, other.asked, len(flight)) == (1, 1, 0)
    assert (await flight.get("a", question), question.asked) == ("yes", 2)


async def test_a_failure_is_told_to_all_and_does_not_grow() -> None:
    """It is one exception: with each raise of it there would be more frames, which keep whole messages."""
    flight: SingleFlight[str, str] = SingleFlight()
    question = Question(ValueError("no"))
    question.gate.set()
    failed = await asyncio.gather(*(flight.get("a", question) for _ in range(20)), return_exceptions=True)
    assert (len(set(map(id, failed))), question.asked) == (1, 1)
    depth, trace = 0, failed[0].__traceback__ if isinstance(failed[0], ValueError) else None
    while trace:
        depth, trace = depth + 1, trace.tb_next
    assert 0 < depth < 5


async def test_who_stops_waiting_takes_the_answer_from_nobody() -> None:
    flight: SingleFlight[str, str] = SingleFlight()
    question = Question()
    first, second = (asyncio.create_task(flight.get("a", question)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    question.gate.set()
    assert (await second, question.asked) == ("yes", 1)


async def test_closing_tells_those_who_wait_and_is_no_cancellation_to_them() -> None:
    flight: SingleFlight[str, str] = SingleFlight()
    waiting = asyncio.create_task(flight.get("a", Question()))
    await asyncio.sleep(0)
    await flight.aclose()
    with pytest.raises(NoAnswer, match="being closed"):
        await waiting
    await flight.aclose()


async def test_a_failure_that_nobody_waited_for_is_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    """asyncio would complain of an exception that was never retrieved."""
    flight: SingleFlight[str, str] = SingleFlight()
    question = Question(ValueError("no"))
    question.gate.set()
    task = flight.begin("a", question)
    assert flight.begin("a", question) is task
    await asyncio.wait((task,))
    del task
    await asyncio.sleep(0)
    assert (len(flight), caplog.records) == (0, [])
