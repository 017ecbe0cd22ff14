# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pm.linux.bpf.classifier_maps import policy_id
from pm.linux.bpf.layouts import SessionKey
from pm.linux.bpf.objects import link_instructions
from pm.linux.host.mounts import find_mount
from pm.linux.ip import packed_ip
from pm.programs.attach import Attach, Detach, Replace, plan_attachments

ids = st.integers(1, 8)
programs = st.sampled_from(["a", "b"])
attachments = st.dictionaries(ids, st.one_of(programs, st.none()))


@given(wanted=st.dictionaries(ids, programs), attached=attachments)
def test_plan_makes_attached_equal_to_wanted(wanted: dict[int, str], attached: dict[int, str | None]) -> None:
    """The plan's actions turn what is attached into what is wanted and touch each cgroup at most once."""
    actions = plan_attachments(wanted, attached, {*wanted, *attached})
    result = dict(attached)
    for action in actions:
        match action:
            case Attach(cgroup_id, policy):
                assert cgroup_id not in result
                result[cgroup_id] = policy
            case Replace(cgroup_id, policy):
                assert cgroup_id in result
                result[cgroup_id] = policy
            case Detach(cgroup_id):
                del result[cgroup_id]
    assert result == wanted
    assert len({action.cgroup_id for action in actions}) == len(actions)
    assert plan_attachments(wanted, result, {*wanted, *result}) == []


@given(wanted=st.dictionaries(ids, programs), attached=attachments, only=st.sets(ids))
def test_plan_leaves_other_cgroups_alone(
    wanted: dict[int, str], attached: dict[int, str | None], only: set[int]
) -> None:
    """No action names a cgroup that was not asked about."""
    assert {action.cgroup_id for action in plan_attachments(wanted, attached, only)} <= only


def test_plan_attaches_before_it_detaches() -> None:
    """Where one classifier goes and another comes, the new one is there first."""
    assert plan_attachments({2: "a"}, {1: "a"}, [1, 2]) == [Attach(2, "a"), Detach(1)]


def test_adopted_link_is_replaced() -> None:
    """A link found pinned runs a program of an earlier service: it is replaced even for the same cgroup."""
    assert plan_attachments({1: "a"}, {1: None}, [1]) == [Replace(1, "a")]


LOAD_MAP = struct.pack("=BBhI", 0x18, 1 | 1 << 4, 0, 7) + struct.pack("=BBhI", 0, 0, 0, 0)
LOAD_CONSTANT = struct.pack("=BBhI", 0x18, 2, 0, 0x55667788) + struct.pack("=BBhI", 0, 0, 0, 0x11223344)
EXIT = struct.pack("=BBhI", 0x95, 0, 0, 0)


def test_link_instructions_replaces_maps_and_constants() -> None:
    """Map descriptors and placeholders get our values; every other instruction stays as it was."""
    linked = link_instructions(
        LOAD_MAP + LOAD_CONSTANT + EXIT, {7: 42}, {0x1122334455667788: 0xFFFFFFFF00000001}
    )
    assert struct.unpack_from("=BBhI", linked, 0) == (0x18, 1 | 1 << 4, 0, 42)
    assert struct.unpack_from("=I", linked, 20) == (1,)
    assert struct.unpack_from("=I", linked, 28) == (0xFFFFFFFF,)
    assert linked[32:] == EXIT


def test_link_instructions_does_not_take_a_descriptor_for_a_constant() -> None:
    """A constant that is no placeholder stays, also where its value is that of a map's descriptor."""
    code = struct.pack("=BBhI", 0x18, 2, 0, 7) + struct.pack("=BBhI", 0, 0, 0, 0)
    assert link_instructions(code, {7: 42}, {}) == code


def test_link_instructions_refuses_an_unknown_map() -> None:
    """A map that the loader does not have is an error, never a descriptor of something else."""
    with pytest.raises(KeyError):
        link_instructions(LOAD_MAP, {}, {})


def test_policy_id_is_stable() -> None:
    """The id depends on the name alone, so that entries and programs outlive the service that made them."""
    assert policy_id("sync") == 0x71F279767856FCE1 != policy_id("ssh")


@pytest.mark.parametrize(
    ("ip", "packed"),
    [
        ("10.0.0.1", "00000000000000000000ffff0a000001"),
        ("::1", "00000000000000000000000000000001"),
        ("fd00:77::2", "fd000077000000000000000000000002"),
    ],
)
def test_packed_ip(ip: str, packed: str) -> None:
    """16 bytes in network order; IPv4 is v4-mapped as in a dual-stack socket."""
    assert packed_ip(ip).hex() == packed


def test_session_key_is_filled_where_its_fields_are() -> None:
    """Filling the key at once gives what setting its fields would."""
    key = SessionKey()
    key.fill(bytes(range(16)), 0x1234, bytes(range(16, 32)), 0x5678)
    assert (bytes(key.local), key.local_port) == (bytes(range(16)), 0x1234)
    assert (bytes(key.remote), key.remote_port) == (bytes(range(16, 32)), 0x5678)


def test_find_mount_reads_escaped_paths(tmp_path: Path) -> None:
    """A blank in a mount point is \\040 in /proc/self/mountinfo."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 0:5 / /proc rw - proc none rw\n"
        "2 0 0:6 / /a\\040b rw shared:1 - cgroup2 none rw\n"
        "3 0 0:6 / /c rw - cgroup2 none rw\n"
    )
    assert find_mount("cgroup2", mounts) == Path("/a b")
    assert find_mount("bpf", mounts) is None
