# SPDX-License-Identifier: Apache-2.0
"""What one service notes and the next one finds."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from pm.linux.host.notes import BOOT_ID, Notes

SUBJECT = {"boot": BOOT_ID.read_text().strip(), "netns_cookie": 7}


async def test_the_next_service_finds_what_was_kept(tmp_path: Path) -> None:
    """Under each key what its maker made last; a file with nothing to note is removed."""
    file = tmp_path / "state/notes.json"
    values = {"a": {"1": "x"}, "b": {}}
    async with Notes.open(file, netns_cookie=7) as notes:
        assert notes.found("a") is None
        notes.keep("a", lambda: values["a"])
        notes.keep("b", lambda: values["b"])
    assert json.loads(file.read_text()) == {**SUBJECT, "a": {"1": "x"}}
    assert file.stat().st_mode & 0o777 == 0o600
    async with Notes.open(file, netns_cookie=7) as notes:
        assert (notes.found("a"), notes.found("b")) == ({"1": "x"}, None)
    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[" * 200_000,
        json.dumps({**SUBJECT, "netns_cookie": 8, "a": 1}),
        json.dumps({"netns_cookie": 7, "a": 1}),
    ],
    ids=["empty", "broken", "no mapping", "too deep", "another namespace", "another boot"],
)
async def test_what_is_not_ours_is_not_believed(tmp_path: Path, text: str) -> None:
    file = tmp_path / "notes.json"
    file.write_text(text)
    async with Notes.open(file, netns_cookie=7) as notes:
        assert notes.found("a") is None


async def test_written_when_touched(tmp_path: Path) -> None:
    """The file is there while the service runs, for the one that comes after a kill."""
    file, written = tmp_path / "notes.json", asyncio.Event()

    def make() -> list[int]:
        written.set()
        return [1]

    async with Notes.open(file, netns_cookie=7) as notes, asyncio.timeout(10):
        notes.keep("a", make)
        running = asyncio.create_task(notes.run())
        notes.touch()
        await written.wait()
        while not file.exists():  # noqa: ASYNC110 a thread writes it
            await asyncio.sleep(0.001)
        assert json.loads(file.read_text())["a"] == [1]
        running.cancel()


async def test_a_directory_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    """It costs the notes alone."""
    (tmp_path / "file").write_text("")
    async with Notes.open(tmp_path / "file/notes.json", netns_cookie=7) as notes:
        notes.keep("a", lambda: [1])
