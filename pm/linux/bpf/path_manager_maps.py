# SPDX-License-Identifier: GPL-2.0-only
"""The path managers as programs of the patched kernel, and the maps that they share (docs/kernel-abi.md)."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from pm.linux.bpf import libbpf, third_party
from pm.linux.bpf.attachments import Attachments, netns_cookie, pin_directory
from pm.linux.bpf.classifier_maps import policy_id
from pm.linux.bpf.layouts import POLICY_ID_PLACEHOLDER
from pm.linux.bpf.objects import SOURCES
from pm.linux.bpf.third_party import ThirdParty
from pm.linux.ip import ip_text, packed_ip
from pm.model import LocalAddress
from pm.path_managers.program import BUILT_IN, PROGRAM_PARAMETERS_MAX, Program
from pm.policies.model import Policy

SOURCE = SOURCES / "path_manager.c"
KIND = "path manager"  # what a third party's file is, in errors
MAPS = (
    "local_addr_map", "path_parameters", "accepted_peers", "claims", "claim_counters", "blank_claim",
)  # fmt: skip
PARAMETERS_MAX = PROGRAM_PARAMETERS_MAX + 1
LOCALS = 16
ADDRESS_BACKUP = 1  # BPF_MPTCP_ADDR_BACKUP

# struct bpf_mptcp_addr: family, port, ip4, ip6, scope_id, id, ifindex, flags
_ADDRESS = struct.Struct("=HH4x16s4xIII")
# struct path_parameters: start_after_ns, start_after_bytes, accept_max_subflows, accept_listed, value
_PARAMETERS = struct.Struct(f"=QQII{PARAMETERS_MAX}I")
# struct accepted_peer: length in bits, policy, address
_PEER = struct.Struct("=IQ16s")
_PEER_POLICY_BITS = 64
_SLOT, _TOKEN, _POLICY, _FLAG = (struct.Struct(f) for f in ("=I", "=I", "=Q", "=I"))


class ClaimCounter(IntEnum):
    """Index into the per-CPU array ``claim_counters``."""

    CLAIMED = 0
    CLAIM_FAILED = 1
    JOINS_REFUSED = 2


class ProgramName(NamedTuple):
    """What makes two programs the same; ``compiled`` counts compilations."""

    policy: str
    path_manager: str
    compiled: int

    def __str__(self) -> str:
        return f"{self.policy} {self.path_manager} {self.compiled}"


class PolicyEntries(NamedTuple):
    """``program`` is the path manager in the kernel; keys and values are bytes as in the maps."""

    program: str
    parameters: Mapping[bytes, bytes]
    accepted: Mapping[bytes, bytes]


class PathPrograms(Attachments):
    """``attached`` has ``str(ProgramName)``. Made by ``PathPrograms.open``."""

    link_prefix = "path-manager-link-"
    entry = "path_manager"

    def entry_of(self, name: str) -> str:
        return f"{self.entry}_{name.split()[1]}"

    def constants(self, name: str) -> Mapping[int, int]:
        return {POLICY_ID_PLACEHOLDER: policy_id(name.split()[0])}

    def write(self, policies: Iterable[PolicyEntries]) -> None:
        """Parameters and accepted peers of these policies and no others. Raises KernelRefused."""
        everything = list(policies)
        self.fill("path_parameters", [p.parameters for p in everything])
        self.fill("accepted_peers", [p.accepted for p in everything])

    def claimed_by(self, token: int) -> int | None:
        """Id of the policy whose program claimed a session; None where none did."""
        value = ctypes.create_string_buffer(self._program.maps["claims"][1].value_size)
        found = libbpf.lookup(self._maps["claims"], ctypes.c_uint32(token), value)
        return int(_POLICY.unpack_from(value)[0]) if found else None

    def claimed(self) -> list[int]:
        """Tokens of all claims."""
        return [token for (token,) in map(_TOKEN.unpack, libbpf.keys(self._maps["claims"], _TOKEN.size))]

    def release(self, token: int) -> None:
        """Forget a claim: where the program had gone when its session ended, nobody did."""
        libbpf.delete(self._maps["claims"], _TOKEN.pack(token))

    def counters(self) -> dict[str, int]:
        """By ``ClaimCounter``, since the maps were made."""
        values = (ctypes.c_uint64 * libbpf.possible_cpus())()
        totals = {}
        for counter in ClaimCounter:
            libbpf.lookup(self._maps["claim_counters"], ctypes.c_uint32(counter), values)
            totals[counter.name.lower()] = sum(values)
        return totals

    def read_locals(self) -> list[tuple[str, int]]:
        """(address, id) by slot of local_addr_map, also of those that are gone; ("", 0) for a free slot."""
        found = []
        value = ctypes.create_string_buffer(_ADDRESS.size)
        for slot in range(LOCALS):
            libbpf.lookup(self._maps["local_addr_map"], ctypes.c_uint32(slot), value)
            _, _, packed, address_id, _, _ = _ADDRESS.unpack(value.raw)
            found.append((ip_text(packed), address_id) if any(packed) else ("", 0))
        return found

    def write_local(self, slot: int, entry: bytes) -> None:
        libbpf.update(self._maps["local_addr_map"], _SLOT.pack(slot), entry)


def local_entry(ip: str, address_id: int, address: LocalAddress | None) -> bytes:
    """Of local_addr_map. Without ``address`` it is not usable, and only tells whose the id is."""
    if address is None:
        return _ADDRESS.pack(0, 0, packed_ip(ip), address_id, 0, 0)
    flags = ADDRESS_BACKUP if address.backup else 0
    return _ADDRESS.pack(socket.AF_INET6, 0, packed_ip(ip), address_id, address.ifindex, flags)


def program_of(policy: Policy) -> str:
    """The path manager in the kernel; "none" for those in Python only, whose subflows the service opens."""
    choice = policy.path_manager
    if isinstance(choice.parameters, Program.Parameters):
        return choice.parameters.name
    return choice.name if choice.name in BUILT_IN else "none"


def opens_subflows(program: str) -> bool:
    """Whether the program opens subflows by itself."""
    return program != "none"


def third_parties(policies: Sequence[Policy]) -> list[ThirdParty]:
    """Those of all policies by name. Raises PmError."""
    chosen = (policy.path_manager.parameters for policy in policies)
    return third_party.gather(
        KIND, ((c.name, c.source, c.parameters) for c in chosen if isinstance(c, Program.Parameters))
    )


def policy_entries(policy: Policy, others: Sequence[ThirdParty]) -> PolicyEntries:
    """``others`` as ``third_parties`` has them. Pure."""
    program, parameters, accept = program_of(policy), policy.path_manager.parameters, policy.accept
    values: list[int] = []
    if isinstance(parameters, Program.Parameters):
        names = next(other.parameters for other in others if other.name == program)
        values = [parameters.parameters.get(name, 0) for name in names]
    elif opens_subflows(program):
        values = list(astuple(parameters))
    values += [0] * (PARAMETERS_MAX - len(values))
    key = policy_id(policy.name)
    block = _PARAMETERS.pack(
        round(policy.start.after * 1e9),
        policy.start.after_bytes,
        accept.max_subflows or 0,
        accept.from_ is not None,
        *values,
    )
    peers = {
        _PEER.pack(
            _PEER_POLICY_BITS + prefix.prefixlen + (96 if prefix.version == 4 else 0),
            key,
            packed_ip(str(prefix.network_address)),
        ): _FLAG.pack(1)
        for prefix in accept.from_ or ()
    }
    return PolicyEntries(program, {_POLICY.pack(key): block}, peers)


def compiler_flags(others: Sequence[ThirdParty]) -> list[str]:
    """For bpf_pm/path_manager.c: which path managers there are, and where third parties' parameters lie.

    Raises PmError for a third party's file that cannot be read or does not know a parameter.
    """
    names = [*BUILT_IN, *(other.name for other in others)]
    built_in = [SOURCES / f"path_managers/{name}.c" for name in BUILT_IN]
    return [
        f"-DEACH_PATH_MANAGER(X)={''.join(f'X({name})' for name in names)}",
        *third_party.compiler_flags(KIND, built_in, others, zero_place=PARAMETERS_MAX - 1),
    ]


def remove_left(bpffs: Path | None) -> bool:
    """Take programs off that an earlier service left in this network namespace; whether there were any."""
    if not bpffs:
        return False
    directory = pin_directory(bpffs, netns_cookie())
    left = [*directory.glob(f"{PathPrograms.link_prefix}*"), *(directory / name for name in MAPS)]
    there = [pin for pin in left if pin.exists()]
    for pin in there:
        pin.unlink()
    return bool(there)
