# SPDX-License-Identifier: Apache-2.0
"""The last figures of subflows, whichever of report, event and socket comes first; the end of sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from pm.errors import KernelRefused
from pm.kernel import FinalFigures, SessionInfo, SubflowRecord
from pm.model import Figures, Subflow, SubflowState
from pm.sessions import endings as endings_module
from pm.sessions.endings import Ended, Endings
from pm.sessions.ledger import Ledger
from pm.sessions.session import Session
from tests.unit.builders import at, record, session
from tests.unit.sessions.world import Clock, Loop

SAMPLE, FINAL = Figures(100, 10, 1, 500), Figures(150, 20, 2, 600)


class Kernel:
    """Sockets that sock_diag shows, and reports that wait in the ring buffer."""

    def __init__(self) -> None:
        self.there: dict[str, SubflowRecord] = {}
        self.reports: list[FinalFigures] = []
        self.refuses = False
        self.questions: list[Sequence[Any]] = []

    def show(self, of: Session, subflow: Subflow, figures: Figures) -> None:
        found = record(
            token=of.token,
            local=subflow.local,
            local_port=subflow.local_port,
            remote=subflow.remote,
            remote_port=subflow.remote_port,
        )
        acked, received, retransmits, rtt_us = figures
        self.there[subflow.id] = found._replace(
            bytes_acked=acked, bytes_received=received, all_retransmits=retransmits, rtt_us=rtt_us
        )

    def report(self, subflow: Subflow, figures: Figures) -> None:
        """The socket is closed."""
        self.there.pop(subflow.id, None)
        ends = subflow.local, subflow.local_port, subflow.remote, subflow.remote_port
        self.reports.append(FinalFigures(*ends, figures))

    def find_subflows(self, subflows: Sequence[Any]) -> list[SubflowRecord | None]:
        self.questions.append(subflows)
        if self.refuses:
            raise KernelRefused("looking up sockets", 12)
        return [self.there.get(subflow.id) for subflow in subflows]

    def session_infos(self, tokens: Sequence[int]) -> list[SessionInfo | None]:
        self.questions.append(tokens)
        return [None for _ in tokens]

    def fileno(self) -> int:
        return 0

    def read_finals(self, limit: int) -> list[FinalFigures]:
        found, self.reports = self.reports[:limit], self.reports[limit:]
        return found


class Scene:
    """A session that the table does not have any more, or whose subflow it does not."""

    def __init__(self) -> None:
        self.kernel, self.clock, self.ledger = Kernel(), Clock(), Ledger()
        self.loop = Loop(self.clock)
        self.endings = Endings(
            ledger=self.ledger,
            diagnosis=self.kernel,  # type: ignore[arg-type]  # the two questions that it asks
            finals=self.kernel,
            cgroup_path=lambda cgroup_id: f"/cgroup-{cgroup_id}",
            clock=self.clock,
            scheduler=self.loop,
        )
        self.ended: list[Ended] = []
        self.endings.on_ended = self.ended.append
        self.session = session(cgroup_id=7)
        (self.subflow,) = self.session.subflows

    def close(self) -> None:
        self.endings.subflow_closed(self.session, self.subflow, "by hand", at(self.clock.now))
        self.wait(0)

    def end(self) -> None:
        self.endings.session_ended(self.session, "closed", at(self.clock.now))
        self.wait(0)

    def wait(self, seconds: float) -> None:
        self.loop.run_until(self.clock.now + seconds)

    @property
    def source(self) -> str:
        assert self.session.closed
        (closed,) = self.session.closed
        return closed.source.value


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_report_that_comes_before_the_event(scene: Scene) -> None:
    """The socket is closed, then the event is read: nothing has to be asked."""
    scene.kernel.report(scene.subflow, FINAL)
    scene.kernel.refuses = True
    scene.close()
    assert (scene.subflow.figures, scene.source) == (FINAL, "kernel")


def test_a_report_that_comes_after_the_event(scene: Scene) -> None:
    """The socket is still there when the event is read; its sample is used until the report comes."""
    scene.kernel.show(scene.session, scene.subflow, SAMPLE)
    scene.close()
    assert (scene.subflow.figures, scene.source) == (SAMPLE, "last_sample")
    scene.wait(100)
    scene.kernel.report(scene.subflow, FINAL)
    scene.wait(100)
    assert (scene.subflow.figures, scene.source) == (FINAL, "kernel")
    assert scene.session.carried.bytes_acked == FINAL.bytes_acked


def test_without_a_report_the_last_sample_counts(scene: Scene) -> None:
    """The socket is asked until it is gone; it may have carried more meanwhile."""
    scene.kernel.show(scene.session, scene.subflow, SAMPLE)
    scene.end()
    scene.kernel.show(scene.session, scene.subflow, FINAL)
    scene.wait(0.3)
    assert scene.ended == []
    scene.kernel.there.clear()
    scene.wait(1)
    assert (scene.subflow.figures, scene.source) == (FINAL, "last_sample")
    assert [e.cgroup for e in scene.ended] == ["/cgroup-7"]


def test_what_ends_in_one_turn_is_asked_for_at_once(scene: Scene) -> None:
    """One question for all the sessions, and one for all their sockets."""
    sessions = [session(token=n, number=n, local=f"10.1.0.{n}") for n in range(1, 31)]
    for one in sessions:
        scene.endings.session_ended(one, "closed", at(scene.clock.now))
    scene.wait(0)
    assert [len(asked) for asked in scene.kernel.questions] == [30, 30]


async def test_what_has_just_ended_is_told_at_the_end_of_the_service(scene: Scene) -> None:
    """The turn in which it ended, and the reports that wait, are finished first."""
    sessions = [session(token=n, number=n, local=f"10.{n >> 8}.1.{n & 255}") for n in range(2, 602)]
    running = asyncio.create_task(scene.endings.run())
    await asyncio.sleep(0)
    for one in sessions:
        scene.kernel.show(one, one.subflows[0], SAMPLE)
    for one in sessions:
        scene.endings.session_ended(one, "closed", at(scene.clock.now))
    scene.wait(0)
    for one in sessions[1:]:
        scene.kernel.report(one.subflows[0], FINAL)
    scene.endings.session_ended(scene.session, "closed", at(scene.clock.now))
    running.cancel()
    await asyncio.wait([running])
    assert len(scene.ended) == 601
    assert [one.subflows[0].figures for one in sessions] == [SAMPLE] + [FINAL] * 599


def test_a_socket_that_never_goes(scene: Scene) -> None:
    """A dead path holds up a record for some minutes and no longer."""
    scene.kernel.show(scene.session, scene.subflow, SAMPLE)
    scene.end()
    scene.wait(60)
    assert scene.ended == []
    scene.wait(120)
    assert len(scene.ended) == 1


def test_a_kernel_that_does_not_answer(scene: Scene) -> None:
    """Short of memory: it is asked again."""
    scene.kernel.refuses = True
    scene.end()
    scene.wait(1)
    assert scene.ended == []
    scene.kernel.refuses = False
    scene.wait(5)
    assert len(scene.ended) == 1


def test_another_socket_with_the_same_ports(scene: Scene) -> None:
    """What has carried less than before is another one: it changes nothing."""
    scene.ledger.note(scene.session, scene.subflow, FINAL)
    scene.kernel.show(scene.session, scene.subflow, SAMPLE)
    scene.close()
    assert scene.subflow.figures == FINAL
    scene.kernel.there[scene.subflow.id] = scene.kernel.there[scene.subflow.id]._replace(
        token=0x9999, bytes_acked=1_000_000, bytes_received=1_000_000
    )
    scene.wait(10)
    assert scene.subflow.figures == FINAL


def test_a_subflow_that_was_never_established(scene: Scene) -> None:
    """It has carried nothing, and is in no list."""
    scene.subflow.state = SubflowState.OPENING
    scene.close()
    scene.end()
    assert scene.session.closed is None
    assert len(scene.ended) == 1


def test_a_session_without_subflows_is_over_at_once(scene: Scene) -> None:
    """All of them have ended before; one is awaited still."""
    scene.kernel.show(scene.session, scene.subflow, SAMPLE)
    scene.session.subflows.remove(scene.subflow)
    scene.close()
    scene.end()
    assert scene.ended == []
    scene.kernel.report(scene.subflow, FINAL)
    scene.wait(1)
    assert len(scene.ended) == 1


def test_what_is_kept_is_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports that nobody asks for, and subflows that nobody reports: the oldest go."""
    monkeypatch.setattr(endings_module, "KEPT_MAX", 10)
    sessions = [session(token=n, number=n, local=f"10.1.0.{n}") for n in range(1, 31)]
    for one in sessions:
        (subflow,) = one.subflows
        scene.kernel.show(one, subflow, SAMPLE)
        scene.endings.session_ended(one, "closed", at(scene.clock.now))
    scene.wait(0)
    assert [e.session.number for e in scene.ended] == list(range(1, 21))
    strangers = [session(token=n, number=n, local=f"10.2.0.{n}") for n in range(1, 31)]
    for one in strangers:
        scene.kernel.report(one.subflows[0], FINAL)
    scene.wait(200)
    for one in strangers:
        scene.endings.session_ended(one, "closed", at(scene.clock.now))
    scene.wait(0)
    reported = [one.number for one in strangers if one.closed and one.closed[0].source == "kernel"]
    assert reported == list(range(21, 31))


def test_turning_records_off_forgets_nobody(scene: Scene) -> None:
    """A reload may come while a session is awaited."""
    scene.kernel.show(scene.session, scene.subflow, SAMPLE)
    scene.end()
    scene.endings.on_ended = None
    scene.kernel.report(scene.subflow, FINAL)
    scene.wait(1)
    assert (scene.ended, scene.source) == ([], "kernel")
