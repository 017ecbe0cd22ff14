# SPDX-License-Identifier: GPL-2.0-only
"""The running service: the one place that constructs its parts and connects them."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import structlog
import uvloop

from pm import __version__, log
from pm.api.control import LastReload, Status
from pm.api.events import Broadcast, EventReader
from pm.api.metrics import Histogram
from pm.api.server import serve
from pm.config.load import Loaded, load_in_child
from pm.config.model import Config, Datapath, OnExit
from pm.errors import ConfigError, PmError, Problem, SystemUnfit
from pm.linux.host.file_watch import file_changes
from pm.linux.host.instance import only_instance
from pm.linux.host.notify import notify
from pm.linux.host.probe import Check, probe, require
from pm.linux.host.scheduling import prefer_latency
from pm.linux.host.sysctl import PathManagerSysctl
from pm.linux.netlink.addresses import AddressMonitor
from pm.linux.netlink.inet_diag import SubflowStats
from pm.linux.netlink.mptcp_pm import PathManagerSocket
from pm.linux.netlink.sock_diag import SockDiag
from pm.model import LocalAddress, Pair, Subflow
from pm.path_managers.program import Program
from pm.path_managers.registry import registry
from pm.policies.model import Policy
from pm.policies.policy_table import compile_policies
from pm.programs.attach import Place
from pm.programs.classifiers import Selection
from pm.programs.path_manager_programs import PathManagerPrograms, remove_left_programs
from pm.programs.path_manager_programs import Prepared as PreparedPrograms
from pm.programs.tcp_option_programs import Options, PluginReport
from pm.programs.tcp_option_programs import Prepared as PreparedOptions
from pm.sessions.reconciler import Reconciler
from pm.sessions.session import Session
from pm.sessions.session_table import SessionTable

STATE_DIRECTORY = Path("/run/mptcp-pm")
NEEDS_PROGRAMS = "`program` needs the bpf datapath: boot the patched kernel (kernel/README.md)"

_log = structlog.get_logger(__name__)


def run(config_path: str, *, log_level: str, log_format: str) -> int:
    """``mptcp-pm run``: serve until SIGTERM or SIGINT; the exit status."""
    log.configure(log_level, log_format)
    prefer_latency()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_main(config_path))
    except PmError as e:
        print(e, file=sys.stderr)
        return e.exit_status
    except ExceptionGroup as group:
        errors, bugs = group.split(PmError)
        if bugs or errors is None:
            raise
        print(*_leaves(errors), sep="\n", file=sys.stderr)
        return 1
    return 0


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for e in error.exceptions for leaf in _leaves(e)]
    return [error]


async def _main(config_path: str) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    checks = probe()
    require(checks)
    async with Service.open(Path(config_path), checks) as service:
        notify("READY=1")
        await service.run(stopping)
        notify("STOPPING=1")


def choose_datapath(wanted: Datapath, checks: Sequence[Check]) -> Datapath:
    """NETLINK or BPF. Raises SystemUnfit where BPF is asked for and the kernel has it not."""
    there = any(check.name == "bpf_datapath" and check.ok for check in checks)
    if wanted is Datapath.BPF and not there:
        raise SystemUnfit(
            "datapath: bpf needs the patched kernel", "boot it, or set `datapath: netlink` (or `auto`)"
        )
    return Datapath.BPF if there and wanted is not Datapath.NETLINK else Datapath.NETLINK


class Service:
    """Implements pm.api.control.ControlPlane; made by ``Service.open``."""

    _addresses: AddressMonitor
    _diagnosis: SockDiag
    _options: Options
    _reconciler: Reconciler
    _selection: Selection

    def __init__(self, *, path: Path, loaded: Loaded, checks: Sequence[Check], datapath: Datapath) -> None:
        self._path = path
        self._datapath = datapath
        self._programs: PathManagerPrograms | None = None
        self._loaded = loaded
        self._checks = checks
        self._started_at = time.time()
        self._last_reload = LastReload(time=self._started_at, ok=True)
        self._reloading = asyncio.Lock()
        self._broadcast = Broadcast()
        self._counters: Counter[str] = Counter()
        self._join_delay = Histogram()
        self._ready = False

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, checks: Sequence[Check]) -> AsyncIterator[Service]:
        """Everything up, classifiers attached, API listening; all undone at exit.

        Raises ConfigError, SystemUnfit, PmError.
        """
        loaded = await load_in_child(str(path))
        config = loaded.config
        datapath = choose_datapath(config.datapath, checks)
        async with AsyncExitStack() as stack:
            self = cls(path=path, loaded=loaded, checks=checks, datapath=datapath)
            self._check_programs(config)
            keep = lambda: self._loaded.config.on_exit is OnExit.KEEP  # noqa: E731
            if datapath is Datapath.BPF:
                self._programs = PathManagerPrograms(
                    log_file=STATE_DIRECTORY / "bpf-path-managers.log", keep=keep
                )
            self._options = Options(
                log_file=STATE_DIRECTORY / "bpf-options.log",
                keep=keep,
                counts_segments=any(check.name == "delack_segments" and check.ok for check in checks),
            )
            self._selection = Selection(
                compile_policies(config.policies),
                log_file=STATE_DIRECTORY / "bpf.log",
                keep=keep,
                on_change=self._on_attachment,
                follow=self._settle_programs,
            )
            stack.enter_context(only_instance(STATE_DIRECTORY))
            # Subscribed before anything can happen that must not be missed.
            commands = stack.enter_context(PathManagerSocket())
            self._addresses = AddressMonitor(config.addresses, self._on_addresses)
            self._diagnosis = stack.enter_context(SockDiag(self._addresses.interface_of))
            if self._programs:
                # The programs claim their sessions: all others keep the kernel's path manager.
                PathManagerSysctl(STATE_DIRECTORY).restore_left()
                programs = await self._programs.prepare(config.policies)
                stack.push_async_callback(self._programs.close)
                await self._programs.bring_in_force(programs)
            else:
                remove_left_programs()
                stack.enter_context(PathManagerSysctl(STATE_DIRECTORY))
            self._reconciler = Reconciler(
                table=SessionTable(),
                commands=commands,
                diagnosis=self._diagnosis,
                selector=self._selection,
                path_managers=registry(),
                publish=self._publish_session,
                counters=self._counters,
                observe_join=self._join_delay.observe,
                programs=self._programs,
                address_ids=self._programs.known_ids() if self._programs else None,
            )
            await stack.enter_async_context(self._addresses)
            self._on_addresses(self._addresses.addresses)
            stack.push_async_callback(self._options.close)
            await self._options.bring_in_force(
                await self._options.prepare(config.policies, config.tcp_options)
            )
            await stack.enter_async_context(self._selection)
            await stack.enter_async_context(serve(self, config.api, self._join_delay))
            yield self

    async def run(self, stopping: asyncio.Event) -> None:
        """Until ``stopping`` is set. A part that fails ends the service with its error."""
        loop = asyncio.get_running_loop()
        hangup = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, hangup.set)
        failure: asyncio.Future[None] = loop.create_future()

        def on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            # A callback that failed (netlink reader, timer) leaves its part dead: never half-alive.
            error = context.get("exception")
            if "handle" in context and error and not failure.done():
                failure.set_exception(error)
            else:
                loop.default_exception_handler(context)

        loop.set_exception_handler(on_loop_error)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(part)
                for part in (
                    asyncio.wait_for(failure, None),
                    self._reconciler.run(),
                    self._reconciler.audit(),
                    self._selection.run(),
                    self._reload_on_hangup(hangup),
                    self._reload_on_change(),
                )
            ]
            self._ready = True
            # What is there now stays: the collector need not look at it again and again.
            gc.collect()
            gc.freeze()
            _log.info(
                "started",
                config=str(self._path),
                policies=len(self._loaded.config.policies),
                cgroups=len(self._selection.attached()),
            )
            await stopping.wait()
            _log.info("stopping")
            for task in tasks:
                task.cancel()

    # Reload

    async def reload(self) -> None:
        """Load the file again and bring it in force. Raises ConfigError, PmError: then nothing changed."""
        async with self._reloading:
            notify("RELOADING=1")
            try:
                loaded = await load_in_child(str(self._path))
                self._check_restart(loaded.config)
                self._check_programs(loaded.config)
                programs, options = await self._prepare_programs(loaded.config)
            except PmError as e:
                problems = (
                    e.problems if isinstance(e, ConfigError) else (Problem(str(self._path), 0, "", str(e)),)
                )
                self._last_reload = LastReload(time=time.time(), ok=False, problems=problems)
                self._counters["reloads_failed"] += 1
                self._publish("config", "refused", problems=[str(p) for p in problems])
                _log.error("reload_failed", problems=[str(p) for p in problems], in_force=self._loaded.digest)
                raise
            finally:
                notify("READY=1")
            await self._bring_in_force(loaded, programs, options)

    async def _prepare_programs(self, config: Config) -> tuple[PreparedPrograms | None, PreparedOptions]:
        """Raises ConfigError where a C file does not compile, or the kernel's verifier refuses it."""
        try:
            programs = await self._programs.prepare(config.policies) if self._programs else None
            return programs, await self._options.prepare(config.policies, config.tcp_options)
        except PmError as e:
            raise ConfigError([Problem(str(self._path), 0, "policies", str(e))]) from e

    async def _bring_in_force(
        self, loaded: Loaded, programs: PreparedPrograms | None, options: PreparedOptions
    ) -> None:
        config = loaded.config
        if self._programs and programs:
            await self._programs.bring_in_force(programs)
        await self._options.bring_in_force(options)
        await self._selection.apply(compile_policies(config.policies))
        self._loaded = loaded
        self._addresses.set_rules(config.addresses)
        self._reconciler.policies_changed()
        self._last_reload = LastReload(time=time.time(), ok=True)
        self._counters["reloads"] += 1
        self._publish("config", "reloaded", digest=loaded.digest)
        _log.info("reloaded", digest=loaded.digest, policies=len(config.policies))

    def _check_restart(self, config: Config) -> None:
        """Sockets are opened once: what only a restart can change must not look changed."""
        for key in ("api", "datapath"):
            if getattr(config, key) != getattr(self._loaded.config, key):
                raise ConfigError([Problem(str(self._path), 0, key, "cannot change while running; restart")])

    def _check_programs(self, config: Config) -> None:
        """Raises ConfigError for a path manager that needs the bpf datapath where there is none."""
        problems = [
            Problem(str(self._path), 0, f"policies.{policy.name}.path_manager", NEEDS_PROGRAMS)
            for policy in config.policies
            if policy.path_manager.name == Program.name and self._datapath is not Datapath.BPF
        ]
        if problems:
            raise ConfigError(problems)

    async def _settle_programs(self, places: Mapping[int, Place]) -> None:
        if self._programs:
            await self._programs.settle(places)
        await self._options.settle(places)

    async def _reload_on_hangup(self, hangup: asyncio.Event) -> None:
        while True:
            await hangup.wait()
            hangup.clear()
            await self._try_reload()

    async def _reload_on_change(self) -> None:
        async for _ in file_changes(self._path):
            await self._try_reload()

    async def _try_reload(self) -> None:
        # Logged, counted and shown by ``status``; the last good configuration stays.
        with suppress(PmError):
            await self.reload()

    # pm.api.control.ControlPlane

    def status(self) -> Status:
        return Status(
            version=__version__,
            pid=os.getpid(),
            started_at=self._started_at,
            ready=self._ready,
            datapath=self._datapath,
            kernel_release=platform.release(),
            checks=self._checks,
            config_path=str(self._path),
            config_digest=self._loaded.digest,
            last_reload=self._last_reload,
            counters=self._all_counters(),
            sessions=len(self._reconciler.table),
        )

    def _all_counters(self) -> Counter[str]:
        counters = self._counters | Counter(self._selection.counters())
        return counters + Counter(self._programs.counters()) if self._programs else counters

    def policies(self) -> Sequence[Policy]:
        return self._loaded.config.policies

    def attached(self) -> Mapping[str, str]:
        return self._selection.attached()

    def sessions(self) -> Mapping[int, Session]:
        self._reconciler.admit_expected()
        return self._reconciler.table.by_token

    def cgroup_path(self, session: Session) -> str | None:
        return self._selection.cgroup_path(session.cgroup_id)

    def program_of(self, session: Session) -> str | None:
        if self._programs is None or session.policy is None:
            return None
        return self._programs.program_of(session.token, session.policy)

    def addresses(self) -> Sequence[LocalAddress]:
        return self._addresses.addresses

    def stats(self, sessions: Sequence[Session]) -> Sequence[Sequence[SubflowStats | None]]:
        subflows = [subflow for session in sessions for subflow in session.subflows]
        answers = iter(self._diagnosis.subflow_stats(subflows))
        return [[next(answers) for _ in session.subflows] for session in sessions]

    def option_counters(self) -> Mapping[str, Mapping[str, int]]:
        return self._options.counters()

    async def option_reports(self, session: Session) -> Mapping[int, Sequence[PluginReport]]:
        return await self._options.reports([(s.local_port, s.remote_port) for s in session.subflows])

    async def open_subflow(
        self, token: int, local: str, remote: str, remote_port: int, backup: bool
    ) -> Subflow:
        return self._reconciler.by_hand.open_subflow(token, Pair(local, remote, remote_port), backup=backup)

    async def close_subflow(self, token: int, subflow_id: str) -> None:
        self._reconciler.by_hand.close_subflow(token, subflow_id)

    async def set_backup(self, token: int, subflow_id: str, backup: bool) -> None:
        self._reconciler.by_hand.set_backup(token, subflow_id, backup=backup)

    def subscribe(self, after: int | None = None) -> AbstractAsyncContextManager[EventReader]:
        return self._broadcast.subscribe(after)

    # What watchers are told

    def _on_addresses(self, addresses: tuple[LocalAddress, ...]) -> None:
        self._reconciler.addresses_changed(addresses)
        if self._programs:
            self._programs.write_locals(self._reconciler.locals)
        self._publish("address", "changed", usable=[a.ip for a in addresses if a.usable])

    def _on_attachment(self, cgroup: str, policy: str | None) -> None:
        self._publish("policy", "attached" if policy else "detached", cgroup=cgroup, policy=policy)

    def _publish(self, kind: str, action: str, **detail: Any) -> None:
        self._broadcast.publish(time.time(), kind, action, None, detail)

    def _publish_session(
        self, now: float, kind: str, action: str, session: Session, detail: dict[str, Any]
    ) -> None:
        self._broadcast.publish(now, kind, action, session.token, detail)
