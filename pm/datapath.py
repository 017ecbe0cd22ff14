# SPDX-License-Identifier: GPL-2.0-only
"""Which datapath the service runs on: what the configuration asks for, and what the kernel has."""

from __future__ import annotations

from collections.abc import Sequence

from pm.config.model import Datapath
from pm.errors import SystemUnfit
from pm.linux.host.probe import SystemCheck


def choose_datapath(wanted: Datapath, checks: Sequence[SystemCheck]) -> Datapath:
    """NETLINK or BPF. Raises SystemUnfit where BPF is asked for and the kernel does not have it."""
    available = has(checks, "bpf_datapath")
    if wanted is Datapath.BPF and not available:
        raise SystemUnfit(
            "datapath: bpf needs the patched kernel", "boot it, or set `datapath: netlink` (or `auto`)"
        )
    return Datapath.BPF if available and wanted is not Datapath.NETLINK else Datapath.NETLINK


def has(checks: Sequence[SystemCheck], name: str) -> bool:
    """Whether a check of this name is there, and well."""
    return any(check.name == name and check.ok for check in checks)
