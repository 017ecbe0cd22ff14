# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from pm.log_budget import LINES_MAX, WINDOW_S, LimitedLogger


class Recorder:
    """A logger that keeps its lines: (level, event, data)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, **data: self.lines.append((level, event, data))


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.written = Recorder()
        self.log = LimitedLogger(self.written, lambda: self.now)


@pytest.fixture
def world() -> World:
    return World()


def test_one_line_per_subject_and_a_summary_of_the_rest(world: World) -> None:
    """The summary counts what was left out, with the data of the last occurrence."""
    for n in range(1000):
        world.log.info("refused", about=1, token="0x1", error=n)
    assert world.written.lines == [("info", "refused", {"token": "0x1", "error": 0})]
    world.now += WINDOW_S
    world.log.write_summaries()
    assert world.written.lines[1:] == [
        ("info", "refused", {"token": "0x1", "error": 999, "repeated": 999, "period_s": 60})
    ]


def test_what_happens_once_has_no_summary(world: World) -> None:
    world.log.warning("refused", about=1)
    world.now += WINDOW_S
    world.log.write_summaries()
    assert len(world.written.lines) == 1


@pytest.mark.parametrize("minutes", [1, 10])
def test_many_subjects_write_no_more_lines(world: World, minutes: int) -> None:
    """However many subjects there are: 200 each second write a bounded number of lines, and none is lost."""
    occurrences = minutes * 60 * 200
    for n in range(occurrences):
        world.now += 1 / 200
        world.log.info("refused", about=n)
    world.log.write_summaries(ending=True)
    assert len(world.written.lines) <= (minutes + 1) * (LINES_MAX + 1)
    written = sum("others" not in data for _, _, data in world.written.lines)
    assert written + sum(data.get("others", 0) for _, _, data in world.written.lines) == occurrences


def test_events_have_budgets_of_their_own(world: World) -> None:
    for n in range(100):
        world.log.info("refused", about=n)
    world.log.warning("lost", about=1)
    assert world.written.lines[-1] == ("warning", "lost", {})


def test_next_minute_begins_with_a_line(world: World) -> None:
    """And the summary of the minute before comes first, whoever is the cause."""
    for _ in range(2):
        world.log.exception("failed", about="plug-in")
    world.now += WINDOW_S
    world.log.exception("failed", about="plug-in")
    assert world.written.lines == [
        ("exception", "failed", {}),
        ("error", "failed", {"repeated": 1, "period_s": 60}),
        ("exception", "failed", {}),
    ]
