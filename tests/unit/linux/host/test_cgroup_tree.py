# SPDX-License-Identifier: Apache-2.0
"""Whether the mounted cgroup2 tree shows other cgroups than our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pm.errors import SystemUnfit
from pm.linux.host.cgroup_tree import CgroupTree, find_tree


class Machine:
    """A tree that a process sees at some places, and the two files of /proc that tell of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lines: list[str] = []

    def mount(self, name: str, root: str, *, real_root: bool = False) -> Path:
        """A mount of the cgroup at ``root``, as /proc/self/mountinfo has it."""
        place = self._directory / name
        place.mkdir()
        (place / "cgroup.procs").touch()
        if not real_root:
            (place / "cgroup.events").touch()
        self._lines.append(f"{len(self._lines)} 1 0:9 {root} {place} ro,nosuid shared:4 - cgroup2 none rw\n")
        return place

    def find(self, own: str, root: Path | None = None) -> CgroupTree:
        mountinfo, own_cgroup = self._directory / "mountinfo", self._directory / "cgroup"
        mountinfo.write_text("1 0 0:5 / /proc rw - proc proc rw\n" + "".join(self._lines))
        own_cgroup.write_text(f"5:cpu:/x\n0::{own}\n")
        return find_tree(root, mountinfo=mountinfo, own_cgroup=own_cgroup)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("root", "own", "real_root", "visible"),
    [
        ("/", "/", True, True),  # a host, where we are in the root
        ("/", "/system.slice/mptcp-pm.service", True, True),  # a host, as a unit
        ("/", "/", False, False),  # a container with a cgroup namespace of its own
        ("/..", "/", False, True),  # the same, with the tree of an engine within a container mounted
        ("/../..", "/", True, True),  # the same, with the host's
        ("/", "/docker/1", False, True),  # `--cgroupns host` of an engine within a container
        ("/docker/1", "/docker/1", False, False),  # only our own cgroup mounted
    ],
)
def test_what_is_visible(machine: Machine, root: str, own: str, real_root: bool, visible: bool) -> None:
    """Our own cgroup alone is visible if it is the root of the mount, unless that is the real root."""
    place = machine.mount("sys", root, real_root=real_root)
    assert machine.find(own) == CgroupTree(place, visible)


def test_a_tree_that_shows_others_is_preferred(machine: Machine) -> None:
    """The engine mounts our own cgroup; the host's tree is at another place."""
    machine.mount("sys", "/")
    host = machine.mount("host", "/..")
    assert machine.find("/") == CgroupTree(host, visible=True)


def test_a_given_root(machine: Machine, tmp_path: Path) -> None:
    """It may be a part of a mount, and is refused where it is no cgroup."""
    host = machine.mount("host", "/..")
    pod = host / "pod"
    pod.mkdir()
    with pytest.raises(SystemUnfit, match="is not in a cgroup2 file system"):
        machine.find("/", pod)
    (pod / "cgroup.procs").touch()
    (pod / "cgroup.events").touch()
    assert machine.find("/", pod) == CgroupTree(pod, visible=True)
    with pytest.raises(SystemUnfit, match="--cgroup-root"):
        machine.find("/", tmp_path)


def test_no_tree(machine: Machine) -> None:
    """Neither without a mount, nor with one that something else covers."""
    assert machine.find("/") == CgroupTree(None, visible=False)
    (machine.mount("sys", "/") / "cgroup.procs").unlink()
    assert machine.find("/") == CgroupTree(None, visible=False)
