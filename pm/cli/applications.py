# SPDX-License-Identifier: Apache-2.0
"""How known programs are told to use MPTCP. Source: https://www.mptcp.dev/apps.html and their manuals."""

from __future__ import annotations

from shlex import quote

from pm.cli.process_sockets import Process

CONF = "# in its configuration: "
# By the name that /proc/PID/comm shows (15 characters at most): as a client, and as a server.
_OPTIONS = {
    "apache2": (f"{CONF}ProxyPass … multipathtcp=On", f"{CONF}Listen 443 options=multipathtcp"),
    "curl": ("curl --mptcp …", ""),
    "dae": (f"{CONF}global {{ mptcp: true }}", f"{CONF}global {{ mptcp: true }}"),
    "envoy": ("", f"{CONF}enable_mptcp: true, in the listener"),
    "haproxy": (f"{CONF}server NAME mptcp@192.0.2.1:443", f"{CONF}bind mptcp@:443"),
    "httpd": (f"{CONF}ProxyPass … multipathtcp=On", f"{CONF}Listen 443 options=multipathtcp"),
    "iperf3": ("iperf3 --mptcp …", "iperf3 --mptcp …"),
    "lighttpd": ("", f'{CONF}server.feature-flags = ("server.network-mptcp" => "enable")'),
    "nginx": ("", f"{CONF}listen 443 ssl multipath;"),
    "ss-local": ("ss-local --mptcp …", "ss-local --mptcp …"),
    "ss-redir": ("ss-redir --mptcp …", "ss-redir --mptcp …"),
    "ss-server": ("ss-server --mptcp …", "ss-server --mptcp …"),
    "systemd": ("", "# in the [Socket] section of the unit: SocketProtocol=mptcp"),
    "traffic_server": ("", f"{CONF}server_ports: 443 mptcp"),
    "v2ray": (f'{CONF}"mptcp": true, in sockopt', f'{CONF}"mptcp": true, in sockopt'),
}


def remedies(process: Process, *, server: bool) -> list[str]:
    """What makes a program use MPTCP: its own option where it is known, or else from outside."""
    if option := _OPTIONS.get(process.name, ("", ""))[server]:
        return [option]
    if process.go:
        return ["GODEBUG=multipathtcp=1 COMMAND"]
    if process.static:
        return ["# it has no dynamic linker, which mptcpize needs: only an option of its own helps"]
    run = ["mptcpize run COMMAND"]
    if not process.unit or process.unit.startswith("-"):  # which mptcpize takes for an option
        return run
    return [f"mptcpize enable {quote(process.unit)}", *run]
