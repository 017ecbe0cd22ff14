# SPDX-License-Identifier: Apache-2.0
"""The cgroup tree as it is and as it changes, on the real cgroup2 (and, for floods, on a plain directory)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pm.linux.host import cgroup_watcher
from pm.linux.host.cgroup_watcher import CgroupWatcher
from pm.linux.host.cgroups import CgroupIds, find_cgroup_root
from tests.lab.commands import run
from tests.lab.lab import Lab
from tests.lab.service import ROOT

DEADLINE_S = 10.0
QUEUE = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


@pytest.fixture
def bare(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab(client=1, server=1)


@asynccontextmanager
async def watching(root: Path, top: str) -> AsyncIterator[CgroupWatcher]:
    """A watcher of ``top`` and everything below it."""
    async with CgroupWatcher.open(root) as watcher:
        await watcher.rescan(
            lambda path: path == "/" or path == top or path.startswith(f"{top.removesuffix('/')}/")
        )
        yield watcher


async def reached(watcher: CgroupWatcher, condition: Callable[[], bool]) -> None:
    """Follow until a condition holds, looking after each change."""
    async with asyncio.timeout(DEADLINE_S):
        if not condition():
            async for _ in watcher:
                if condition():
                    return


def below(watcher: CgroupWatcher, top: str) -> set[str]:
    return {path for path in watcher.cgroups if path.startswith(top)}


async def test_follows_cgroups(bare: Lab) -> None:
    """Cgroups there at start, made, and removed later are known with their ids; others are not looked at."""
    top = bare.cgroup("")
    first = bare.cgroup("a/b")
    root = find_cgroup_root()
    async with watching(root, top) as watcher:
        assert below(watcher, top) == {top, f"{top}/a", first}
        late = bare.cgroup("late/x/y")
        await reached(watcher, lambda: late in watcher.cgroups)
        assert watcher.cgroups[late] == os.stat(root / late[1:]).st_ino
        bare.remove_cgroup("a")
        await reached(watcher, lambda: first not in watcher.cgroups and f"{top}/a" not in watcher.cgroups)


async def test_recreated_cgroup_has_another_id(bare: Lab) -> None:
    """A cgroup that is removed and made again at once is known with its new id."""
    top = bare.cgroup("")
    path = bare.cgroup("a")
    directory = find_cgroup_root() / path[1:]
    async with watching(find_cgroup_root(), top) as watcher:
        old = watcher.cgroups[path]
        directory.rmdir()
        directory.mkdir()
        (directory / "b").mkdir()
        await reached(watcher, lambda: f"{path}/b" in watcher.cgroups)
        assert watcher.cgroups[path] == os.stat(directory).st_ino != old


async def test_many_nested_cgroups_made_at_once(bare: Lab) -> None:
    """No directory of a tree that grows while it is being watched is missed."""
    top = bare.cgroup("")
    async with watching(find_cgroup_root(), top) as watcher:
        made = await asyncio.to_thread(lambda: {bare.cgroup(f"{i}/a/b/c") for i in range(30)})
        await reached(watcher, lambda: made <= watcher.cgroups.keys())


async def test_unrelated_part_of_the_tree_is_not_watched(bare: Lab) -> None:
    """Below a cgroup under which no glob can match nothing is looked at; a reload changes that."""
    bare.cgroup("a/b")
    top = bare.cgroup("")
    async with CgroupWatcher.open(find_cgroup_root()) as watcher:
        await watcher.rescan(lambda path: path in ("/", top))
        assert below(watcher, top) == {top, f"{top}/a"}
        changes = await watcher.rescan(lambda path: path in ("/", top, f"{top}/a"))
        assert dict(changes.added).keys() == {f"{top}/a/b"}
        changes = await watcher.rescan(lambda path: path == "/")
        assert changes.removed.keys() == {f"{top}/a", f"{top}/a/b"}


async def test_overflow_of_the_queue_is_made_up_for(tmp_path: Path) -> None:
    """When the kernel drops events, the tree is read again: the watcher knows what is there."""
    async with CgroupWatcher.open(tmp_path) as watcher:
        await watcher.rescan(lambda path: True)
        for i in range(QUEUE // 2 + 1):  # two events each; nobody reads
            (tmp_path / f"x{i % 7}").mkdir()
            (tmp_path / f"x{i % 7}").rmdir()
        (tmp_path / "last" / "below").mkdir(parents=True)
        async with asyncio.timeout(60):
            async for _ in watcher:
                if watcher.cgroups.keys() == {"/", "/last", "/last/below"}:
                    break


async def test_renamed_directory(tmp_path: Path) -> None:
    """A directory that moves is known by its new name, and so is what is in it."""
    (tmp_path / "a").mkdir()
    async with watching(tmp_path, "/") as watcher:
        (tmp_path / "a").rename(tmp_path / "b")
        await reached(watcher, lambda: watcher.cgroups.keys() == {"/", "/b"})


def test_without_watches_the_tree_is_read_again_and_again(tmp_path: Path) -> None:
    """Where inotify has no watch or no instance left, what comes later is found all the same."""
    for i in range(8):
        (tmp_path / str(i)).mkdir()
    program = (
        "import asyncio, pathlib\n"
        "from pm.linux.host import cgroup_watcher\n"
        "cgroup_watcher.RESCAN_S = 0.05\n"
        f"root = pathlib.Path({str(tmp_path)!r})\n"
        "async def main():\n"
        "    async with cgroup_watcher.CgroupWatcher.open(root) as watcher:\n"
        "        await watcher.rescan(lambda path: True)\n"
        "        assert len(watcher.cgroups) >= 9, watcher.cgroups\n"
        "        (root / '7' / 'late').mkdir(exist_ok=True)\n"
        "        if '/7/late' not in watcher.cgroups:\n"
        "            async with asyncio.timeout(20):\n"
        "                async for changes in watcher:\n"
        "                    if '/7/late' in changes.added:\n"
        "                        break\n"
        "asyncio.run(main())\n"
    )
    for limit in ("watches", "instances"):
        # The limits are those of a user namespace: only the child's are lowered.
        done = subprocess.run(
            [
                "unshare", "--user", "--map-root-user", "sh", "-c",
                f'echo {4 * (limit == "watches")} >/proc/sys/user/max_inotify_{limit} && exec "$@"', "sh",
                sys.executable, "-c", program,
            ],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"fs.inotify.max_user_{limit}" in done.stderr + done.stdout
        (tmp_path / "7" / "late").rmdir()


async def test_delegated_directory_has_a_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one delegated directory has beyond its share is passed over, until there is room again."""
    monkeypatch.setattr(cgroup_watcher, "DELEGATED_MAX", 4)
    monkeypatch.setattr(cgroup_watcher, "RESCAN_S", 0.1)
    for i in range(8):
        (tmp_path / "user" / str(i)).mkdir(parents=True)
        (tmp_path / "system" / str(i) / "a").mkdir(parents=True)
    for directory in (tmp_path / "user", *(tmp_path / "user").iterdir()):
        os.chown(directory, 1000, -1)
    async with watching(tmp_path, "/") as watcher:
        taken = below(watcher, "/user")
        assert (len(taken), len(below(watcher, "/system"))) == (4, 17)
        for path in taken - {"/user"}:
            (tmp_path / path[1:]).rmdir()
        await reached(watcher, lambda: len(below(watcher, "/user") - taken) == 3)


def test_ids_and_paths(bare: Lab) -> None:
    """An id gives the cgroup's path; one that no cgroup has gives None."""
    path = bare.cgroup("some/where")
    root = find_cgroup_root()
    ids = CgroupIds(root)
    assert ids.path_of(os.stat(root / path[1:]).st_ino) == path
    assert ids.path_of(os.stat(root).st_ino) == "/"
    assert ids.path_of(1 << 60) is None


def test_ids_and_paths_without_file_handles(bare: Lab) -> None:
    """Without CAP_DAC_READ_SEARCH, as in a container, the tree is looked through."""
    path = bare.cgroup("some/where")
    root = find_cgroup_root()
    program = (
        "import pathlib, sys\n"
        "from pm.linux.host.cgroups import CgroupIds\n"
        "print(CgroupIds(pathlib.Path(sys.argv[1])).path_of(int(sys.argv[2])))\n"
    )
    without = ["setpriv", "--bounding-set=-dac_read_search", "--inh-caps=-dac_read_search"]
    cgroup_id = os.stat(root / path[1:]).st_ino
    assert run(*without, sys.executable, "-c", program, str(root), str(cgroup_id)) == f"{path}\n"
