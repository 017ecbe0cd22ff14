# SPDX-License-Identifier: Apache-2.0
"""The running service: the one place that constructs its parts and connects them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from functools import partial

from pm import log_budget
from pm.api.control_plane import ServiceControlPlane
from pm.api.events import Broadcast
from pm.api.metrics import Timings
from pm.api.server import serve
from pm.config.model import Datapath, OnExit, SelectionMode
from pm.interfaces import Interfaces
from pm.linux.bpf.local_address_maps import interface_entries
from pm.linux.bpf.pins import pin_directory
from pm.linux.bpf.sweep import Sentinel
from pm.linux.host.cgroups import CgroupIds, find_cgroup_root
from pm.linux.host.counters import CounterHistory
from pm.linux.host.instance import Instance, check_state_directory, namespace_file
from pm.linux.host.left_alone import LeftAlone
from pm.linux.host.live_checks import LiveChecks
from pm.linux.host.mounts import find_mount
from pm.linux.host.netns import netns_cookie
from pm.linux.host.notes import Notes
from pm.linux.host.notify import feed_watchdog
from pm.linux.host.probe import has
from pm.linux.host.scheduling import Scheduling
from pm.linux.host.sysctl import PathManagerSysctl
from pm.linux.netlink.addresses import AddressMonitor
from pm.linux.netlink.endpoint_reader import EndpointReader
from pm.linux.netlink.mptcp_pm import PathManagerSocket
from pm.linux.netlink.path_judge import PathJudge
from pm.linux.netlink.path_lookup import PathLookup
from pm.linux.netlink.route_lookup import is_local
from pm.linux.netlink.route_monitor import RouteMonitor
from pm.linux.netlink.sock_diag import SockDiag
from pm.linux.netlink.socket_cgroups import own_cgroup
from pm.linux.netlink.source_routing import SourceRouting
from pm.model import LocalAddress
from pm.path_managers.registry import registry
from pm.policies.policy_table import compile_policies
from pm.programs.attach import MatchedCgroup
from pm.programs.automatic import follow_sockets
from pm.programs.classifiers import Selection
from pm.programs.kept_programs import KeptPrograms
from pm.programs.path_manager_programs import PathManagerPrograms, remove_left_programs
from pm.programs.tcp_option_programs import TcpOptionPrograms
from pm.programs.whole_namespace import AnySelection, NamespaceSelection, remove_all_programs
from pm.records.recorder import Recorder
from pm.reloader import Reloader, log_warnings
from pm.running import Service
from pm.sessions.assembly import assemble
from pm.sessions.known_ways import unwatched
from pm.sessions.session_notes import denied_sessions, read_address_ids, read_addresses, read_denied
from pm.sessions.time_limit import TimeLimit
from pm.starting import Settings, find_start
from pm.upkeep import Kept, Upkeep

ANSWER_LIMIT_S = 1.0  # for a path manager, which should take microseconds


@asynccontextmanager
async def open_service(settings: Settings) -> AsyncIterator[Service]:
    """Everything up, classifiers attached, API listening; all undone at exit.

    Raises ConfigError, SystemUnfit, PmError.
    """
    start = await find_start(settings)
    state, loaded, state_directory = start.state, start.state.loaded, settings.state_directory
    config, checks, mode = loaded.config, state.checks, state.selection
    broadcast, timings, scheduling = Broadcast(), Timings(), Scheduling()
    mptcp_counters = await asyncio.to_thread(CounterHistory, time.monotonic)
    path_managers = await asyncio.to_thread(registry)

    def keep() -> bool:
        return state.loaded.config.on_exit is OnExit.KEEP

    # Called back later: what these name is built by then.
    def in_no_hurry() -> bool:
        return programs is not None and programs.open_all()

    def choose_scheduling() -> None:
        scheduling.choose(in_no_hurry=in_no_hurry())

    def on_addresses(found: tuple[LocalAddress, ...]) -> None:
        left_alone.interfaces(others=bool(addresses.interfaces) or state.initial_namespace)
        if programs:
            sessions.addresses.adopt(programs.known_ids())
        sessions.sweeper.addresses_changed(found)
        if programs:
            admitted = interface_entries(addresses.admitted, link_local=addresses.rules.link_local)
            programs.write_locals(sessions.addresses.current, admitted)
            sessions.addresses.adopt(programs.known_ids())
        if source_routing:
            source_routing.look()
        broadcast.tell("address", "changed", usable=[a.ip for a in found if a.usable])

    def on_routes() -> None:
        addresses.judge_again()
        sessions.sweeper.routes_changed()
        if source_routing:
            source_routing.look()

    def on_attachment(cgroup: str, policy: str | None) -> None:
        broadcast.tell("policy", "attached" if policy else "detached", cgroup=cgroup, policy=policy)

    async def on_cgroups(cgroups: Mapping[int, MatchedCgroup]) -> None:
        if programs:
            await programs.attach(cgroups)
        await options.attach(cgroups)

    source_routing: SourceRouting | None = None
    recorder = Recorder()
    bpffs = await asyncio.to_thread(find_mount, "bpf")
    async with AsyncExitStack() as stack:
        await asyncio.to_thread(check_state_directory, state_directory)
        stack.push_async_callback(recorder.close)
        await recorder.apply(config.records)
        cookie = netns_cookie()
        pins = pin_directory(bpffs, cookie) if bpffs else None
        instance = Instance(pins)
        await _enter_in_thread(stack, instance)
        # Of the compiler and the verifier, where they refuse a program.
        logs = {
            kind: await asyncio.to_thread(namespace_file, state_directory, f"bpf-{kind}", ".log")
            for kind in ("classifier", "options", "path-managers")
        }
        notes_file = await asyncio.to_thread(namespace_file, state_directory, "notes")
        notes = await stack.enter_async_context(Notes.open(notes_file, netns_cookie=cookie))
        ids = None
        if mode is SelectionMode.CGROUP or has(checks, "cgroup_tree"):
            cgroup_root = await asyncio.to_thread(find_cgroup_root, settings.cgroup_root)
            ids = CgroupIds(cgroup_root, noted=notes.found("cgroups"), on_new=notes.touch)
            notes.keep("cgroups", ids.notes)
        if mode is SelectionMode.NAMESPACE:
            await asyncio.to_thread(remove_all_programs, bpffs)
            bpffs = pins = None
        sentinel = None
        if pins:
            sentinel = Sentinel(pins, keep)
            await _enter_in_thread(stack, sentinel)
        # Subscribed before anything can happen that must not be missed.
        commands = stack.enter_context(PathManagerSocket.open())
        programs = None
        left_alone = LeftAlone(exit_after_s=settings.alone_exit_s, had_others=settings.had_interfaces)
        endpoints = None
        sysctl = PathManagerSysctl(state_directory)
        kept: list[Kept] = [LiveChecks(checks), instance, left_alone, *([sentinel] if sentinel else [])]
        if state.datapath == Datapath.BPF:
            # The programs claim their sessions: all others keep the kernel's path manager.
            await asyncio.to_thread(sysctl.restore_left)
            programs = await stack.enter_async_context(
                PathManagerPrograms.open(
                    config,
                    log_file=logs["path-managers"],
                    keep=keep,
                    bpffs=bpffs,
                )
            )
        else:
            await asyncio.to_thread(remove_left_programs, bpffs)
            stack.push_async_callback(asyncio.to_thread, sysctl.release)
            await asyncio.to_thread(sysctl.hold if config.policies else sysctl.restore_left)
            kept.append(sysctl)
            endpoints = stack.enter_context(EndpointReader.open())
        options = await stack.enter_async_context(
            TcpOptionPrograms.open(
                config.policies,
                config.tcp_options,
                log_file=logs["options"],
                keep=keep,
                bpffs=bpffs,
                counts_segments=has(checks, "delack_segments"),
            )
        )
        selection: AnySelection = NamespaceSelection(on_change=on_attachment, ids=ids)
        if mode is SelectionMode.CGROUP and ids:
            selection = await stack.enter_async_context(
                Selection.open(
                    log_file=logs["classifier"],
                    keep=keep,
                    on_change=on_attachment,
                    on_cgroups=on_cgroups,
                    cgroup_root=ids.root,
                    ids=ids,
                    bpffs=bpffs,
                    # It asks for every socket; `auto` is refused in the initial namespace.
                    own_cgroup=0 if state.initial_namespace else await asyncio.to_thread(own_cgroup),
                )
            )
        lookup = stack.enter_context(PathLookup.open())
        # From here to the sessions nothing awaits: a change of addresses finds them built.
        interfaces = Interfaces()
        addresses = await stack.enter_async_context(
            AddressMonitor.open(config.addresses, on_addresses, registry=interfaces)
        )
        diagnosis = stack.enter_context(SockDiag.open(addresses.interface_of, addresses.vrf_of))
        sessions = assemble(
            commands=commands,
            diagnosis=diagnosis,
            selector=selection,
            path_managers=path_managers,
            limit=TimeLimit(ANSWER_LIMIT_S),
            publish=broadcast.tell_of_session,
            counters=state.counters,
            observe_join=timings.join_delay.observe,
            observe_answer=timings.observe_answer,
            clock=time,
            scheduler=asyncio.get_running_loop(),
            programs=programs,
            in_no_hurry=in_no_hurry,
            address_ids=read_address_ids(notes.found("address_ids"))
            | (programs.known_ids() if programs else {}),
            seen_up=read_addresses(notes.found("seen_up")),
            denied=read_denied(notes.found("denied")),
            note=notes.touch,
            is_local=is_local,
            limits=config.limits,
            remote_addresses=config.remote_addresses,
            endpoints=endpoints,
            judge_way=PathJudge(lookup, addresses, lambda: addresses.rules.bind_interface).way,
            on_ways=programs.write_ways if programs else unwatched,
            finals=selection.attachments,
            interfaces=interfaces,
        )
        sessions.endings.on_ended = recorder.on_ended
        notes.keep("address_ids", lambda: dict(sessions.addresses.current.ids))
        notes.keep("seen_up", lambda: list(sessions.addresses.seen_up))
        notes.keep("denied", lambda: denied_sessions(sessions.table))
        on_addresses(addresses.addresses)
        await stack.enter_async_context(RouteMonitor.open(on_routes))
        sessions.endpoints.serve(serving=bool(config.policies))
        source_routing = await stack.enter_async_context(
            SourceRouting.open(
                lambda: addresses.rules.source_routing, lambda: addresses.usable, addresses.tunnels
            )
        )
        await selection.apply(compile_policies(config.policies))
        kept.append(KeptPrograms(selection, [selection, options, programs]))
        upkeep = Upkeep(kept, counters=state.counters, monotonic=time.monotonic)
        reloader = Reloader(
            state=state,
            upkeep=upkeep,
            addresses=addresses,
            source_routing=source_routing,
            sessions=sessions,
            sysctl=sysctl if endpoints else None,
            selection=selection,
            options=options,
            programs=programs,
            recorder=recorder,
            choose_scheduling=choose_scheduling,
            broadcast=broadcast,
            seen=start.seen,
            seen_sources=start.seen_sources,
        )
        control = ServiceControlPlane(
            state=state,
            upkeep=upkeep,
            sessions=sessions,
            addresses=addresses,
            diagnosis=diagnosis,
            selection=selection,
            options=options,
            programs=programs,
            broadcast=broadcast,
            reload=reloader.reload,
            try_out=reloader.try_out,
            counters=mptcp_counters,
            record_counts=recorder.counts,
            judge_under=lambda rules: PathJudge(lookup, addresses, lambda: rules.bind_interface).way,
        )
        choose_scheduling()
        await stack.enter_async_context(serve(control, config.api, timings))
        log_warnings(loaded)
        yield Service(
            state=state,
            reloader=reloader,
            compared=sessions.resync.compared,
            attached=selection.attached,
            parts=(
                partial(sessions.sweeper.run, sessions.events),
                sessions.endings.run,
                selection.run,
                *([partial(follow_sockets, selection)] if isinstance(selection, Selection) else []),
                source_routing.run,
                mptcp_counters.run,
                control.sampler.run,
                timings.watch_lag,
                reloader.on_change,
                reloader.on_source_change,
                upkeep.run,
                partial(left_alone.run, upkeep.look),
                notes.run,
                feed_watchdog,
                log_budget.get_limited_logger().run,
            ),
        )


async def _enter_in_thread(stack: AsyncExitStack, manager: AbstractContextManager[object]) -> None:
    """Enter a context manager that reads and writes files, and leave it at the stack's end."""
    await asyncio.to_thread(manager.__enter__)
    stack.push_async_callback(asyncio.to_thread, manager.__exit__, None, None, None)
