# SPDX-License-Identifier: Apache-2.0
"""The path managers as programs of the patched kernel, and the maps that they share (docs/kernel-abi.md)."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Collection, Mapping, Sequence
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import NamedTuple

from pm.linux.bpf import libbpf, third_party
from pm.linux.bpf.attachments import Attachments
from pm.linux.bpf.classifier_maps import policy_id
from pm.linux.bpf.layouts import POLICY_ID_PLACEHOLDER
from pm.linux.bpf.local_address_maps import LocalAddressMaps
from pm.linux.bpf.objects import SOURCES
from pm.linux.bpf.pins import pin_directory
from pm.linux.bpf.third_party import ThirdParty
from pm.linux.host.netns import netns_cookie
from pm.linux.ip import packed_ip
from pm.model import Way
from pm.path_managers.endpoints import Endpoints
from pm.path_managers.program import BUILT_IN, PROGRAM_PARAMETERS_MAX, Program
from pm.policies.model import Limits, Policy, session_rate
from pm.policies.remote_addresses import RemoteAddresses, prefix_flags

SOURCE = SOURCES / "path_manager.c"
KIND = "path manager"  # what a third party's file is, in errors
MAPS = (
    "local_addr_map", "up_addresses", "interfaces", "looks", "slot_lock", "routes", "path_parameters",
    "accepted_peers", "remote_prefixes",
    "claims", "claim_counters", "blank_claim", "left_alone",
)  # fmt: skip
PARAMETERS_MAX = PROGRAM_PARAMETERS_MAX + 1
ROUTES_MAX = 4096


# struct path_parameters: start_after_ns, start_after_bytes, open_interval_ns, open_burst_ns,
# accept_max_subflows, accept_listed, value
_PARAMETERS = struct.Struct(f"=QQQQII{PARAMETERS_MAX}I")
# struct accepted_peer: length in bits, policy, address
_PEER = struct.Struct("=IQ16s")
_PEER_POLICY_BITS = 64
# struct remote_prefix: length in bits, address
_PREFIX = struct.Struct("=I16s")
# struct destination: address, mark, port in network order
_DESTINATION = struct.Struct("=16sIHxx")
# struct route: two sets of slots
_ROUTE = struct.Struct("=II")
_TOKEN, _POLICY, _FLAG = (struct.Struct(f) for f in ("=I", "=Q", "=I"))


class ClaimCounter(IntEnum):
    """Index into the per-CPU array ``claim_counters``."""

    CLAIMED = 0
    CLAIM_FAILED = 1
    JOINS_REFUSED = 2


class ProgramKey(NamedTuple):
    """What makes two programs the same; ``sources`` is the digest of what they were compiled from."""

    policy: str
    path_manager: str
    sources: str


class PolicyEntries(NamedTuple):
    """A policy in the maps: keys and values are their bytes.

    ``program`` is the path manager in the kernel.
    """

    program: str
    parameters: Mapping[bytes, bytes]
    accepted: Mapping[bytes, bytes]


class PathManagerAttachments(LocalAddressMaps, Attachments[ProgramKey]):
    """The path managers' programs and their maps. Made by ``PathManagerAttachments.open``."""

    link_prefix = "path-manager-link-"
    entry = "path_manager"
    layout = ("include/bpf_mptcp.h", "include/claim.h", "path_manager_parts/maps.h")

    def entry_of(self, key: ProgramKey) -> str:
        return f"{self.entry}_{key.path_manager}"

    def constants(self, key: ProgramKey) -> Mapping[int, int]:
        return {POLICY_ID_PLACEHOLDER: policy_id(key.policy)}

    def write(self, policies: Collection[PolicyEntries], remote_prefixes: Mapping[bytes, bytes]) -> None:
        """Parameters and accepted peers of these policies and no others, and the remote prefixes.

        Raises KernelRefused.
        """
        self.fill("remote_prefixes", [remote_prefixes])
        self.fill("path_parameters", [p.parameters for p in policies])
        self.fill("accepted_peers", [p.accepted for p in policies])

    def claimed_by(self, token: int) -> int | None:
        """The id of the policy whose program claimed a session; None where no program did."""
        value = ctypes.create_string_buffer(self._program.maps["claims"][1].value_size)
        found = libbpf.lookup(self._maps["claims"], ctypes.c_uint32(token), value)
        return int(_POLICY.unpack_from(value)[0]) if found else None

    def claimed(self) -> list[int]:
        """Tokens of all claims."""
        return [token for (token,) in map(_TOKEN.unpack, libbpf.keys(self._maps["claims"], _TOKEN.size))]

    def release(self, token: int) -> None:
        """Delete a claim. The program does so itself, unless it was detached before its session ended."""
        libbpf.delete(self._maps["claims"], _TOKEN.pack(token))

    def counters(self) -> dict[str, int]:
        """Each ``ClaimCounter`` by its name in lower case, since the maps were made."""
        return {c.name.lower(): libbpf.read_counter(self._maps["claim_counters"], c) for c in ClaimCounter}

    def forget_routes(self) -> None:
        """Delete what an earlier service wrote into routes: it may not hold any more."""
        for key in libbpf.keys(self._maps["routes"], _DESTINATION.size):
            libbpf.delete(self._maps["routes"], key)

    def write_route(self, key: bytes, value: bytes | None) -> None:
        """Write an entry of routes, or delete it. Raises KernelRefused."""
        if value is None:
            libbpf.delete(self._maps["routes"], key)
        else:
            libbpf.update(self._maps["routes"], key, value)


