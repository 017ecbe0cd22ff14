# SPDX-License-Identifier: GPL-2.0-only
"""What ``mptcp-pm check`` can find out about the C files that a configuration names."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from tempfile import gettempdir

from pm.config.model import Config, Datapath
from pm.datapath import has
from pm.errors import ConfigError, PmError, Problem, SystemUnfit
from pm.linux.bpf import path_manager_maps, tcp_option_maps, tcp_option_parameters
from pm.linux.bpf.objects import compile_object
from pm.linux.bpf.third_party import blamed
from pm.linux.host.probe import SystemCheck, probe
from pm.path_managers.program import Program
from pm.programs.path_manager_programs import PathManagerPrograms
from pm.programs.tcp_option_programs import TcpOptionPrograms
from pm.reloader import NEEDS_PROGRAMS

LOG = Path(gettempdir())


def check_sources(config: Config, path: str) -> list[str]:
    """Compile and verify third parties' C files; nothing is attached or pinned.

    Returns what was not checked, in words. Raises ConfigError for what is wrong.
    """
    try:
        return asyncio.run(_check(config, path))
    except ConfigError:
        raise
    except PmError as e:
        raise ConfigError([Problem(path, 0, "policies", str(e))]) from e


async def _check(config: Config, path: str) -> list[str]:
    left_out = []
    if any(policy.options.plugins for policy in config.policies):
        # What is read here is wrong wherever it is checked: a missing file, an unknown parameter.
        tcp_option_maps.compiler_flags(tcp_option_parameters.third_parties_of(config.policies))
        try:
            await _verify_options(config)
        except SystemUnfit as e:
            left_out.append(f"options.plugins: not compiled ({e})")
    if programs := [p for p in config.policies if p.path_manager.name == Program.name]:
        if config.datapath is Datapath.NETLINK:
            raise ConfigError(
                [Problem(path, 0, f"policies.{p.name}.path_manager", NEEDS_PROGRAMS) for p in programs]
            )
        path_manager_maps.compiler_flags(path_manager_maps.third_parties_of(config.policies))
        try:
            left_out += await _verify_programs(config, probe())
        except SystemUnfit as e:
            left_out.append(f"path_manager.program: not compiled ({e})")
    return left_out


async def _verify_options(config: Config) -> None:
    async with TcpOptionPrograms.open(
        config.policies,
        config.tcp_options,
        log_file=LOG / "mptcp-pm-check-options.log",
        keep=lambda: False,
        bpffs=None,
        counts_segments=False,
    ):
        pass


async def _verify_programs(config: Config, checks: Sequence[SystemCheck]) -> list[str]:
    log_file = LOG / "mptcp-pm-check-path-managers.log"
    if has(checks, "bpf_datapath"):
        async with PathManagerPrograms.open(
            config.policies, log_file=log_file, keep=lambda: False, bpffs=None
        ):
            return []
    third_parties = path_manager_maps.third_parties_of(config.policies)
    flags = path_manager_maps.compiler_flags(third_parties)
    try:
        await compile_object(path_manager_maps.SOURCE, log_file=log_file, cflags=flags)
    except PmError as e:
        raise blamed(e, third_parties) from e
    return ["path_manager.program: compiled, not verified: that needs the patched kernel (kernel/README.md)"]
