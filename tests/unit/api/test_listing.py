# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from pm.api import listing
from pm.api.input_shapes import Order, SessionQuery, SessionSort
from pm.api.listing import Listing
from pm.api.problems import BadRequest, Expired
from pm.interfaces import UNKNOWN
from pm.model import Origin, Subflow, SubflowState
from pm.sampling.sampler import Sampler
from pm.sessions.session import SessionState
from pm.sessions.traffic import Traffic
from tests.unit.api.plane import CGROUP, REST, SYNC, Plane


async def page(listing: Listing, **query: Any) -> tuple[list[int], str | None]:
    """Numbers of the sessions on a page, and the cursor of the next."""
    document = json.loads(await listing.page(SessionQuery(**query)))
    return [int(s["token"], 16) & 0xFFFFFF for s in document["sessions"]], document["next"]


@pytest.fixture
def plane() -> Plane:
    plane = Plane()
    for number in range(1, 11):
        plane.add(number, SYNC if number % 2 else REST)
    return plane


async def test_pages_follow_each_other(plane: Plane) -> None:
    """Every session is on exactly one page, oldest first, and the last page has no next."""
    view = Listing(plane)
    first, cursor = await page(view, limit=4)
    second, cursor = await page(view, limit=4, cursor=cursor)
    third, last = await page(view, limit=4, cursor=cursor)
    assert (first, second, third, last) == ([1, 2, 3, 4], [5, 6, 7, 8], [9, 10], None)


async def test_sessions_that_come_and_go_hide_no_others(plane: Plane) -> None:
    """The cursor holds even where its own session, and others before it, have closed meanwhile."""
    view = Listing(plane)
    _, cursor = await page(view, limit=4)
    for number in (1, 4, 5):
        del plane.table[0xA0000000 + number]
    plane.add(11)
    assert await page(view, limit=20, cursor=cursor) == ([6, 7, 8, 9, 10, 11], None)


async def test_full_last_page_has_no_next(plane: Plane) -> None:
    """A page that holds exactly the rest is the last."""
    assert (await page(Listing(plane), limit=10))[1] is None


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ({"sort": SessionSort.AGE, "limit": 3}, [1, 2, 3]),
        ({"sort": SessionSort.AGE, "limit": 3, "order": Order.ASCENDING}, [10, 9, 8]),
        ({"sort": SessionSort.BYTES, "limit": 3}, [7, 3, 1]),
        ({"sort": SessionSort.BYTES, "limit": 3, "policy": "rest"}, [2, 4, 6]),
        ({"sort": SessionSort.SUBFLOWS, "limit": 2}, [4, 1]),
        (
            {"sort": SessionSort.SUBFLOWS, "limit": 20, "order": Order.ASCENDING},
            [1, 2, 3, 5, 6, 7, 8, 9, 10, 4],
        ),
    ],
)
async def test_orders(
    plane: Plane, query: dict[str, Any], numbers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The greatest first, and of equals the oldest, however many sessions are looked at at once; no next."""
    monkeypatch.setattr(listing, "LOOKED_AT_AT_ONCE", 3)
    plane.table[0xA0000007].carried = Traffic(bytes_acked=500, bytes_received=500)
    plane.table[0xA0000003].carried = Traffic(bytes_acked=999)
    plane.table[0xA0000004].subflows.append(plane.table[0xA0000001].subflows[0])
    assert await page(Listing(plane), **query) == (numbers, None)


async def test_the_order_by_rate_is_that_of_the_last_sample(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions that were not sampled come last, and asking keeps the samples coming."""
    looks: list[object] = []
    rates = {plane.table[0xA0000005]: 10.0, plane.table[0xA0000009]: 20.0}
    monkeypatch.setattr(Sampler, "rates", lambda self: rates)
    monkeypatch.setattr(Sampler, "look", lambda self: looks.append(self))
    assert (await page(Listing(plane), sort=SessionSort.RATE, limit=4))[0] == [9, 5, 1, 2]
    assert len(looks) == 1


async def test_an_order_has_no_cursor(plane: Plane) -> None:
    """What comes next changes from one second to the next."""
    with pytest.raises(BadRequest, match="cursor"):
        await page(Listing(plane), sort=SessionSort.AGE, cursor="4")


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ({"policy": "rest"}, [2, 4, 6, 8, 10]),
        ({"policy": "nosuch"}, []),
        ({"state": "created"}, [3]),
        ({"cgroup": CGROUP}, [1, 3, 5, 7, 9]),
        ({"cgroup": "/system.slice"}, [1, 3, 5, 7, 9]),
        ({"cgroup": "/system.slice/rsync1"}, []),
        ({"cgroup": "/"}, [1, 3, 5, 7, 9]),
        ({"policy": "sync", "state": "created"}, [3]),
        ({"search": "A0000004"}, [4]),
        ({"search": "RSYNC"}, [1, 3, 5, 7, 9]),
        ({"search": "rest"}, [2, 4, 6, 8, 10]),
        ({"search": ":443"}, list(range(1, 11))),
        ({"search": "nosuch"}, []),
        ({"search": "0xa", "state": "created"}, [3]),
    ],
)
async def test_filters(plane: Plane, query: dict[str, str], numbers: list[int]) -> None:
    """Filters are combined with and; a cgroup stands for those below it too."""
    plane.table[0xA0000003].state = SessionState.CREATED
    assert (await page(Listing(plane), **query))[0] == numbers


