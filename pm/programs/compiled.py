# SPDX-License-Identifier: Apache-2.0
"""What the two kinds of programs beside the classifiers share: compiled when needed, attached, closed.

The kinds are ``path_manager_programs`` and ``tcp_option_programs``: each knows its keys and its maps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pm.errors import PmError
from pm.linux.bpf.attachments import Attachments
from pm.linux.bpf.objects import BpfObject
from pm.linux.bpf.precompiled import obtain_object
from pm.linux.bpf.third_party import ThirdParty, digest, file_digests
from pm.log_budget import get_limited_logger
from pm.programs.attach import MatchedCgroup, attach

limited = get_limited_logger()

Kind = TypeVar("Kind", bound=Attachments[Any])


class Sources(NamedTuple):
    """What the compiler gets besides the C file: its flags, and a digest of them and third parties' files."""

    flags: Sequence[str]
    digest: str
    files: Mapping[str, str]
    """Of third parties: path -> SHA-256 of the content, hex."""


async def read_sources(
    compiler_flags: Callable[[Sequence[ThirdParty]], Sequence[str]], third_parties: Sequence[ThirdParty]
) -> Sources:
    """Raises PmError for a third party's file that cannot be read or does not know a parameter."""

    def read() -> Sources:
        flags = compiler_flags(third_parties)
        return Sources(flags, digest(flags, third_parties), file_digests(third_parties))

    return await asyncio.to_thread(read)


class CompiledPrograms(Generic[Kind]):
    """Programs of one kind, from one C file."""

    def __init__(self, source: Path, kind: type[Kind], *, bpffs: Path | None, log_file: Path) -> None:
        """``log_file`` gets the compiler's or verifier's log when they refuse a program."""
        self._source = source
        self._kind = kind
        self._bpffs = bpffs
        self._log_file = log_file
        self._object: BpfObject | None = None
        self._digest = ""
        self.attachments: Kind | None = None
        """None until the first programs are loaded."""

    async def load(self, sources: Sources, keys: Iterable[Hashable]) -> Kind:
        """Load all programs of ``keys``, of another object if ``sources`` have changed.

        Nothing has changed where it raises: SystemUnfit where BCC, a privilege or a feature of the kernel
        is missing or the verifier refuses a program, PmError for C that does not compile.
        """
        program = self._object
        if program is None or sources.digest != self._digest:
            program = await obtain_object(self._source, log_file=self._log_file, cflags=sources.flags)
        self.attachments = await asyncio.to_thread(self._load, program, keys)
        self._object, self._digest = program, sources.digest
        return self.attachments

    async def attach(
        self,
        wanted: Mapping[int, Hashable],
        cgroups: Mapping[int, MatchedCgroup],
        *,
        keep: Collection[Hashable],
    ) -> None:
        """Make what is attached equal to ``wanted`` (cgroup id -> key); a refusal is logged.

        ``cgroups`` are all cgroups, by id, that a policy's glob matches. The programs to ``keep`` stay
        loaded: the next cgroup must not wait for the kernel's verifier.
        """
        attachments = self.attachments
        if attachments is None:
            return
        directories = {cgroup_id: cgroup.directory for cgroup_id, cgroup in cgroups.items()}
        outcomes = await attach(attachments, wanted, {*wanted, *attachments.attached}, directories)
        if outcomes:
            attachments.unload_unused(keep)
        for action, refused in outcomes:
            if refused:
                cgroup = cgroups.get(action.cgroup_id)
                limited.warning(
                    "program_not_attached",
                    about=cgroup and cgroup.path,
                    program=attachments.entry,
                    cgroup=cgroup and cgroup.path,
                    error=str(refused),
                )

    async def close(self, *, keep: bool) -> None:
        """Detach everything; with ``keep``, leave it for the next start."""
        if self.attachments:
            await asyncio.to_thread(self.attachments.close, keep=keep)
            self.attachments = None

    def _load(self, program: BpfObject, keys: Iterable[Hashable]) -> Kind:
        attachments = self.attachments or self._kind.open(program, bpffs=self._bpffs, log_file=self._log_file)
        try:
            attachments.change(program, keys)
        except PmError:
            if self.attachments is None:
                attachments.close(keep=bool(attachments.attached))  # what an earlier service left
            raise
        return attachments
