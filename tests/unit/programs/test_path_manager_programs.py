# SPDX-License-Identifier: Apache-2.0
"""What the path managers' programs are told: parameters, accepted peers, local addresses."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pm.errors import PmError
from pm.linux.bpf.classifier_maps import policy_id
from pm.linux.bpf.local_address_maps import (
    LOCALS,
    UP_ADDRESSES_MAX,
    interface_entries,
    local_entry,
    same_slot,
    slot_of,
    up_entries,
)
from pm.linux.bpf.objects import SOURCES
from pm.linux.bpf.path_manager_maps import (
    compiler_flags,
    opens_subflows,
    parameter_values,
    policy_entries,
    program_of,
    third_parties_of,
)
from pm.linux.ip import packed_ip
from pm.model import Origin, Pair, Want
from pm.path_managers.choice import PathManagerChoice
from pm.path_managers.program import BUILT_IN, Program
from pm.path_managers.registry import built_in, registry
from pm.policies.model import Accept, Limits, Policy, Start
from pm.programs.path_manager_programs import assign_slots
from tests.unit.builders import address, policy, session, subflow


def third_party(name: str, source: str, **parameters: int) -> Policy:
    chosen = Program.Parameters(name=name, source=source, parameters=parameters)
    return Policy(name=f"p-{name}", cgroup="/", path_manager=PathManagerChoice("program", chosen))


def test_parameters_of_a_policy() -> None:
    """struct path_parameters: start in nanoseconds and bytes, accept, then those of the path manager."""
    chosen = policy(
        "fullmesh",
        {"subflows_per_pair": 2, "max_subflows": 6},
        start=Start(after=0.5, after_bytes=65536),
        accept=Accept(max_subflows=4),
    )
    entries = policy_entries(chosen, [], Limits())
    ((key, value),) = entries.parameters.items()
    assert entries.program == "fullmesh"
    assert int.from_bytes(key, "little") == policy_id("p")
    words = [int.from_bytes(value[i : i + 4], "little") for i in range(32, len(value), 4)]
    assert int.from_bytes(value[:8], "little") == 500_000_000
    assert int.from_bytes(value[8:16], "little") == 65536
    rate, burst = (int.from_bytes(value[i : i + 8], "little") for i in (16, 24))
    assert (rate, burst) == (100_000_000, 1_000_000_000)
    assert words == [4, 0, 2, 6, 0, 0, 0, 0, 0, 0]
    assert not entries.accepted


def test_built_in_parameters_go_by_name() -> None:
    """Each has the place that its C file reads, whatever the order of the fields in the dataclass is."""

    class Reordered(NamedTuple):
        max_subflows: int
        subflows_per_pair: int

    reordered = PathManagerChoice("fullmesh", Reordered(subflows_per_pair=2, max_subflows=6))
    assert parameter_values(Policy(name="p", cgroup="/", path_manager=reordered), [])[:3] == [2, 6, 0]
    assert parameter_values(policy("ndiffports", {"subflows": 5}), [])[:2] == [5, 0]
    for name, parameters in BUILT_IN.items():
        assert set(parameters) == {field.name for field in fields(registry()[name].Parameters)}
        text = (SOURCES / f"path_managers/{name}.c").read_text()
        assert {int(i) for i in re.findall(r"p->value\[(\d+)\]", text)} == set(range(len(parameters)))


def test_accepted_peers_of_both_families() -> None:
    """Keys of an LPM trie: bits from the policy on, IPv4 as v4-mapped."""
    chosen = policy(accept=Accept(from_=(ip_network("10.0.0.0/8"), ip_network("fd00::/16"))))
    entries = policy_entries(chosen, [], Limits())
    (listed,) = (value[36:40] for value in entries.parameters.values())
    assert listed == b"\1\0\0\0"
    lengths = {key[12:]: int.from_bytes(key[:4], "little") for key in entries.accepted}
    assert lengths == {packed_ip("10.0.0.0"): 64 + 96 + 8, packed_ip("fd00::"): 64 + 16}


def test_path_managers_without_a_program_are_only_claimed() -> None:
    """One in Python only gets the program `none`: the service opens its subflows."""
    assert [program_of(policy(name)) for name in BUILT_IN] == list(BUILT_IN)
    assert set(BUILT_IN) == built_in().keys() - {"program", "endpoints"}
    assert program_of(policy("endpoints")) == "endpoints"  # which claims nothing
    assert not opens_subflows("endpoints")
    assert program_of(Policy(name="x", cgroup="/", path_manager=PathManagerChoice("other", None))) == "none"


def test_parameters_of_third_parties_have_one_order(tmp_path: Path) -> None:
    """Two policies with the same file: the union of their parameters, what one does not have is 0."""
    source = tmp_path / "mine.c"
    source.write_text("mine_manage(PARAMETER(p, mine_a) + PARAMETER(p, mine_b) + PARAMETER(p, mine_c))")
    one, two = third_party("mine", str(source), b=2), third_party("mine", str(source), a=1, b=3)
    others = third_parties_of([one, two])
    assert [o.parameters for o in others] == [("a", "b")]
    for chosen, wanted in ((one, [0, 2]), (two, [1, 3])):
        (value,) = policy_entries(chosen, others, Limits()).parameters.values()
        assert [value[40], value[44]] == wanted
    flags = compiler_flags(others)
    assert "-DPARAMETER_mine_a=0" in flags
    assert "-DPARAMETER_mine_b=1" in flags
    assert "-DPARAMETER_mine_c=7" in flags  # no policy gives it: always 0
    assert "-DTHIRD_PARTY_PATH_MANAGERS(X)=X(mine)" in flags


@pytest.mark.parametrize(
    "use",
    [
        "PARAMETER(p,mine_a)",
        "PARAMETER (p, mine_a )",
        "PARAMETER(\n\tp,\n\tmine_a\n)",
        "PARAMETER(&x->p[1], \\\n mine_a)",
        "PARAMETER(of(p), mine_a)",
    ],
)
def test_a_parameter_is_found_however_c_is_laid_out(tmp_path: Path, use: str) -> None:
    """As the compiler reads it."""
    source = tmp_path / "mine.c"
    source.write_text(f"mine_manage({use})")
    assert "-DPARAMETER_mine_a=0" in compiler_flags(third_parties_of([third_party("mine", str(source), a=1)]))


def test_mistakes_with_third_parties(tmp_path: Path) -> None:
    """A file that is not there, an unknown parameter, one name for two files: said in one line."""
    source = tmp_path / "mine.c"
    with pytest.raises(PmError, match="No such file"):
        compiler_flags(third_parties_of([third_party("mine", str(source))]))
    source.write_text("mine_mange()")
    with pytest.raises(PmError, match=r"mine.c has no function `mine_manage`: define it"):
        compiler_flags(third_parties_of([third_party("mine", str(source))]))
    source.write_text("mine_manage()\nBPF_HASH(seen);")
    with pytest.raises(PmError, match=r"mine.c:2: `BPF_HASH` defines a map, which such a file cannot have"):
        compiler_flags(third_parties_of([third_party("mine", str(source))]))
    source.write_text("mine_manage(PARAMETER(p, mine_a))")
    with pytest.raises(PmError, match="has no parameter `b`: it has a"):
        compiler_flags(third_parties_of([third_party("mine", str(source), b=1)]))
    with pytest.raises(PmError, match="have the same name"):
        third_parties_of([third_party("mine", str(source)), third_party("mine", "/else.c")])
    with pytest.raises(ValueError, match="built-in"):
        Program.Parameters(name="fullmesh", source="/x.c")


def test_what_a_program_opened_is_wanted() -> None:
    """The service closes nothing of it, and opens nothing beside it."""
    extra = subflow("10.0.2.1", "10.0.9.1", local_port=40001, origin=Origin.POLICY, backup=True)
    theirs = subflow("10.0.1.1", "10.0.9.9", local_port=5201, origin=Origin.PEER)
    known = session()
    known.subflows += [extra, extra, theirs]
    wanted = Program.wanted(known, [], Program.Parameters(name="x", source="/x.c"))
    assert wanted == {
        known.initial_pair: Want(1),
        Pair("10.0.2.1", "10.0.9.1", extra.remote_port): Want(2, True),
    }


def test_a_local_address_that_went_keeps_its_id() -> None:
    """Family 0: no new subflow, but those that end can still be told."""
    gone, there = (
        local_entry("10.0.1.1", 3, None),
        local_entry("10.0.1.1", 3, address("10.0.1.1", 5, backup=True)),
    )
    assert gone[:2] == bytes(2)
    assert there[:2] == b"\x0a\0"
    assert gone[8:32] == there[8:32]
    assert there[32:] == (5).to_bytes(4, "little") + (1).to_bytes(4, "little")


def test_what_two_entries_of_a_slot_differ_in() -> None:
    """Whether the address is there is for the programs to write; all else is the service's."""
    there = local_entry("10.0.1.1", 3, address("10.0.1.1", 5))
    assert slot_of(there) == ("10.0.1.1", 3)
    assert slot_of(bytes(len(there))) == ("", 0)
    assert same_slot(there, bytes(2) + there[2:])
    for other in (
        local_entry("10.0.1.1", 3, address("10.0.1.1", 6)),
        local_entry("10.0.1.1", 4, address("10.0.1.1", 5)),
        local_entry("10.0.1.1", 3, address("10.0.1.1", 5, backup=True)),
        local_entry("10.0.1.1", 3, address("10.0.1.1", 5), allowed=False),
    ):
        assert not same_slot(there, other)


