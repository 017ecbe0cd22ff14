# SPDX-License-Identifier: Apache-2.0
"""Loads the configuration again: on SIGHUP, on POST /v1/reload and when the file changes.

A bad file changes nothing: the last good configuration stays in force.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pm.api.control import LastReload, ServiceState
from pm.api.events import Broadcast
from pm.config.load import Loaded, load_in_child
from pm.config.model import Config, Datapath
from pm.errors import ConfigError, PmError, Problem, of_system
from pm.linux.host.file_watch import Signature, file_changes, first_change, signatures
from pm.linux.host.notify import notify
from pm.linux.host.sysctl import PathManagerSysctl
from pm.linux.netlink.addresses import AddressMonitor
from pm.linux.netlink.source_routing import SourceRouting
from pm.log import get_logger
from pm.path_managers.program import Program
from pm.policies.policy_table import compile_policies
from pm.programs.path_manager_programs import CompiledPathManagers, PathManagerPrograms
from pm.programs.tcp_option_programs import CompiledOptions, TcpOptionPrograms
from pm.programs.whole_namespace import AnySelection
from pm.records.recorder import Recorder
from pm.selection import check_policies
from pm.sessions.assembly import Sessions
from pm.upkeep import Upkeep

NEEDS_PROGRAMS = "`program` needs the bpf datapath: boot the patched kernel (kernel/README.md)"

WARNINGS_MAX = 20  # lines in the log

_log = get_logger()


def check_programs(config: Config, state: ServiceState) -> None:
    """Raises ConfigError for a path manager that needs the bpf datapath where there is none."""
    problems = [
        Problem(str(state.config_path), 0, f"policies.{policy.name}.path_manager", NEEDS_PROGRAMS)
        for policy in config.policies
        if policy.path_manager.name == Program.name and state.datapath != Datapath.BPF
    ]
    if problems:
        raise ConfigError(problems)


def log_warnings(loaded: Loaded) -> None:
    """What is most likely a mistake; `mptcp-pm check` prints all of it."""
    for warning in loaded.warnings[:WARNINGS_MAX]:
        _log.warning("config_warning", warning=str(warning))
    if (left := len(loaded.warnings) - WARNINGS_MAX) > 0:
        _log.warning("config_warnings_left_out", count=left, remedy="run `mptcp-pm check FILE`")


def _refused(error: PmError | OSError, path: str) -> ConfigError:
    """Why a configuration is not taken; OSError: no descriptor, memory or task left, say."""
    if isinstance(error, ConfigError):
        return ConfigError(error.problems)
    reason = of_system(error) if isinstance(error, OSError) else error
    return ConfigError((Problem(path, 0, "", str(reason)),))


async def _load_text(text: str) -> Loaded:
    """``load_in_child`` of a text. Raises what it raises, with another file's name in it."""

    def write() -> str:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as file:
            try:
                file.write(text)
                file.flush()
            except OSError:  # the disk is full
                os.unlink(file.name)
                raise
        return file.name

    name = await asyncio.to_thread(write)
    try:
        return await load_in_child(name)
    finally:
        await asyncio.to_thread(os.unlink, name)


def sources_of(config: Config) -> set[Path]:
    """The C files of third parties that a configuration names."""
    plugins = {Path(plugin.source) for policy in config.policies for plugin in policy.options.plugins}
    chosen = (policy.path_manager.parameters for policy in config.policies)
    return plugins | {Path(p.source) for p in chosen if isinstance(p, Program.Parameters)}


