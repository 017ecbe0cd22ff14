# SPDX-License-Identifier: Apache-2.0
"""What ``why`` prints of a process, a cgroup or an address, in 80 columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pm.cli.tables import endpoint
from pm.cli.why_report import finding_lines, session_text, why_lines, wrapped
from pm.names import printable

Json = dict[str, Any]
SHOWN_MAX = 10  # sockets of one kind


def connection_report(found: Json) -> str:
    """Sockets of which the same is said stand together; the evidence is that of the first."""
    lines: list[str] = []
    if process := found.get("process"):
        lines += [f"process {process['pid']} ({process['name']})", ""]
    kinds: dict[object, list[Json]] = {}
    for socket in found["sockets"]:
        kinds.setdefault(_kind(socket), []).append(socket)
    for sockets in kinds.values():
        for socket in sockets[:SHOWN_MAX]:
            lines += wrapped(_socket_text(socket))
        if len(sockets) > SHOWN_MAX:
            lines.append(f"… and {len(sockets) - SHOWN_MAX} more")
        lines += [*_said(sockets[0]), ""]
    if found["left_out"]:
        lines.append(f"{found['left_out']} more sockets are left out.")
    return "\n".join(map(printable, lines)).rstrip()


def _kind(socket: Json) -> object:
    """What is said, without the evidence."""
    session = socket["session"] or {"findings": (), "pairs": ()}
    texts = [finding["text"] for finding in (*socket["findings"], *session["findings"])]
    pairs = [(pair["local"], pair["remote"], *_codes(pair["findings"])) for pair in session["pairs"]]
    return (bool(socket["session"]), *texts, *pairs)


def _codes(findings: Iterable[Json]) -> list[str]:
    return [finding["code"] for finding in findings]


def _said(socket: Json) -> list[str]:
    if socket["session"]:
        return why_lines(socket["session"])
    if not socket["findings"]:
        return ["  It offers MPTCP to its clients."]
    return [line for finding in socket["findings"] for line in finding_lines(finding, "  ")]


def _socket_text(socket: Json) -> str:
    kind = "MPTCP" if socket["mptcp"] else "TCP"
    if socket["remote"] is None:
        return f"{endpoint(socket['local'])} {kind}, listening"
    ends = f"{endpoint(socket['local'])} → {endpoint(socket['remote'])}"
    session = f", {session_text(socket['session'])}" if socket["session"] else ""
    return f"{ends} {kind}, {socket['state'].replace('_', '-')}{session}"
