# SPDX-License-Identifier: Apache-2.0
"""Which datapath the service runs on: what the configuration asks for, and what the kernel has."""

from __future__ import annotations

from collections.abc import Sequence

from pm.config.model import Datapath, SelectionMode
from pm.errors import SystemUnfit
from pm.linux.host.probe import has
from pm.linux.host.remedies import SEE_CGROUPS
from pm.linux.host.system_check import SystemCheck


def choose_datapath(
    wanted: Datapath, checks: Sequence[SystemCheck], selection: SelectionMode = SelectionMode.CGROUP
) -> Datapath:
    """NETLINK or BPF. Raises SystemUnfit where BPF is asked for and the kernel does not have it.

    BPF programs are attached to cgroups: it is NETLINK where sessions are selected by namespace.
    """
    if selection is SelectionMode.NAMESPACE:
        if wanted is Datapath.BPF:
            raise SystemUnfit("datapath: bpf needs `selection: cgroup`", SEE_CGROUPS)
        return Datapath.NETLINK
    available = has(checks, "bpf_datapath")
    if wanted is Datapath.BPF and not available:
        found = next((c.found for c in checks if c.name == "bpf_datapath"), "")
        raise SystemUnfit(
            f"datapath: bpf needs the patched kernel; this is {found}",
            "boot it, or set `datapath: netlink` (or `auto`)",
        )
    return Datapath.BPF if available and wanted is not Datapath.NETLINK else Datapath.NETLINK
