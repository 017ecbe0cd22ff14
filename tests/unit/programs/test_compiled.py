# SPDX-License-Identifier: Apache-2.0
"""When programs are compiled, and what is left where the verifier refuses one; without a kernel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from pm.errors import SystemUnfit
from pm.linux.bpf.attachments import Attachments
from pm.linux.bpf.objects import BpfObject
from pm.programs.compiled import CompiledPrograms, Sources

SOURCE = Path("/programs.c")


class FakeAttachments(Attachments[str]):
    """Refuses the key ``bad``; ``closed`` has what ``close`` was told to keep, of all instances."""

    closed: list[bool]

    @classmethod
    def open(cls, program: BpfObject, *, bpffs: Path | None, log_file: Path) -> FakeAttachments:
        self = cls(program, netns_cookie=1, pins=None, log_file=log_file)
        if bpffs:
            self.attached[1] = None  # left by an earlier service
        return self

    def change(self, program: BpfObject, keys: Iterable[str]) -> None:
        if "bad" in keys:
            raise SystemUnfit("refused")
        self._program = program

    def close(self, *, keep: bool) -> None:
        self.closed.append(keep)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The flags of each compilation."""
    flags: list[Sequence[str]] = []

    async def obtain_object(source: Path, *, log_file: Path, cflags: Sequence[str]) -> BpfObject:
        flags.append(cflags)
        return BpfObject({}, {})

    monkeypatch.setattr("pm.programs.compiled.obtain_object", obtain_object)
    monkeypatch.setattr(FakeAttachments, "closed", [], raising=False)
    return flags


def programs(bpffs: Path | None = None) -> CompiledPrograms[FakeAttachments]:
    return CompiledPrograms(SOURCE, FakeAttachments, bpffs=bpffs, log_file=Path("/log"))


async def test_compiled_when_sources_change(compilations: list[Sequence[str]]) -> None:
    """The same sources are compiled once; the maps stay those of the first time."""
    chosen = programs()
    first = await chosen.load(Sources(["-a"], "1", {}), ["x"])
    assert await chosen.load(Sources(["-a"], "1", {}), ["y"]) is first
    assert await chosen.load(Sources(["-b"], "2", {}), ["y"]) is first
    assert compilations == [["-a"], ["-b"]]


@pytest.mark.parametrize("left", [False, True])
async def test_refused_at_first(compilations: list[Sequence[str]], left: bool) -> None:
    """Nothing stays open; what an earlier service left attached stays as it is."""
    chosen = programs(Path("/bpffs") if left else None)
    with pytest.raises(SystemUnfit):
        await chosen.load(Sources([], "1", {}), ["bad"])
    assert chosen.attachments is None
    assert FakeAttachments.closed == [left]


async def test_refused_later(compilations: list[Sequence[str]]) -> None:
    """The former programs stay; the same sources are compiled again the next time."""
    chosen = programs()
    first = await chosen.load(Sources([], "1", {}), ["x"])
    for _ in range(2):
        with pytest.raises(SystemUnfit):
            await chosen.load(Sources(["-b"], "2", {}), ["bad"])
    assert chosen.attachments is first
    assert FakeAttachments.closed == []
    assert compilations == [[], ["-b"], ["-b"]]
