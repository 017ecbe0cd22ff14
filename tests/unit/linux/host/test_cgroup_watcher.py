# SPDX-License-Identifier: Apache-2.0
"""What the watcher does in a tree whose delegated parts are hostile, and when the system has nothing left."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pm.linux.host import cgroup_watcher
from pm.linux.host.cgroup_watcher import CgroupWatcher
from pm.linux.host.cgroups import CgroupIds, directory_of


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A directory that is removed by a program that copes with any depth."""
    yield tmp_path
    subprocess.run(["rm", "-rf", tmp_path], check=True)


def nest(directory: Path, name: str, levels: int) -> None:
    at = os.open(directory, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


async def found(root: Path) -> set[str]:
    async with CgroupWatcher.open(root) as watcher:
        await watcher.rescan(lambda path: True)
        return set(watcher.cgroups)


async def test_path_longer_than_the_kernel_takes(tree: Path) -> None:
    """Directories that have no usable path are passed over; all others are found."""
    nest(tree, "x" * 250, 17)
    (tree / "honest" / "a").mkdir(parents=True)
    cgroups = await found(tree)
    assert {"/", "/honest", "/honest/a", "/" + "x" * 250} <= cgroups
    assert len(cgroups) < 20
    for path in sorted(cgroups, key=len)[-3:]:
        assert directory_of(tree, path).is_dir()


async def test_more_levels_than_a_stack_has(tree: Path) -> None:
    """1,100 levels cost those that are deeper than the bound, and nothing else."""
    nest(tree, "d", 1100)
    (tree / "honest").mkdir()
    cgroups = await found(tree)
    assert "/honest" in cgroups
    assert len(cgroups) == cgroup_watcher.DEPTH_MAX + 2


async def test_directory_that_cannot_be_read_stays_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no descriptor left nothing counts as removed."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    async with CgroupWatcher.open(tmp_path) as watcher:
        await watcher.rescan(lambda path: True)

        def none_left(path: object) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(cgroup_watcher, "children", none_left)
        assert not await watcher.rescan(lambda path: True)
        assert watcher.cgroups.keys() == {"/", "/a", "/a/b"}


@pytest.mark.parametrize(
    "name", [b"bad\xff", b".x", "\u00e9".encode(), b"system\\x2d", "\ufffd41".encode(), b"a\xffb\xfe"]
)
async def test_any_name(tmp_path: Path, name: bytes) -> None:
    """A cgroup of any name has a path that is text, and the text leads back to it."""
    os.mkdir(os.fsencode(tmp_path) + b"/" + name)
    cgroups = await found(tmp_path)
    (path,) = cgroups - {"/"}
    path.encode()
    assert os.fsencode(directory_of(tmp_path, path)).endswith(b"/" + name)
    ids = CgroupIds(tmp_path)
    assert ids.path_of(os.stat(os.fsencode(tmp_path) + b"/" + name).st_ino) in (path, None)