def test_interfaces() -> None:
    """The programs know which interfaces the rules admit, and how."""
    assert interface_entries({2: False, 3: True}, link_local=False) == {2: 1, 3: 3}
    assert interface_entries({2: False, 3: True}, link_local=True) == {2: 5, 3: 7}


def test_addresses_that_are_up() -> None:
    """The program knows the interface of each, usable or not; one without an interface is not told."""
    entries = up_entries(["10.0.1.1", "fd00::1", "10.0.3.1"], {"10.0.1.1": 2, "fd00::1": 3})
    assert entries == {
        packed_ip("10.0.1.1"): (2).to_bytes(4, "little") + bytes(4),
        packed_ip("fd00::1"): (3).to_bytes(4, "little") + bytes(4),
    }
    many = {f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}": 2 for i in range(UP_ADDRESSES_MAX + 5)}
    assert len(up_entries(many, many)) == UP_ADDRESSES_MAX


IPS = [f"10.0.0.{i}" for i in range(1, LOCALS + 5)] + [f"fd00::{i}" for i in range(1, 5)]
IDS = {ip: i for i, ip in enumerate(IPS, 1)}
FREE = ("", 0)


@given(st.lists(st.sets(st.sampled_from(IPS)), max_size=12))
def test_slots(changes: list[set[str]]) -> None:
    """An address keeps its slot as long as it is usable; all usable ones have one while there is room."""
    slots = [FREE] * LOCALS
    for usable in changes:
        before = {ip: slot for slot, (ip, _) in enumerate(slots) if ip}
        slots = assign_slots(slots, [address(ip) for ip in sorted(usable)], IDS)
        after = {ip: slot for slot, (ip, _) in enumerate(slots) if ip}
        assert len(slots) == LOCALS
        if len(usable) <= LOCALS:
            assert all(after[ip] == slot for ip, slot in before.items() if ip in usable)
        assert len(usable & after.keys()) == min(len(usable), LOCALS)
        assert all(IDS[ip] == address_id for ip, address_id in slots if ip)


