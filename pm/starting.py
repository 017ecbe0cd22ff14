# SPDX-License-Identifier: Apache-2.0
"""What the service finds out before it opens anything: its configuration, and what the system offers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pm.api.control import LastReload, ServiceState
from pm.clock import moment
from pm.config.load import finish_loading
from pm.datapath import choose_datapath
from pm.linux.bpf.precompiled import check_objects
from pm.linux.host.file_watch import Signature, signatures
from pm.linux.host.netns import in_initial_namespace
from pm.linux.host.probe import probe, require
from pm.reading import Reading
from pm.reloader import check_programs, sources_of
from pm.selection import check_policies, checks_for, choose_selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line says, and what was there when the process began.

    ``cgroup_root`` None: the cgroup2 tree is where it is mounted. ``had_interfaces``: besides ``lo``.
    """

    reading: Reading
    had_interfaces: bool
    state_directory: Path
    cgroup_root: Path | None = None
    alone_exit_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """``seen`` is the signature of the configuration file from before it was loaded, ``seen_sources`` those
    of the C files that it names.
    """

    state: ServiceState
    seen: Signature
    seen_sources: Mapping[Path, Signature]


async def find_start(settings: Settings) -> Start:
    """Raises ConfigError, SystemUnfit, PmError."""
    path, seen, child = settings.reading
    loaded = await finish_loading(child, str(path))
    config = loaded.config
    seen_sources = await asyncio.to_thread(signatures, sources_of(config))
    found = await asyncio.to_thread(probe, precompiled=check_objects, cgroup_root=settings.cgroup_root)
    mode = choose_selection(config.selection, found)
    checks = checks_for(mode, found)
    require(checks)
    started_at = moment(time)
    state = ServiceState(
        config_path=path,
        selection=mode,
        initial_namespace=await asyncio.to_thread(in_initial_namespace),
        datapath=choose_datapath(config.datapath, checks, mode),
        checks=checks,
        started_at=started_at,
        loaded=loaded,
        last_reload=LastReload(time=started_at.time, ok=True),
        counters=Counter(),
    )
    check_policies(config, str(path), mode, initial=state.initial_namespace)
    check_programs(config, state)
    return Start(state=state, seen=seen, seen_sources=seen_sources)
