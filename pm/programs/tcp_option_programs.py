# SPDX-License-Identifier: Apache-2.0
"""TCP options per cgroup: keeps an option program attached wherever a policy with options has a cgroup.

Where no policy has options nothing is compiled, loaded or attached.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from pm.errors import PmError
from pm.linux.bpf.objects import SOURCES
from pm.linux.bpf.tcp_option_layouts import BUILT_IN, SLOTS, OptionEvent, OptionRecord
from pm.linux.bpf.tcp_option_maps import (
    ProgramKey,
    TcpOptionAttachments,
    compiler_flags,
    left_pinned,
    read_kernel,
)
from pm.linux.bpf.tcp_option_parameters import (
    PolicyEntries,
    has_options,
    policy_entries,
    third_parties_of,
    unavailable,
)
from pm.linux.bpf.third_party import blamed
from pm.log import get_logger
from pm.programs.attach import MatchedCgroup
from pm.programs.compiled import CompiledPrograms, read_sources

if TYPE_CHECKING:
    from pm.policies.model import Policy
    from pm.policies.tcp_options import TcpOptions

log = get_logger()


class CompiledOptions(NamedTuple):
    """Programs that the kernel's verifier has accepted, by policy; ``sources`` is the digest of their C.

    ``plugins`` are the names of all options, by slot, ``files`` the third
    parties' C files with the digest of each.
    """

    policies: Mapping[str, PolicyEntries]
    plugins: tuple[str, ...]
    sources: str
    files: Mapping[str, str]

    def keys(self) -> dict[str, ProgramKey]:
        """The program of each policy that has options, by the policy's name."""
        return {name: ProgramKey(name, e.plugins, self.sources) for name, e in self.policies.items()}


class PluginReport(NamedTuple):
    """What happened to one plugin's option on one subflow; ``applied`` is in the plugin's own unit."""

    plugin: str
    sent: bool
    received: bool
    applied: int | None
    refused: str | None


NO_OPTIONS = CompiledOptions({}, BUILT_IN, "", {})


class TcpOptionPrograms:
    """The option programs of one service; made by ``open``. A reload calls ``prepare``, then ``activate``."""

    def __init__(
        self, programs: CompiledPrograms[TcpOptionAttachments], *, bpffs: Path | None, counts_segments: bool
    ) -> None:
        """See ``open``."""
        self._programs = programs
        self._bpffs = bpffs
        self._counts_segments = counts_segments
        self._active = NO_OPTIONS

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        policies: Sequence[Policy],
        tcp_options: TcpOptions,
        *,
        log_file: Path,
        keep: Callable[[], bool],
        bpffs: Path | None,
        counts_segments: bool,
    ) -> AsyncIterator[Self]:
        """Compile and activate what the policies ask for; ``attach`` attaches it.

        ``counts_segments``: the kernel has TCP_BPF_DELACK_SEGS. The other keywords are those of
        ``pm.programs.classifiers.Selection.open``. Raises SystemUnfit, PmError.
        """
        programs = CompiledPrograms(
            SOURCES / "options.c", TcpOptionAttachments, bpffs=bpffs, log_file=log_file
        )
        self = cls(programs, bpffs=bpffs, counts_segments=counts_segments)
        try:
            await self.activate(await self.prepare(policies, tcp_options))
            yield self
        finally:
            await programs.close(keep=keep())

    async def prepare(self, policies: Sequence[Policy], tcp_options: TcpOptions) -> CompiledOptions:
        """Compile and verify what the policies ask for. Nothing has changed where it raises PmError."""
        policies = [policy for policy in policies if has_options(policy.options)]
        in_use = policies or self._programs.attachments
        if not in_use and not await asyncio.to_thread(left_pinned, self._bpffs):
            return NO_OPTIONS
        third_parties = third_parties_of(policies)
        kernel = await asyncio.to_thread(read_kernel, counts_segments=self._counts_segments)
        for policy in policies:
            if missing := unavailable(policy, kernel):
                log.warning(
                    "congestion_control_unavailable",
                    policy=policy.name,
                    missing=missing,
                    available=sorted(kernel.congestion_controls),
                )
        sources = await read_sources(compiler_flags, third_parties)
        compiled = CompiledOptions(
            {policy.name: policy_entries(policy, tcp_options, third_parties, kernel) for policy in policies},
            (*BUILT_IN, *(other.name for other in third_parties)),
            sources.digest,
            sources.files,
        )
        try:
            await self._programs.load(sources, compiled.keys().values())
        except PmError as e:
            raise blamed(e, third_parties) from e
        return compiled

    async def activate(self, compiled: CompiledOptions) -> None:
        """Put new parameters into effect, also for living sockets; ``attach`` changes the programs."""
        self._active = compiled
        if self._programs.attachments:
            await asyncio.to_thread(self._programs.attachments.write, compiled.policies.values())

    async def attach(self, cgroups: Mapping[int, MatchedCgroup]) -> None:
        """Attach and detach: ``cgroups`` are all cgroups (by id) that have a policy of their own."""
        wanted = wanted_programs(cgroups, self._active)
        await self._programs.attach(wanted, cgroups, keep=self._active.keys().values())

    # Queries

    @property
    def attachments(self) -> TcpOptionAttachments | None:
        """The programs themselves; None while no policy has options."""
        return self._programs.attachments

    @property
    def files(self) -> Mapping[str, str]:
        """Third parties' C files in force: path -> SHA-256, hex."""
        return self._active.files

    def counters(self) -> dict[str, dict[str, int]]:
        """Plugin -> event -> how often, since the maps were made; empty while no policy has options."""
        attachments = self._programs.attachments
        return attachments.counters(self._active.plugins) if attachments else {}

    async def reports(self, ports: Collection[tuple[int, int]]) -> dict[int, list[PluginReport]]:
        """Option reports by socket cookie, for the sockets whose (local, remote) ports are given."""
        if not self._programs.attachments:
            return {}
        records = await asyncio.to_thread(self._programs.attachments.records, ports)
        return {cookie: plugin_reports(record, self._active.plugins) for cookie, record in records.items()}


def wanted_programs(cgroups: Mapping[int, MatchedCgroup], options: CompiledOptions) -> dict[int, ProgramKey]:
    """Cgroup id -> program. Pure.

    A socket belongs to the innermost policy: one without options, inside a cgroup of a policy that has
    some, gets a program that only says so.
    """
    with_options = [c.path.rstrip("/") + "/" for c in cgroups.values() if c.policy in options.policies]
    wanted: dict[int, ProgramKey] = {}
    for cgroup_id, cgroup in cgroups.items():
        if entries := options.policies.get(cgroup.policy):
            plugins = entries.plugins
        elif any(cgroup.path.startswith(outer) for outer in with_options):
            plugins = 0
        else:
            continue
        wanted[cgroup_id] = ProgramKey(cgroup.policy, plugins, options.sources)
    return wanted


def plugin_reports(record: OptionRecord, plugins: Sequence[str]) -> list[PluginReport]:
    """What a record tells about each plugin; ``plugins`` are names by slot. Pure."""
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
