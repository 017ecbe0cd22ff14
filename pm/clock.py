# SPDX-License-Identifier: Apache-2.0
"""Time as an argument: what the parts need of the clocks and of the event loop's timers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol


class Moment(NamedTuple):
    """One moment on both clocks, in seconds: ``time`` is shown, waiting is measured by ``monotonic``."""

    time: float
    monotonic: float


class Clock(Protocol):
    """Both clocks, in seconds; the module ``time`` is one."""

    def time(self) -> float:
        """Since the epoch: what people read. It can step."""

    def monotonic(self) -> float:
        """From an arbitrary start, never backwards: what waiting is measured with."""


def moment(clock: Clock) -> Moment:
    return Moment(clock.time(), clock.monotonic())


class Timer(Protocol):
    def cancel(self) -> None: ...


class Scheduler(Protocol):
    """What runs later in the event loop's thread; an asyncio event loop is one."""

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> Timer: ...

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: object) -> Timer:
        """After ``delay`` seconds."""

    def call_at(self, when: float, callback: Callable[..., object], *arguments: object) -> Timer:
        """At ``when`` on the monotonic clock."""


class EventLoop(Scheduler, Protocol):
    """A scheduler that also watches descriptors."""

    def add_reader(self, fd: int, callback: Callable[..., object], *arguments: object) -> object:
        """Call back whenever ``fd`` is readable."""

    def remove_reader(self, fd: int) -> object: ...
