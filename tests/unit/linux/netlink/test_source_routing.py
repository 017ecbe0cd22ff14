# SPDX-License-Identifier: Apache-2.0
"""When ``SourceRouting`` reads rules and routes: a full table takes long. Its work is in tests/net."""

from __future__ import annotations

import pytest

from pm.linux.netlink import source_routing
from pm.linux.netlink.source_routing import SourceRouting


async def test_where_it_is_off_it_reads_until_nothing_of_its_own_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An error tells nothing: it reads again. Switched on it reads each time, and once more when off."""
    answers: list[object] = [OSError(), []]
    asked: list[bool] = []

    def read(enabled: bool, usable: object, tunnels: object) -> object:
        asked.append(enabled)
        return answers.pop(0) if answers else []

    monkeypatch.setattr(source_routing, "_read", read)
    on = False
    async with SourceRouting.open(lambda: on, tuple, tuple) as routing:
        for _ in range(4):
            await routing._sync()
        assert asked == [False, False]
        on = True
        await routing._sync()
        await routing._sync()
        on = False
        await routing._sync()
        await routing._sync()
        assert asked[2:] == [True, True, False]
    assert asked[5:] == [False]
