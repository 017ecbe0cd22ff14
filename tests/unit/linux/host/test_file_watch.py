# SPDX-License-Identifier: Apache-2.0
"""Every change of a file is noticed, whenever it happens."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from pm.linux.host.file_watch import file_changes, signature

DEADLINE_S = 10.0


async def test_a_change_before_the_first_look_is_noticed(tmp_path: Path) -> None:
    """What changes between reading the file and watching it is a change like any other."""
    path = tmp_path / "config.yaml"
    path.write_text("old")
    seen = await asyncio.to_thread(signature, path)
    path.write_text("new text")
    async with asyncio.timeout(DEADLINE_S):
        await anext(file_changes(path, seen))


@pytest.mark.parametrize("how", ["in place", "replaced", "swapped link", "removed"])
async def test_a_change_while_watching_is_noticed(tmp_path: Path, how: str) -> None:
    """Rewritten, replaced by another file, behind a link that is replaced, or gone."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "config.yaml").write_text(f"version {version}")
    (tmp_path / "data").symlink_to("1")
    (tmp_path / "config.yaml").symlink_to("data/config.yaml")
    path = tmp_path / "config.yaml"
    changes = file_changes(path, await asyncio.to_thread(signature, path))
    change = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    match how:
        case "in place":
            (tmp_path / "1" / "config.yaml").write_text("more than before")
        case "replaced":
            (tmp_path / "new").write_text("another file")
            os.replace(tmp_path / "new", tmp_path / "1" / "config.yaml")
        case "swapped link":
            (tmp_path / "new").symlink_to("2")
            os.replace(tmp_path / "new", tmp_path / "data")
        case "removed":
            (tmp_path / "1" / "config.yaml").unlink()
    async with asyncio.timeout(DEADLINE_S):
        await change
