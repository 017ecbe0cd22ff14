# SPDX-License-Identifier: Apache-2.0
"""What of the kernel's MPTCP decides whether there is a second path, beside what the service needs."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pm.errors import KernelRefused
from pm.linux.host.counters import read_counters
from pm.linux.host.remedies import sysctl_remedy
from pm.linux.host.sysctl import SYSCTLS
from pm.linux.host.system_check import SystemCheck, check
from pm.linux.netlink.endpoint_reader import EndpointReader
from pm.model import Endpoint

SYNCOOKIES = Path("/proc/sys/net/ipv4/tcp_syncookies")
SHOWN_MAX = 4
# What kernels before a version do not do. Some stable kernels have it from the newer one.
LIMITS: tuple[tuple[tuple[int, int], str], ...] = (
    (
        (6, 17),
        "a new session does not tell that the peer refuses joins to its first address (C flag), which load "
        "balancers need: such joins are tried and fail (before 6.17)",
    ),
    ((6, 18), "`ip mptcp endpoint` has no laminar endpoints (before 6.18)"),
    ((7, 2), "the kernel's own path manager, here or at the peer, has at most 8 subflows (64 from 7.2 on)"),
)


def mptcp_checks() -> list[SystemCheck]:
    """All are optional."""
    return [_syncookies(), _blackhole(), kernel_limits(os.uname().release), _endpoints()]


def _syncookies() -> SystemCheck:
    value = _read(SYNCOOKIES)
    found = {
        "0": "off: a burst of connections or joins is dropped",
        "1": "sent when the queue of a listening socket is full",
        "2": "sent always: joins are lost now and then, and TCP options of policies do not work on servers",
    }.get(value, "not known")
    remedy = sysctl_remedy("net.ipv4.tcp_syncookies=1")
    return check("syncookies", value not in ("0", "2"), found, remedy, required=False)


def _blackhole() -> SystemCheck:
    """After SYNs with MPTCP that were lost the kernel opens plain TCP connections for a time."""
    timeout = _read(SYSCTLS / "blackhole_timeout")
    if not timeout:
        return check("blackhole", True, "this kernel does not look for one", "", required=False)
    if timeout == "0":
        return check("blackhole", True, "the kernel does not look for one (timeout 0)", "", required=False)
    setting = (
        f"net.mptcp.blackhole_timeout={timeout}"  # the kernel forgets what it found when this is written
    )
    counters = read_counters()
    found, disabled = (counters.get(f"MPTcpExt{n}", 0) for n in ("Blackhole", "MPCapableSYNTXDisabled"))
    text = f"detected {found} times since boot; {disabled} connections were made without MPTCP for it"
    remedy = (
        "something on the way drops SYNs with MPTCP: for some time, at first "
        f"{timeout} s, the kernel opens plain TCP connections. "
        f"If it was an outage, start afresh: {sysctl_remedy(setting)}"
    )
    return check("blackhole", not found, text if found else "none detected", remedy, required=False)


def kernel_limits(release: str) -> SystemCheck:
    """What this version of Linux does not do yet."""
    match = re.match(r"(\d+)\.(\d+)", release)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    known = [text for before, text in LIMITS if version < before]
    remedy = "nothing, unless one of these concerns you: then boot a newer kernel"
    return check("kernel_limits", not known, "; ".join(known) or "none known", remedy, required=False)


def _endpoints() -> SystemCheck:
    """`ip mptcp endpoint`, and what becomes of it while the service runs."""
    try:
        with EndpointReader.open() as reader:
            endpoints = reader.read().endpoints
    except (OSError, KernelRefused) as e:
        return check("kernel_endpoints", True, f"cannot be read ({e})", "", required=False)
    if not endpoints:
        return check("kernel_endpoints", True, "none", "", required=False)
    shown = ", ".join(map(_endpoint, endpoints[:SHOWN_MAX])) + ", ..." * (len(endpoints) > SHOWN_MAX)
    found = (
        f"{shown}: sessions that no policy owns, and policies with the path manager `endpoints`, have them; "
        "other policies do not look at them"
    )
    return check("kernel_endpoints", True, found, "", required=False)


def _endpoint(endpoint: Endpoint) -> str:
    kinds = ("signal", "subflow", "backup", "fullmesh", "laminar")
    return " ".join([endpoint.ip, *(kind for kind in kinds if getattr(endpoint, kind))])


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
