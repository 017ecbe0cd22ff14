# SPDX-License-Identifier: Apache-2.0
"""The bpf datapath: keeps a path manager's program attached wherever a policy has a cgroup.

The programs claim the sessions of their cgroups and open subflows by themselves, while the service is
asleep or dead; the service gives them parameters and local addresses.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from pm.errors import KernelRefused, PmError
from pm.linux.bpf.classifier_maps import policy_id
from pm.linux.bpf.local_address_maps import LOCALS, local_entry, same_slot, slot_of, up_entries
from pm.linux.bpf.path_manager_maps import (
    SOURCE,
    PathManagerAttachments,
    PolicyEntries,
    ProgramKey,
    compiler_flags,
    opens_subflows,
    policy_entries,
    program_of,
    remote_entries,
    remove_left,
    route_entry,
    route_key,
    third_parties_of,
)
from pm.linux.bpf.third_party import blamed
from pm.log import get_logger
from pm.programs.attach import MatchedCgroup
from pm.programs.compiled import CompiledPrograms, read_sources

if TYPE_CHECKING:
    from pm.model import LocalAddress
    from pm.policies.model import Limits, Policy
    from pm.policies.remote_addresses import RemoteAddresses
    from pm.sessions.known_ways import Destination, Ways
    from pm.sessions.local_addresses import LocalAddresses

log = get_logger()


Slot = tuple[str, int]
"""A local address and its id; ("", 0) is free."""


class Rules(Protocol):
    """What the programs need of the configuration."""

    @property
    def policies(self) -> Sequence[Policy]: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def remote_addresses(self) -> RemoteAddresses: ...


class CompiledPathManagers(NamedTuple):
    """Programs that the kernel's verifier has accepted, by policy; ``sources`` is the digest of their C.

    ``remote_prefixes`` is what the programs judge announced addresses by,
    ``files`` are third parties' C files with the digest of each. ``complete``: there is one for every policy.
    """

    policies: Mapping[str, PolicyEntries]
    remote_prefixes: Mapping[bytes, bytes]
    sources: str
    files: Mapping[str, str]
    complete: bool

    def keys(self) -> dict[str, ProgramKey]:
        """The program of each policy, by the policy's name."""
        return {name: ProgramKey(name, e.program, self.sources) for name, e in self.policies.items()}


