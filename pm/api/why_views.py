# SPDX-License-Identifier: Apache-2.0
"""What is missing and why, as JSON: pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from pm.api.common_shapes import EndpointShape
from pm.api.control import Connection, SocketReport
from pm.api.shapes import MissingPairShape
from pm.api.why_shapes import FindingShape, SocketShape, SocketsShape, WhyShape
from pm.findings import Finding
from pm.kernel import TcpState
from pm.model import token_text
from pm.sessions.missing import MissingPair
from pm.sessions.why import Why


def why_view(why: Why) -> WhyShape:
    policy = why.session.policy if why.session else None
    return {
        "token": token_text(why.token),
        "policy": policy.name if policy else None,
        "findings": finding_views(why.findings),
        "pairs": [
            {**missing_view(missing), "findings": finding_views(found)} for missing, found in why.pairs
        ],
    }


def sockets_view(report: SocketReport) -> SocketsShape:
    return {
        "namespace": report.namespace,
        "looked_at": report.looked_at,
        "left_out": report.left_out,
        "sockets": [_socket_view(connection) for connection in report.connections],
    }


def _socket_view(connection: Connection) -> SocketShape:
    socket = connection.socket
    remote: EndpointShape = {"ip": socket.remote, "port": socket.remote_port}
    return {
        "local": {"ip": socket.local, "port": socket.local_port},
        "remote": None if socket.is_listener else remote,
        "state": TcpState(socket.state).name.lower(),
        "inode": socket.inode,
        "cgroup": connection.cgroup,
        "mptcp": socket.mptcp,
        "findings": finding_views(connection.findings),
        "session": why_view(connection.why) if connection.why else None,
    }


def finding_views(findings: Sequence[Finding]) -> list[FindingShape]:
    return [
        {
            "code": finding.code,
            "text": finding.text,
            "evidence": list(finding.evidence),
            "commands": list(finding.commands),
            "likely": finding.likely,
        }
        for finding in findings
    ]


def missing_view(missing: MissingPair) -> MissingPairShape:
    return {
        "local": missing.pair.local,
        "remote": missing.pair.remote,
        "remote_port": missing.pair.remote_port,
        "state": missing.state,
        "age_s": _rounded(missing.age_s),
        "retransmits": missing.retransmits,
        "failures": missing.failures,
        "retry_in_s": _rounded(missing.retry_in_s),
        "reason": missing.reason,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
