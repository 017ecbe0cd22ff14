# SPDX-License-Identifier: Apache-2.0
"""What subflows have carried, those that have ended too, as JSON: pure functions."""

from __future__ import annotations

from datetime import UTC, datetime

from pm.api.closed_shapes import ClosedSubflowShape, EarlierSubflowsShape, TrafficShape
from pm.api.common_shapes import SubflowNameShape
from pm.model import Subflow
from pm.sessions.closed_subflows import ClosedSubflow
from pm.sessions.session import Session
from pm.sessions.traffic import Traffic


def rfc3339(time: float) -> str:
    """Seconds since the epoch as ``2026-11-22T21:46:56.123456Z``."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def traffic_view(traffic: Traffic) -> TrafficShape:
    return {
        "bytes_acked": traffic.bytes_acked,
        "bytes_received": traffic.bytes_received,
        "retransmits": traffic.retransmits,
    }


def subflow_name_view(subflow: Subflow) -> SubflowNameShape:
    return {
        "id": subflow.id,
        "local": {"ip": subflow.local, "port": subflow.local_port},
        "remote": {"ip": subflow.remote, "port": subflow.remote_port},
        "local_id": subflow.local_id,
        "remote_id": subflow.remote_id,
        "backup": subflow.backup,
        "peer_backup": subflow.peer_backup,
        "origin": subflow.origin,
    }


def closed_subflow_view(closed: ClosedSubflow) -> ClosedSubflowShape:
    subflow = closed.subflow
    return {
        **subflow_name_view(subflow),
        "interface": subflow.interface.name or None,
        "duration_s": round(closed.duration_s, 3),
        "closed_at": rfc3339(closed.closed.time),
        "reason": closed.reason,
        "rtt_s": subflow.figures.rtt_us / 1e6,
        "bytes_acked": subflow.figures.bytes_acked,
        "bytes_received": subflow.figures.bytes_received,
        "retransmits": subflow.figures.retransmits,
        "source": closed.source,
    }


def earlier_subflows_view(session: Session) -> EarlierSubflowsShape:
    """What the session's sum has beside the subflows that are listed."""
    rest = Traffic()
    rest.add_all(session.carried)
    listed = [*session.subflows, *(closed.subflow for closed in session.closed or ())]
    for subflow in {id(subflow): subflow for subflow in listed}.values():
        rest.subtract(subflow.figures)
    return {"count": session.closed.left_out if session.closed else 0, **traffic_view(rest)}
