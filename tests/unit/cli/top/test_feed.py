# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import select
import threading
from collections.abc import Callable, Iterator

import pytest

from pm.cli.client import Client, Target
from pm.cli.top.feed import Feed
from pm.errors import PmError
from tests.lab.waiting import wait_for


def feed(fetch: Callable[[str], str], interval_s: float = 0.0) -> Feed[str, str]:
    return Feed(Client(Target("/nonexistent")), fetch, "a", "first", interval_s)


def wait_news(of: Feed[str, str]) -> str:
    assert select.select([of], [], [], 10)[0]
    return of.latest()


def test_answers_come_by_themselves_and_for_new_questions_at_once() -> None:
    asked: list[str] = []

    def fetch(request: str) -> str:
        asked.append(request)
        return f"to {request}"

    with feed(fetch, 60.0) as made:
        assert made.latest() == "first"
        made.ask("a")
        made.ask("b")
        assert wait_news(made) == "to b"
        assert asked == ["b"]
        made.ask("c")
        assert wait_news(made) == "to c"
    with feed(lambda request: "again") as made:
        assert [wait_news(made) for _ in range(3)] == ["again"] * 3


def test_an_error_leaves_the_last_answer() -> None:
    """It is told until there is another answer."""
    answers: Iterator[PmError | str] = iter([PmError("it is gone", "start it"), "back"])
    go = threading.Semaphore(0)

    def fetch(request: str) -> str:
        go.acquire()
        answer = next(answers)
        if isinstance(answer, PmError):
            raise answer
        return answer

    with feed(fetch) as made:
        go.release()
        assert wait_news(made) == "first"
        assert made.error == "it is gone: start it"
        go.release()
        assert wait_news(made) == "back"
        assert made.error == ""


def test_silence_is_told() -> None:
    """When an answer is later than it should be."""
    go = threading.Event()
    with feed(lambda request: str(go.wait(10)), 0.01) as made:
        wait_for(lambda: made.silent_s, "that it is silent")
        go.set()
        assert wait_news(made) == "True"


def test_what_nobody_expected_is_raised_where_it_can_end_the_command() -> None:
    with feed(lambda request: [""][1]) as made, pytest.raises(IndexError):
        wait_news(made)