class PathManagerPrograms:
    """The programs of one service; made by ``open``. A reload calls ``prepare``, then ``activate``."""

    def __init__(
        self,
        programs: CompiledPrograms[PathManagerAttachments],
        attachments: PathManagerAttachments,
        slots: Sequence[Slot],
    ) -> None:
        """``attachments`` are those of ``programs``; ``slots`` what an earlier service and they wrote."""
        self._programs = programs
        self._attachments = attachments
        self._active = CompiledPathManagers({}, {}, "", {}, complete=True)
        self._slots = list(slots)
        self._ways: dict[Destination, Ways] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, config: Rules, *, log_file: Path, keep: Callable[[], bool], bpffs: Path | None
    ) -> AsyncIterator[Self]:
        """Compile and activate what the policies ask for; ``attach`` attaches it.

        The keywords are those of ``pm.programs.classifiers.Selection.open``. Raises SystemUnfit, PmError.
        """
        programs = CompiledPrograms(SOURCE, PathManagerAttachments, bpffs=bpffs, log_file=log_file)
        compiled, attachments = await _prepare(programs, config)
        try:
            slots = await asyncio.to_thread(attachments.read_locals)
            self = cls(programs, attachments, [slot_of(entry) for entry in slots])
            await asyncio.to_thread(attachments.forget_routes)
            await self.activate(compiled)
            yield self
        finally:
            await programs.close(keep=keep())

    async def prepare(self, config: Rules) -> CompiledPathManagers:
        """Compile and verify what the policies ask for. Nothing has changed where it raises PmError."""
        compiled, _ = await _prepare(self._programs, config)
        return compiled

    async def activate(self, compiled: CompiledPathManagers) -> None:
        """Put new parameters into effect, also for living sessions; ``attach`` changes the programs."""
        self._active = compiled
        entries = compiled.policies.values(), compiled.remote_prefixes
        await asyncio.to_thread(self._attachments.write, *entries)

    async def attach(self, cgroups: Mapping[int, MatchedCgroup]) -> None:
        """Attach and detach: ``cgroups`` are all cgroups (by id) that have a policy of their own."""
        keys = self._active.keys()
        wanted = {
            cgroup_id: keys[cgroup.policy]
            for cgroup_id, cgroup in cgroups.items()
            if cgroup.policy in keys  # else a reload will follow
        }
        await self._programs.attach(wanted, cgroups, keep=keys.values())

    # Local addresses

    def known_ids(self) -> dict[str, int]:
        """Address ids that the slots have, by address: an earlier service or a program gave them."""
        slots = (slot_of(entry) for entry in self._attachments.read_locals())
        return {ip: address_id for ip, address_id in slots if ip}

    def write_locals(self, local_addresses: LocalAddresses, interfaces: Mapping[int, int]) -> None:
        """Tell the programs what may carry new subflows.

        ``interfaces`` are ``interface_entries``. An address keeps its slot while it is away. What is there is
        for the programs to write, once they have looked (docs/decisions/0039).
        """
        self._attachments.write_up(up_entries(local_addresses.up, local_addresses.interfaces))
        # Sessions that are bound to a VRF are the service's.
        usable = {a.ip: a for a in local_addresses.usable if a.ip in local_addresses.ids and not a.vrf}
        excluded = {a.ip for a in local_addresses.there if a.up} - usable.keys()
        before = [ip for ip, _ in self._slots]
        with self._attachments.giving_slots():
            self._attachments.write_interfaces(interfaces)
            entries, looked = self._attachments.read_locals(), self._attachments.looked()
            slots = [slot_of(entry) for entry in entries]
            ids = dict(local_addresses.ids) | {ip: address_id for ip, address_id in slots if ip}
            self._slots = assign_slots(slots, list(usable.values()), ids)
            for slot, (ip, address_id) in enumerate(self._slots):
                same = slots[slot][0] == ip
                if not ip or (same and looked and ip not in usable and ip not in excluded):
                    continue
                entry = local_entry(ip, address_id, usable.get(ip), allowed=ip not in excluded)
                if entry != entries[slot] and not (looked and same_slot(entry, entries[slot])):
                    self._attachments.write_local(slot, entry)
        self._attachments.follow()
        if before != [ip for ip, _ in self._slots]:
            for destination in self._ways:
                self._write_ways(destination)
        if left := usable.keys() - dict(self._slots).keys():
            log.warning("local_addresses_beyond_the_programs", limit=LOCALS, left_to_service=sorted(left))

    def write_ways(self, destination: Destination, ways: Ways | None) -> None:
        """Tell the programs by which ways packets to a destination leave; None: not known any more."""
        if destination.device:
            return
        if ways is None:
            self._ways.pop(destination, None)
        else:
            self._ways[destination] = ways
        self._write_ways(destination)

    def _write_ways(self, destination: Destination) -> None:
        ways = self._ways.get(destination)
        key = route_key(destination.remote, destination.remote_port, destination.mark)
        entry = None if ways is None else route_entry([ip for ip, _ in self._slots], ways)
        try:
            self._attachments.write_route(key, entry)
        except KernelRefused as e:  # the program tries then, and learns by the failure
            log.warning("route_not_written", remote=destination.remote, error=str(e))

    # Queries

    @property
    def attachments(self) -> PathManagerAttachments:
        """The programs themselves."""
        return self._attachments

    @property
    def files(self) -> Mapping[str, str]:
        """Third parties' C files in force: path -> SHA-256, hex."""
        return self._active.files

    def program_of(self, token: int, policy: Policy) -> str | None:
        """The program that opens a session's subflows; None where the service has to open them.

        The service has to where no program claimed the session, or that of another policy than it has now.
        """
        entries = self._active.policies.get(policy.name)
        if entries is None or not opens_subflows(entries.program):
            return None
        return entries.program if self._attachments.claimed_by(token) == policy_id(policy.name) else None

    def open_all(self) -> bool:
        """Whether the programs open the subflows of every policy."""
        return self._active.complete

    def claimed(self) -> list[int]:
        """Tokens of all claims, also of sessions that ended while no program was on their cgroup."""
        return self._attachments.claimed()

    def release(self, token: int) -> None:
        """Delete the claim of a session that ended."""
        self._attachments.release(token)

    def counters(self) -> dict[str, int]:
        """``claimed``, ``claim_failed``, ``joins_refused`` since the maps were made."""
        return self._attachments.counters()