async def test_filtered_pages_follow_each_other(plane: Plane) -> None:
    """Cursor and filter work together."""
    view = Listing(plane)
    first, cursor = await page(view, policy="sync", limit=2)
    assert (first, (await page(view, policy="sync", limit=9, cursor=cursor))[0]) == ([1, 3], [5, 7, 9])


@pytest.mark.parametrize("cursor", ["", "x", "-1", "17", "0123abcd-" + "9" * 30, "0123abcd-٣"])
async def test_bad_cursor_is_the_readers_mistake(plane: Plane, cursor: str) -> None:
    """A cursor that no page gave is refused."""
    with pytest.raises(BadRequest, match="cursor"):
        await Listing(plane).page(SessionQuery(cursor=cursor))


async def test_a_cursor_of_a_former_run(plane: Plane) -> None:
    """Sessions have other numbers after a restart: the reader has to begin again, and is told so."""
    _, cursor = await page(Listing(plane), limit=4)
    with pytest.raises(Expired, match="first page"):
        await page(Listing(plane), limit=4, cursor=cursor)


async def test_kernel_is_asked_once_a_second_however_many_poll(plane: Plane) -> None:
    """Readers at the same time, and one that polls, share what was read from the kernel."""
    view = Listing(plane)
    await asyncio.gather(*(view.page(SessionQuery()) for _ in range(5)))
    asked = plane.stats_calls
    await view.page(SessionQuery())
    assert plane.stats_calls == asked == -(-10 // listing.RENDERED_AT_ONCE)


async def test_figures_are_read_again_when_stale(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is older than FRESH_S is never shown."""
    monkeypatch.setattr(listing, "FRESH_S", 0.0)
    view = Listing(plane)
    await view.page(SessionQuery(limit=1))
    await view.page(SessionQuery(limit=1))
    assert plane.stats_calls == 2


async def test_state_policy_and_subflows_are_never_stale(plane: Plane) -> None:
    """A change of them shows at once, whatever is kept."""
    view = Listing(plane)
    await view.page(SessionQuery())
    session = plane.table[0xA0000001]
    session.subflows.append(
        Subflow("10.0.3.1", 1, "10.0.3.2", 443, Origin.POLICY, SubflowState.OPENING),
    )
    plane.table[0xA0000002].policy = SYNC
    plane.table[0xA0000003].state = SessionState.CREATED
    sessions = json.loads(await view.page(SessionQuery()))["sessions"]
    assert len(sessions[0]["subflows"]) == 3
    assert sessions[1]["policy"] == "sync"
    assert sessions[2]["state"] == "created"


async def test_token_used_again_shows_the_new_session(plane: Plane) -> None:
    """The kernel may give a token to another session: nothing of the first is shown."""
    view = Listing(plane)
    await view.page(SessionQuery())
    plane.add(1).remote = "10.9.9.9"
    (session,) = json.loads(await view.page(SessionQuery(limit=1)))["sessions"]
    assert session["remote_addresses"][0]["ip"] == "10.9.9.9"


async def test_what_is_kept_is_bounded() -> None:
    """Walking a long table leaves at most CACHE_LENGTH sessions' JSON behind, and every page is whole."""
    plane = Plane()
    for number in range(1, listing.CACHE_LENGTH * 2 + 1):
        plane.add(number)
    view = Listing(plane)
    numbers, cursor = await page(view, limit=999)
    seen = len(numbers)
    while cursor is not None:
        numbers, cursor = await page(view, limit=999, cursor=cursor)
        seen += len(numbers)
    assert seen == len(plane.table)
    assert len(view) == listing.CACHE_LENGTH


async def test_census_counts_by_policy_and_state(plane: Plane) -> None:
    """The census has sessions by policy and state, those of no policy too, and subflows by interface."""
    plane.add(11, None)
    census = await Listing(plane).census()
    assert census.sessions == {
        ("sync", "established"): 5,
        ("rest", "established"): 5,
        (None, "established"): 1,
    }
    first = plane.ledger.interface_of(next(iter(plane.table.values())).subflows[0])
    assert census.subflows["sync", first, "established"] == 5
    assert census.subflows["sync", UNKNOWN, "failed"] == 5
    assert sum(census.subflows.values()) == 22 + 11
    assert census.interfaces[first] == 11