class Reloader:
    def __init__(
        self,
        *,
        state: ServiceState,
        addresses: AddressMonitor,
        source_routing: SourceRouting,
        sessions: Sessions,
        sysctl: PathManagerSysctl | None,
        selection: AnySelection,
        options: TcpOptionPrograms,
        programs: PathManagerPrograms | None,
        recorder: Recorder,
        choose_scheduling: Callable[[], None],
        broadcast: Broadcast,
        upkeep: Upkeep,
        seen: Signature,
        seen_sources: Mapping[Path, Signature],
    ) -> None:
        """``seen`` is the signature of the file from before it was loaded, ``seen_sources`` those of the C
        files that it names; ``sysctl`` is None where the programs claim sessions.
        """
        self._state = state
        self._addresses = addresses
        self._source_routing = source_routing
        self._sessions = sessions
        self._sysctl = sysctl
        self._selection = selection
        self._options = options
        self._programs = programs
        self._recorder = recorder
        self._choose_scheduling = choose_scheduling
        self._broadcast = broadcast
        self._upkeep = upkeep
        self._seen = seen
        self._reloading = asyncio.Lock()
        self._begun = 0
        self._failure: PmError | None = None
        """Why the last reload failed."""
        self._sources = dict(seen_sources)
        self._watching: asyncio.Timeout | None = None

    async def reload(self) -> None:
        """Load the file again and bring it in force. Raises ConfigError: then nothing changed."""
        state = self._state
        path = str(state.config_path)
        asked = self._begun
        async with self._reloading:
            if self._begun > asked:  # one that began after this was asked is an answer to it
                if self._failure:
                    raise self._failure
                return
            self._begun += 1
            self._failure = None
            notify("RELOADING=1")
            try:
                loaded = await load_in_child(path)
                self._sources = await asyncio.to_thread(signatures, sources_of(loaded.config))
                if self._watching:
                    self._watching.reschedule(0.0)  # it may be others now
                self._check(loaded.config)
                programs, options = await self._prepare_programs(loaded.config)
                if self._sysctl and loaded.config.policies:
                    await asyncio.to_thread(self._sysctl.hold)
                await self._activate(loaded, programs, options)
            except (PmError, OSError) as e:
                self._failure = _refused(e, path)
                problems = self._failure.problems
                state.last_reload = LastReload(time=time.time(), ok=False, problems=problems)
                state.counters["reloads_failed"] += 1
                self._broadcast.tell("config", "refused", problems=[str(p) for p in problems])
                _log.error("reload_failed", problems=[str(p) for p in problems], in_force=state.loaded.digest)
                raise self._failure from e
            finally:
                notify("READY=1")

    async def try_out(self, content: str | None) -> Loaded:
        """Load the file, or this text, as ``reload`` does, and change nothing. Raises ConfigError."""
        path = str(self._state.config_path)
        try:
            loaded = await (load_in_child(path) if content is None else _load_text(content))
            self._check(loaded.config)
        except ConfigError as e:
            # As if it stood in the file already.
            raise ConfigError([replace(problem, file=path) for problem in e.problems]) from e
        except (PmError, OSError) as e:
            raise _refused(e, path) from e
        return loaded

    async def _prepare_programs(self, config: Config) -> tuple[CompiledPathManagers | None, CompiledOptions]:
        """Raises ConfigError where a C file does not compile, or the kernel's verifier refuses it."""
        try:
            programs = await self._programs.prepare(config) if self._programs else None
            return programs, await self._options.prepare(config.policies, config.tcp_options)
        except PmError as e:
            raise ConfigError([Problem(str(self._state.config_path), 0, "policies", str(e))]) from e

    async def _activate(
        self, loaded: Loaded, programs: CompiledPathManagers | None, options: CompiledOptions
    ) -> None:
        config, state = loaded.config, self._state
        await self._recorder.apply(config.records)
        self._sessions.endings.on_ended = self._recorder.on_ended
        if self._programs and programs:
            await self._programs.activate(programs)
        self._choose_scheduling()
        await self._options.activate(options)
        await self._selection.apply(compile_policies(config.policies))
        if self._sysctl and not config.policies:
            await asyncio.to_thread(self._sysctl.release)
        self._sessions.endpoints.serve(serving=bool(config.policies))
        await self._upkeep.start_over()
        state.loaded = loaded
        self._addresses.set_rules(config.addresses)
        self._source_routing.look()
        self._sessions.open_limits.update(config.limits)
        self._sessions.remote_rules.update(config.remote_addresses)
        self._sessions.sweeper.policies_changed()
        state.last_reload = LastReload(time=time.time(), ok=True)
        state.counters["reloads"] += 1
        self._broadcast.tell("config", "reloaded", digest=loaded.digest)
        _log.info("reloaded", digest=loaded.digest, policies=len(config.policies))
        log_warnings(loaded)

    def _check(self, config: Config) -> None:
        """Raises ConfigError for what is wrong where this service runs.

        Sockets are opened once: what only a restart can change must not look changed.
        """
        state, path = self._state, str(self._state.config_path)
        for key in ("api", "datapath", "selection"):
            if getattr(config, key) != getattr(state.loaded.config, key):
                raise ConfigError([Problem(path, 0, key, "cannot change at run time: restart the service")])
        check_policies(config, path, state.selection, initial=state.initial_namespace)
        check_programs(config, state)

    async def on_hangup(self, hangup: asyncio.Event) -> None:
        """Run forever: load again whenever ``hangup`` is set."""
        while True:
            await hangup.wait()
            hangup.clear()
            await self._try_reload()

    async def on_change(self) -> None:
        """Run forever: load again whenever the file has changed."""
        async for _ in file_changes(self._state.config_path, self._seen):
            await self._try_reload()

    async def on_source_change(self) -> None:
        """Run forever: load again whenever a C file of a third party has changed."""
        while True:
            try:
                async with asyncio.timeout(None) as self._watching:
                    self._sources = await first_change(self._sources)
            except TimeoutError:
                continue
            finally:
                self._watching = None
            await self._try_reload()

    async def _try_reload(self) -> None:
        # Logged, counted and shown by ``status``; the last good configuration stays.
        with suppress(PmError):
            await self.reload()
