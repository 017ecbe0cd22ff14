# SPDX-License-Identifier: GPL-2.0-only
"""The bpf datapath: keeps a path manager's program attached wherever a policy has a cgroup.

The programs claim the sessions of their cgroups and open subflows by themselves, with the service
asleep or dead; it feeds them parameters and local addresses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pm.errors import PmError
from pm.linux.bpf.classifier_maps import policy_id
from pm.linux.bpf.objects import compile_object
from pm.linux.bpf.path_manager_maps import (
    LOCALS,
    SOURCE,
    PathPrograms,
    PolicyEntries,
    ProgramName,
    compiler_flags,
    local_entry,
    opens_subflows,
    policy_entries,
    remove_left,
    third_parties,
)
from pm.linux.bpf.third_party import digest
from pm.linux.host.mounts import find_mount
from pm.log import get_logger
from pm.programs.attach import Place, settle

if TYPE_CHECKING:
    from pm.policies.model import Policy
    from pm.sessions.local_addresses import LocalAddresses

log = get_logger()


class Prepared(NamedTuple):
    """Programs that the kernel's verifier has agreed to; ``compiled`` counts compilations."""

    policies: Mapping[str, PolicyEntries]
    compiled: int

    def program_names(self) -> dict[str, str]:
        """By policy."""
        return {name: str(ProgramName(name, e.program, self.compiled)) for name, e in self.policies.items()}


class PathManagerPrograms:
    """The programs of one service: ``prepare``, ``bring_in_force`` and ``settle`` in this order."""

    _programs: PathPrograms

    def __init__(self, *, log_file: Path, keep: Callable[[], bool], bpffs: Path | None = None) -> None:
        """As for ``pm.programs.classifiers.Selection``."""
        self._log_file = log_file
        self._keep = keep
        self._bpffs = bpffs or find_mount("bpf")
        self._sources = ""
        self._compiled = 0
        self._in_force = Prepared({}, 0)
        self._slots: list[tuple[str, int]] = []
        self._written: dict[int, bytes] = {}

    async def prepare(self, policies: Sequence[Policy]) -> Prepared:
        """Compile and verify what the policies ask for. Nothing changes where it raises PmError."""
        others = third_parties(policies)
        flags = compiler_flags(others)
        sources = digest(flags, others)
        entries = {policy.name: policy_entries(policy, others) for policy in policies}
        program = None
        if sources != self._sources:
            program = await compile_object(SOURCE, log_file=self._log_file, cflags=flags)
        compiled = self._compiled + bool(program)
        prepared = Prepared(entries, compiled)
        if program and not self._compiled:
            self._programs = await asyncio.to_thread(
                PathPrograms.open, program, bpffs=self._bpffs, log_file=self._log_file
            )
            self._slots = self._programs.read_locals()
        try:
            await asyncio.to_thread(self._programs.change, program, prepared.program_names().values())
        except PmError:
            if not self._compiled:
                self._programs.close(keep=True)
            raise
        self._sources, self._compiled = sources, compiled
        return prepared

    async def bring_in_force(self, prepared: Prepared) -> None:
        """New parameters count at once, also for living sessions; programs change with ``settle``."""
        self._in_force = prepared
        await asyncio.to_thread(self._programs.write, prepared.policies.values())

    async def settle(self, places: Mapping[int, Place]) -> None:
        """Attach and detach: ``places`` are all cgroups (by id) that have a policy of their own."""
        names = self._in_force.program_names()
        wanted = {
            cgroup_id: names[place.policy]
            for cgroup_id, place in places.items()
            if place.policy in names  # a reload is on the way
        }
        await settle(self._programs, wanted, places, keep=names.values())

    async def close(self) -> None:
        await asyncio.to_thread(self._programs.close, keep=self._keep())

    # Local addresses

    def known_ids(self) -> dict[str, int]:
        """Address ids that an earlier service gave, by address."""
        return {ip: address_id for ip, address_id in self._slots if ip}

    def write_locals(self, local_addresses: LocalAddresses) -> None:
        """Tell the programs what may carry new subflows. An address keeps its slot while it is away."""
        usable = {a.ip: a for a in local_addresses.usable if a.ip in local_addresses.ids}
        self._slots = assign_slots(self._slots, list(usable), local_addresses.ids)
        for slot, (ip, address_id) in enumerate(self._slots):
            if ip:
                entry = local_entry(ip, address_id, usable.get(ip))
                if self._written.get(slot) != entry:
                    self._programs.write_local(slot, entry)
                    self._written[slot] = entry
        if left := usable.keys() - dict(self._slots).keys():
            log.warning("local_addresses_beyond_the_programs", limit=LOCALS, left_to_service=sorted(left))

    # Questions

    def program_of(self, token: int, policy: Policy) -> str | None:
        """The program that opens a session's subflows; None where the service has to.

        That is where it was not claimed, or by the program of another policy than it has now.
        """
        entries = self._in_force.policies.get(policy.name)
        if entries is None or not opens_subflows(entries.program):
            return None
        return entries.program if self._programs.claimed_by(token) == policy_id(policy.name) else None

    def claimed(self) -> list[int]:
        """Tokens of all claims, also of sessions that ended while no program was on their cgroup."""
        return self._programs.claimed()

    def release(self, token: int) -> None:
        self._programs.release(token)

    def counters(self) -> dict[str, int]:
        """``claimed``, ``claim_failed``, ``joins_refused`` since the maps were made."""
        return self._programs.counters()


def remove_left_programs() -> None:
    """What a service of the bpf datapath left pinned would go on opening subflows."""
    if remove_left(find_mount("bpf")):
        log.info("path_manager_programs_removed", reason="the netlink datapath is in force")


def assign_slots(
    slots: Sequence[tuple[str, int]], usable: Sequence[str], ids: Mapping[str, int]
) -> list[tuple[str, int]]:
    """(address, id) by slot: those known keep theirs, new ones get a free one, or that of one gone. Pure."""
    assigned = [(ip, ids.get(ip, address_id)) for ip, address_id in slots]
    known = {ip for ip, _ in assigned}
    for ip in usable:
        if ip in known:
            continue
        free = next((i for i, (old, _) in enumerate(assigned) if not old), None)
        if free is None:
            free = next((i for i, (old, _) in enumerate(assigned) if old not in usable), None)
        if free is None:
            break
        assigned[free] = (ip, ids[ip])
    return assigned
