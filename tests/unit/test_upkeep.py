# SPDX-License-Identifier: Apache-2.0
"""What is set back, and what is left to whoever changed it."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pm.errors import PmError
from pm.upkeep import QUIET_S, Change, Restraint, Upkeep, Verdict

THINGS = ("a", "b", "c")
looks = st.lists(st.tuples(st.floats(0, QUIET_S * 1.5), st.sets(st.sampled_from(THINGS))), max_size=30)


@given(looks)
def test_nobody_is_fought(changes: list[tuple[float, set[str]]]) -> None:
    """Whatever is changed when: each change has a verdict, no thing is set back twice within ten minutes."""
    restraint, now = Restraint(), 0.0
    restored: dict[str, float] = {}
    for pause, changed in changes:
        now += pause
        verdicts = restraint.judge(changed, now)
        assert verdicts.keys() == changed
        for thing, verdict in verdicts.items():
            if verdict is Verdict.RESTORE:
                assert now - restored.get(thing, now - QUIET_S) >= QUIET_S
                restored[thing] = now
        assert restraint.left == {t for t, v in verdicts.items() if v is Verdict.LEAVE}


@given(looks)
def test_things_have_nothing_to_do_with_each_other(changes: list[tuple[float, set[str]]]) -> None:
    """The verdicts on one thing are the same whatever happens to others."""
    together, alone, now = Restraint(), Restraint(), 0.0
    for pause, changed in changes:
        now += pause
        verdicts = together.judge(changed, now)
        assert alone.judge(changed & {"a"}, now).get("a") == verdicts.get("a")


def test_left_until_it_is_as_wanted() -> None:
    """A second change is left for as long as it lasts, and counts like a first one for what follows."""
    restraint = Restraint()
    assert restraint.judge(["a"], 0) == {"a": Verdict.RESTORE}
    assert restraint.judge([], 3) == {}
    assert restraint.judge(["a"], 10) == {"a": Verdict.LEAVE}
    assert restraint.judge(["a"], 10 + 10 * QUIET_S) == {"a": Verdict.LEAVE}
    restraint.judge([], 10 + 11 * QUIET_S)
    assert restraint.judge(["a"], 10 + 12 * QUIET_S) == {"a": Verdict.RESTORE}


def test_after_ten_quiet_minutes_it_is_set_back_again() -> None:
    restraint = Restraint()
    restraint.judge(["a"], 0)
    restraint.judge([], 3)
    assert restraint.judge(["a"], QUIET_S - 1) == {"a": Verdict.LEAVE}
    restraint.judge([], QUIET_S)
    assert restraint.judge(["a"], 2 * QUIET_S) == {"a": Verdict.RESTORE}


class Things:
    """Things that a test changes; ``refusals`` cannot be set back."""

    def __init__(self) -> None:
        self.changed: set[str] = set()
        self.refusals: set[str] = set()

    async def look(self) -> dict[str, Change]:
        return {thing: Change("is wrong", lambda thing=thing: self.restore(thing)) for thing in self.changed}  # type: ignore[misc]

    async def restore(self, thing: str) -> None:
        if thing in self.refusals:
            raise PmError("refused")
        self.changed.discard(thing)


class Time:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


async def test_upkeep_of_things() -> None:
    """Set back once, then left with a reason; the reason goes with the change, or with a new start."""
    things, time, counters = Things(), Time(), Counter[str]()
    upkeep = Upkeep([things], counters=counters, monotonic=time.monotonic)
    things.changed.add("a")
    await upkeep.look()
    assert (things.changed, upkeep.reasons) == (set(), {})
    things.changed.add("a")
    for _ in range(3):
        await upkeep.look()
    assert things.changed == {"a"}
    assert upkeep.reasons["a"].startswith("a is wrong; it changed again")
    things.changed.clear()
    await upkeep.look()
    assert upkeep.reasons == {}
    things.changed.add("a")
    await upkeep.look()
    assert things.changed == {"a"}
    await upkeep.start_over()
    assert (things.changed, upkeep.reasons) == (set(), {})
    assert counters == {"changes_noticed": 3, "changes_set_back": 2}


async def test_what_cannot_be_set_back_is_tried_again() -> None:
    """Nobody changed it twice: it is set back as soon as that is possible, and once more is too often."""
    things, counters = Things(), Counter[str]()
    upkeep = Upkeep([things], counters=counters, monotonic=Time().monotonic)
    things.changed.add("a")
    things.refusals.add("a")
    for _ in range(3):
        await upkeep.look()
        assert upkeep.reasons == {"a": "a is wrong; refused"}
    things.refusals.clear()
    await upkeep.look()
    assert (things.changed, upkeep.reasons) == (set(), {})
    things.changed.add("a")
    await upkeep.look()
    assert things.changed == {"a"}
    assert counters == {"changes_noticed": 2, "changes_set_back": 1}


async def test_a_look_that_fails_ends_nothing() -> None:
    """No descriptor is left: the other things are looked at, and this one again next time."""
    failing, other = Things(), Things()
    looks: list[OSError | dict[str, Change]] = [OSError(24, "Too many open files"), {}]

    async def look() -> dict[str, Change]:
        found = looks.pop(0)
        if isinstance(found, OSError):
            raise found
        return found

    failing.look = look  # type: ignore[method-assign]
    other.changed = {"b"}
    upkeep = Upkeep([failing, other], counters=Counter(), monotonic=lambda: 0.0)
    await upkeep.look()
    assert other.changed == set()
    await upkeep.look()
    assert looks == []