@given(st.lists(st.dictionaries(st.sampled_from(IPS), st.integers(2, 6)), max_size=8))
def test_slots_of_interfaces(changes: list[dict[str, int]]) -> None:
    """No interface is without an address while another has two; what fits is there in any case."""
    slots = [FREE] * LOCALS
    for interfaces in changes:
        slots = assign_slots(slots, [address(ip, i) for ip, i in interfaces.items()], IDS)
        there = Counter(interfaces[ip] for ip, _ in slots if ip in interfaces)
        every = Counter(interfaces.values())
        assert there.total() == min(every.total(), LOCALS)
        least = min((there[i] for i in every if there[i] < every[i]), default=LOCALS)
        assert all(number <= least + 1 for number in there.values())


def test_modem_beside_many_addresses() -> None:
    """21 addresses on eth0 fill the slots; the modem, before or after, has one, and IPv6 too."""
    many = [address(f"10.0.0.{i}", 2) for i in range(1, 22)]
    modem, ip6 = address("10.9.9.9", 3), address("fd00::1", 2)
    ids = {a.ip: i for i, a in enumerate([*many, modem, ip6], 1)}
    slots = assign_slots([FREE] * LOCALS, [*many, modem, ip6], ids)
    assert [ip for ip, _ in slots] == [a.ip for a in many[: LOCALS - 2]] + [modem.ip, ip6.ip]
    full = assign_slots([FREE] * LOCALS, many, ids)
    slots = assign_slots(full, [*many, modem], ids)
    moved = [(before, after) for before, after in zip(full, slots, strict=True) if before != after]
    assert [after for _, after in moved] == [(modem.ip, ids[modem.ip])]
    assert assign_slots(slots, [*reversed(many), modem], ids) == slots


def test_order_of_slots_is_the_order_of_addresses() -> None:
    """While there is room: the path managers open in that order."""
    usable = [address("10.0.1.1", 2), address("fd00:1::1", 2), address("10.0.1.2", 2), address("10.0.2.1", 3)]
    ids = {a.ip: i for i, a in enumerate(usable, 1)}
    slots = assign_slots([FREE] * LOCALS, usable, ids)
    assert [ip for ip, _ in slots[:4]] == [a.ip for a in usable]