async def _prepare(
    programs: CompiledPrograms[PathManagerAttachments], config: Rules
) -> tuple[CompiledPathManagers, PathManagerAttachments]:
    third_parties = third_parties_of(config.policies)
    sources = await read_sources(compiler_flags, third_parties)
    compiled = CompiledPathManagers(
        {p.name: policy_entries(p, third_parties, config.limits) for p in config.policies},
        remote_entries(config.remote_addresses),
        sources.digest,
        sources.files,
        complete=all(p.path_manager.name == "none" or program_of(p) != "none" for p in config.policies),
    )
    try:
        return compiled, await programs.load(sources, compiled.keys().values())
    except PmError as e:
        raise blamed(e, third_parties) from e


def remove_left_programs(bpffs: Path | None) -> None:
    """Detach what a service of the bpf datapath left pinned: it would go on opening subflows."""
    if remove_left(bpffs):
        log.info("path_manager_programs_removed", reason="the netlink datapath is in force")


def assign_slots(slots: Sequence[Slot], usable: Sequence[LocalAddress], ids: Mapping[str, int]) -> list[Slot]:
    """Slots for the addresses of ``usable``, or for those of ``choose_fairly`` where there are more. Pure.

    An address that has a slot keeps it, unless another interface has none and there is no room. A new
    one gets a free slot, else that of an address that is gone. The subflows that a session has from the
    former address of a slot count for the new one there: the service opens what is missing.
    """
    assigned = [(ip, ids.get(ip, address_id)) for ip, address_id in slots]
    chosen = choose_fairly(usable, len(slots), {ip for ip, _ in slots})
    known, there = {ip for ip, _ in assigned}, {address.ip for address in usable}
    # Free slots first, then those of addresses that are gone, then those that others need more.
    kept = {address.ip for address in chosen}
    free = [i for i, (ip, _) in enumerate(assigned) if ip not in kept]
    free.sort(key=lambda i: (assigned[i][0] != "", assigned[i][0] in there, i))
    for ip, slot in zip((a.ip for a in chosen if a.ip not in known), free, strict=False):
        assigned[slot] = (ip, ids[ip])
    return assigned


def choose_fairly(
    usable: Sequence[LocalAddress], room: int, preferred: Collection[str]
) -> list[LocalAddress]:
    """At most ``room`` addresses, in their order. Pure.

    Each interface has its first address before any has its second, and that is one of the other
    family if there is one. Of an interface and family those ``preferred`` come first.
    """
    interfaces: dict[int, list[tuple[int, int]]] = {}
    of_family: Counter[tuple[int, int]] = Counter()
    for place in sorted(range(len(usable)), key=lambda i: (usable[i].ip not in preferred, i)):
        address = usable[place]
        number = of_family[address.ifindex, address.family]
        interfaces.setdefault(address.ifindex, []).append((number, place))
        of_family[address.ifindex, address.family] += 1
    turns = [
        (turn, place) for places in interfaces.values() for turn, (_, place) in enumerate(sorted(places))
    ]
    return [usable[i] for i in sorted(place for _, place in sorted(turns)[:room])]
