# SPDX-License-Identifier: GPL-2.0-only
"""TCP options per cgroup: keeps an option program attached wherever a policy with options has a cgroup.

Where no policy has options nothing is compiled, loaded or attached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pm.errors import PmError
from pm.linux.bpf.objects import SOURCES, BpfObject, compile_object
from pm.linux.bpf.tcp_option_layouts import BUILT_IN, SLOTS, OptionEvent, OptionRecord
from pm.linux.bpf.tcp_option_maps import OptionPrograms, ProgramName, compiler_flags, left_pinned, read_kernel
from pm.linux.bpf.tcp_option_parameters import (
    PolicyEntries,
    has_options,
    policy_entries,
    third_parties,
    unavailable,
)
from pm.linux.bpf.third_party import ThirdParty, digest
from pm.linux.host.mounts import find_mount
from pm.log import get_logger
from pm.programs.attach import Place, settle

if TYPE_CHECKING:
    from pm.policies.model import Policy
    from pm.policies.tcp_options import TcpOptions

log = get_logger()


class Prepared(NamedTuple):
    """Options that the kernel's verifier has agreed to; ``compiled`` counts compilations."""

    policies: Mapping[str, PolicyEntries]
    plugins: tuple[str, ...]
    compiled: int

    def program_names(self) -> dict[str, str]:
        """By policy."""
        return {name: str(ProgramName(name, e.plugins, self.compiled)) for name, e in self.policies.items()}


class PluginReport(NamedTuple):
    """What happened to one plugin's option on one subflow; ``applied`` is in the plugin's own unit."""

    plugin: str
    sent: bool
    received: bool
    applied: int | None
    refused: str | None


NONE = Prepared({}, BUILT_IN, 0)


class Options:
    """The option programs of one service. ``prepare``, ``bring_in_force`` and ``settle`` in this order."""

    def __init__(
        self,
        *,
        log_file: Path,
        keep: Callable[[], bool] = lambda: False,
        bpffs: Path | None = None,
        counts_segments: bool = False,
    ) -> None:
        """As for ``Selection``; ``counts_segments``: the kernel has TCP_BPF_DELACK_SEGS."""
        self._log_file = log_file
        self._keep = keep
        self._bpffs = bpffs or find_mount("bpf")
        self._counts_segments = counts_segments
        self._programs: OptionPrograms | None = None
        self._sources = ""
        self._compiled = 0
        self._in_force = NONE

    async def prepare(self, policies: Sequence[Policy], agreement: TcpOptions) -> Prepared:
        """Compile and verify what the policies ask for. Nothing changes where it raises PmError."""
        chosen = [policy for policy in policies if has_options(policy.options)]
        if not chosen and not self._programs and not left_pinned(self._bpffs):
            return NONE
        kernel = read_kernel(counts_segments=self._counts_segments)
        others = third_parties(chosen)
        entries = {p.name: policy_entries(p, agreement, others, kernel) for p in chosen}
        for policy in chosen:
            if missing := unavailable(policy, kernel):
                log.warning(
                    "congestion_control_unavailable",
                    policy=policy.name,
                    missing=missing,
                    available=sorted(kernel.congestion_controls),
                )
        await self._compile(others, entries)
        return Prepared(entries, (*BUILT_IN, *(other.name for other in others)), self._compiled)

    async def bring_in_force(self, prepared: Prepared) -> None:
        """New parameters count at once, also for living sockets; programs change with ``settle``."""
        self._in_force = prepared
        if self._programs:
            await asyncio.to_thread(self._programs.write, prepared.policies.values())

    async def settle(self, places: Mapping[int, Place]) -> None:
        """Attach and detach: ``places`` are all cgroups (by id) that have a policy of their own."""
        programs = self._programs
        if programs is None:
            return
        wanted = wanted_programs(places, self._in_force)
        await settle(programs, wanted, places, keep=self._in_force.program_names().values())

    async def close(self) -> None:
        if self._programs:
            await asyncio.to_thread(self._programs.close, keep=self._keep())
            self._programs = None

    # Questions

    def counters(self) -> dict[str, dict[str, int]]:
        """Plugin -> event -> how often, since the maps were made; empty while no policy has options."""
        return self._programs.counters(self._in_force.plugins) if self._programs else {}

    async def reports(self, ports: Collection[tuple[int, int]]) -> dict[int, list[PluginReport]]:
        """Of the sockets with one of these (local, remote) ports, by cookie: what there is to tell."""
        if not self._programs:
            return {}
        records = await asyncio.to_thread(self._programs.records, ports)
        return {cookie: plugin_reports(record, self._in_force.plugins) for cookie, record in records.items()}

    async def _compile(self, others: Sequence[ThirdParty], entries: Mapping[str, PolicyEntries]) -> None:
        flags = compiler_flags(others)
        sources = digest(flags, others)
        program: BpfObject | None = None
        try:
            if self._programs is None or sources != self._sources:
                program = await compile_object(SOURCES / "options.c", log_file=self._log_file, cflags=flags)
            await asyncio.to_thread(self._load, program, entries)
        except PmError as e:
            if not others:
                raise
            files = ", ".join(other.source for other in others)
            raise type(e)(e.message, f"{e.remedy}; `options.plugins` adds {files} to it") from e
        self._sources = sources

    def _load(self, program: BpfObject | None, entries: Mapping[str, PolicyEntries]) -> None:
        programs = self._programs
        if programs is None:
            assert program
            programs = OptionPrograms.open(program, bpffs=self._bpffs, log_file=self._log_file)
        compiled = self._compiled + bool(program)
        try:
            programs.change(program, (str(ProgramName(p, e.plugins, compiled)) for p, e in entries.items()))
        except PmError:
            if self._programs is None:
                programs.close(keep=bool(programs.attached))  # what an earlier service left
            raise
        self._programs, self._compiled = programs, compiled


def wanted_programs(places: Mapping[int, Place], options: Prepared) -> dict[int, str]:
    """Cgroup id -> program. Pure.

    The innermost policy has a socket: one without options, inside a cgroup of one that has some, gets a
    program that only says so.
    """
    with_options = [p.path.rstrip("/") + "/" for p in places.values() if p.policy in options.policies]
    wanted: dict[int, str] = {}
    for cgroup_id, place in places.items():
        if entries := options.policies.get(place.policy):
            plugins = entries.plugins
        elif any(place.path.startswith(outer) for outer in with_options):
            plugins = 0
        else:
            continue
        wanted[cgroup_id] = str(ProgramName(place.policy, plugins, options.compiled))
    return wanted


def plugin_reports(record: OptionRecord, plugins: Sequence[str]) -> list[PluginReport]:
    """Pure; ``plugins`` are names by slot."""
    reports = []
    for slot, name in enumerate(plugins[:SLOTS]):
        bit = 1 << slot
        if (record.sent | record.received | record.applied | record.refused) & bit:
            reports.append(
                PluginReport(
                    plugin=name,
                    sent=bool(record.sent & bit),
                    received=bool(record.received & bit),
                    applied=record.value[slot] if record.applied & bit else None,
                    refused=OptionEvent(record.reason[slot]).name.lower() if record.refused & bit else None,
                )
            )
    return reports
