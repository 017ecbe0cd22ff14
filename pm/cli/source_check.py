# SPDX-License-Identifier: Apache-2.0
"""What ``mptcp-pm check`` can find out about the C files that a configuration names."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

from pm.config.model import Config, Datapath
from pm.errors import ConfigError, PmError, Problem, SystemUnfit
from pm.linux.bpf import path_manager_maps, tcp_option_maps, tcp_option_parameters
from pm.linux.bpf.objects import SOURCES, NoCompiler, compile_object
from pm.linux.bpf.third_party import ThirdParty, blamed
from pm.linux.host.probe import has, probe
from pm.path_managers.program import Program
from pm.programs.path_manager_programs import PathManagerPrograms
from pm.programs.tcp_option_programs import TcpOptionPrograms
from pm.reloader import NEEDS_PROGRAMS


def check_sources(config: Config, path: str) -> list[str]:
    """Compile and verify third parties' C files; nothing is attached or pinned.

    Returns what was not checked, in words. Raises ConfigError for what is wrong.
    """
    logs = Path(mkdtemp(prefix="mptcp-pm-check-"))
    try:
        return asyncio.run(_check(config, path, logs))
    except ConfigError:
        raise
    except PmError as e:
        raise ConfigError([Problem(path, 0, "policies", str(e))]) from e
    finally:
        with suppress(OSError):  # it has a log, which the error names
            logs.rmdir()


async def _check(config: Config, path: str, logs: Path) -> list[str]:
    left_out = []
    if plugins := tcp_option_parameters.third_parties_of(config.policies):
        # A missing file or an unknown parameter is wrong wherever it is looked for.
        flags = tcp_option_maps.compiler_flags(plugins)
        try:
            await _verify_options(config, logs / "options.log")
        except SystemUnfit as e:
            left_out.append(
                await _compile(SOURCES / "options.c", logs / "options.log", flags, plugins, str(e))
            )
    if programs := [p for p in config.policies if p.path_manager.name == Program.name]:
        if config.datapath is Datapath.NETLINK:
            raise ConfigError(
                [Problem(path, 0, f"policies.{p.name}.path_manager", NEEDS_PROGRAMS) for p in programs]
            )
        others = path_manager_maps.third_parties_of(config.policies)
        flags = path_manager_maps.compiler_flags(others)
        try:
            await _verify_programs(config, logs / "path_managers.log")
        except SystemUnfit as e:
            left_out.append(
                await _compile(path_manager_maps.SOURCE, logs / "path_managers.log", flags, others, str(e))
            )
    return left_out


async def _compile(
    source: Path, log_file: Path, flags: Sequence[str], others: Sequence[ThirdParty], why: str
) -> str:
    """Compile only, which needs no privileges and no particular kernel; what was not done, in words."""
    files = ", ".join(other.source for other in others)
    try:
        await compile_object(source, log_file=log_file, cflags=flags, create_maps=False)
    except NoCompiler as e:
        return f"{files}: not compiled: {e}"
    except PmError as e:
        raise blamed(e, others) from e
    return f"{files}: compiled, not verified by the kernel: {why}"


async def _verify_options(config: Config, log_file: Path) -> None:
    async with TcpOptionPrograms.open(
        config.policies,
        config.tcp_options,
        log_file=log_file,
        keep=lambda: False,
        bpffs=None,
        counts_segments=False,
    ):
        pass


async def _verify_programs(config: Config, log_file: Path) -> None:
    if not has(await asyncio.to_thread(probe), "bpf_datapath"):
        raise SystemUnfit("that needs the patched kernel", "boot it (kernel/README.md)")
    async with PathManagerPrograms.open(config, log_file=log_file, keep=lambda: False, bpffs=None):
        pass
