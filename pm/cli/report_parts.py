# SPDX-License-Identifier: Apache-2.0
"""What of this machine is in a report. Nothing is changed; each part says why it is missing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from pm import __version__
from pm.errors import PmError

PART_MAX = 1 << 20
COMMAND_TIMEOUT_S = 10.0
CUT = f"\n[cut off after {PART_MAX} bytes]\n"
COMMANDS = {
    "links.txt": ("ip", "-d", "link"),
    "addresses.txt": ("ip", "address"),
    "rules.txt": ("ip", "rule"),
    "rules6.txt": ("ip", "-6", "rule"),
    "routes.txt": ("ip", "route", "show", "table", "all"),
    "routes6.txt": ("ip", "-6", "route", "show", "table", "all"),
    "endpoints.txt": ("ip", "mptcp", "endpoint"),
    "limits.txt": ("ip", "mptcp", "limits"),
    "iproute2.txt": ("ip", "-V"),
}
# A list of what may be read, for some sysctls are secrets (tcp_fastopen_key, stable_secret).
SYSCTLS = (
    "net/mptcp/*",
    "net/core/[rw]mem_max",
    "net/core/bpf_jit_enable",
    "net/ipv4/ip_forward",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/tcp_congestion_control",
    "net/ipv4/tcp_available_congestion_control",
    "net/ipv4/tcp_keepalive_*",
    "net/ipv4/tcp_mtu_probing",
    "net/ipv4/tcp_[rw]mem",
    "net/ipv4/tcp_retries?",
    "net/ipv4/tcp_syn*",
    "net/ipv4/tcp_user_timeout",
    "net/ipv4/fib_multipath_hash_policy",
    "net/ipv4/conf/*/rp_filter",
    "net/ipv4/conf/*/accept_local",
    "net/ipv4/conf/*/arp_*",
    "net/ipv4/conf/*/src_valid_mark",
    "net/ipv6/conf/*/accept_ra*",
    "net/ipv6/conf/*/disable_ipv6",
    "net/ipv6/conf/*/forwarding",
    "net/ipv6/conf/*/use_tempaddr",
    "kernel/unprivileged_bpf_disabled",
)
PROC = Path("/proc/sys")
SYSCTLS_MAX = 2000
_LIBRARIES = ("aiohttp", "pyroute2", "PyYAML", "pydantic", "rich")


def versions() -> str:
    """Of what runs here."""
    kernel = os.uname()
    lines = [f"mptcp-pm {__version__}", f"Python {platform.python_version()}"]
    lines.append(f"Linux {kernel.release} {kernel.version} {kernel.machine}")
    try:
        system = re.search(r'^PRETTY_NAME="?([^"\n]*)', Path("/etc/os-release").read_text(), re.MULTILINE)
    except OSError:
        system = None
    lines.append(system[1] if system else "unknown distribution")
    return "\n".join([*lines, *_libraries()]) + "\n"


def _libraries() -> Iterator[str]:
    from importlib.metadata import PackageNotFoundError, version

    for name in _LIBRARIES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} is not installed"


def sysctls() -> str:
    """``net.mptcp.enabled = 1``, one a line, of this network namespace."""
    files = (file for pattern in SYSCTLS for file in sorted(PROC.glob(pattern)))
    found: list[str] = []
    for file in files:
        if len(found) == SYSCTLS_MAX:
            break
        try:
            value = file.read_text(errors="replace").strip()
        except OSError:
            continue
        # A dot in the name of an interface is written as a slash.
        name = "/".join(file.relative_to(PROC).parts) if "." in str(file) else ".".join(file.parts[3:])
        found.append(f"{name} = {value}")
    return "\n".join(found) + "\n"


def counters() -> str:
    """What the kernel counted in this network namespace since it began."""
    try:
        return "".join(Path("/proc/net", name).read_text() for name in ("netstat", "snmp", "snmp6"))
    except OSError as e:
        raise PmError(f"cannot be read: {e.strerror}") from e


def output_of(command: tuple[str, ...]) -> str:
    """What a command prints, up to a bound. Raises PmError where it cannot run, or fails."""
    program = shutil.which(command[0])
    if program is None:
        raise PmError(f"`{command[0]}` is not installed")
    with subprocess.Popen(
        [program, *command[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "LC_ALL": "C"},
    ) as process:
        assert process.stdout is not None
        timer = threading.Timer(COMMAND_TIMEOUT_S, process.kill)
        timer.start()
        output = process.stdout.read(PART_MAX + 1)
        timer.cancel()
        if len(output) > PART_MAX:
            process.kill()
    text = output.decode(errors="replace")
    if process.returncode and len(output) <= PART_MAX:
        raise PmError(f"`{' '.join(command)}` failed: {' '.join(text.split())[:200] or 'no answer in time'}")
    return text