def route_key(remote: str, remote_port: int, mark: int) -> bytes:
    """A key of routes. Pure."""
    return _DESTINATION.pack(packed_ip(remote), mark, socket.htons(remote_port))


def route_entry(slots: Sequence[str], ways: Mapping[str, Way]) -> bytes:
    """What routes has for a destination. ``slots`` are local addresses, ``ways`` those from each. Pure."""
    found = [(1 << slot, ways[ip]) for slot, ip in enumerate(slots) if ip in ways]
    unroutable = sum(bit for bit, way in found if not way.exists)
    return _ROUTE.pack(unroutable, sum(bit for bit, way in found if way.ifindex))


def program_of(policy: Policy) -> str:
    """The policy's path manager in the kernel; "none" where the service has to open the subflows.

    That of ``endpoints`` claims nothing, and keeps others from it.
    """
    choice = policy.path_manager
    if isinstance(choice.parameters, Program.Parameters):
        return choice.parameters.name
    return choice.name if choice.name in (*BUILT_IN, Endpoints.name) else "none"


def opens_subflows(program: str) -> bool:
    """Whether the program opens subflows by itself."""
    return program not in ("none", Endpoints.name)


def third_parties_of(policies: Sequence[Policy]) -> list[ThirdParty]:
    """The third parties' path managers of all policies, by name. Raises PmError."""
    parameters = (policy.path_manager.parameters for policy in policies)
    return third_party.gather(
        KIND, ((p.name, p.source, p.parameters) for p in parameters if isinstance(p, Program.Parameters))
    )


def parameter_values(policy: Policy, third_parties: Sequence[ThirdParty]) -> list[int]:
    """``value`` of struct path_parameters: each parameter at its place. Pure.

    ``third_parties`` is what ``third_parties_of`` gives for all policies.
    """
    program, parameters = program_of(policy), policy.path_manager.parameters
    if isinstance(parameters, Program.Parameters):
        names = next(other.parameters for other in third_parties if other.name == program)
        values = [parameters.parameters.get(name, 0) for name in names]
    else:
        values = [getattr(parameters, name) for name in BUILT_IN.get(program, ())]
    return values + [0] * (PARAMETERS_MAX - len(values))


def remote_entries(rules: RemoteAddresses) -> dict[bytes, bytes]:
    """What remote_prefixes has for the rules. Pure."""
    return {
        _PREFIX.pack(_mapped_length(prefix), packed_ip(str(prefix.network_address))): _FLAG.pack(flags)
        for prefix, flags in prefix_flags(rules).items()
    }


def _mapped_length(prefix: IPv4Network | IPv6Network) -> int:
    """The length of a prefix as one of IPv6 addresses, with IPv4 as ::ffff:a.b.c.d."""
    return prefix.prefixlen + (96 if prefix.version == 4 else 0)


def policy_entries(policy: Policy, third_parties: Sequence[ThirdParty], limits: Limits) -> PolicyEntries:
    """What the maps have for a policy. Pure.

    ``third_parties`` is what ``third_parties_of`` gives for all policies.
    """
    accept, key, rate = policy.accept, policy_id(policy.name), session_rate(limits, policy)
    block = _PARAMETERS.pack(
        round(policy.start.after * 1e9),
        policy.start.after_bytes,
        *(round(1e9 / rate.per_second), round(1e9 * rate.burst / rate.per_second)),
        policy.accept_limit,
        accept.from_ is not None,
        *parameter_values(policy, third_parties),
    )
    peers = {
        _PEER.pack(
            _PEER_POLICY_BITS + _mapped_length(prefix),
            key,
            packed_ip(str(prefix.network_address)),
        ): _FLAG.pack(1)
        for prefix in accept.from_ or ()
    }
    return PolicyEntries(program_of(policy), {_POLICY.pack(key): block}, peers)


def compiler_flags(third_parties: Sequence[ThirdParty]) -> list[str]:
    """For bpf_pm/path_manager.c: third parties' path managers, and where their parameters lie.

    Raises PmError for a third party's file that cannot be read or does not know a parameter.
    """
    return third_party.compiler_flags(
        KIND,
        "THIRD_PARTY_PATH_MANAGERS(X)",
        [f"X({other.name})" for other in third_parties],
        third_parties,
        built_in=SOURCES / "path_manager_parts/path_managers.h",
        functions=("manage",),
        zero_place=PARAMETERS_MAX - 1,
    )


def remove_left(bpffs: Path | None) -> bool:
    """Detach programs that an earlier service left in this network namespace, and say if there were any."""
    if not bpffs:
        return False
    directory = pin_directory(bpffs, netns_cookie())
    links = directory.glob(f"{PathManagerAttachments.link_prefix}*")
    pins = [pin for pin in (*links, *(directory / name for name in MAPS)) if pin.exists()]
    for pin in pins:
        pin.unlink()
    return bool(pins)
