# SPDX-License-Identifier: Apache-2.0
"""What the service knows, as JSON: pure functions from the model to ``shapes``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pm.api.closed_views import (
    closed_subflow_view,
    earlier_subflows_view,
    rfc3339,
    subflow_name_view,
    traffic_view,
)
from pm.api.control import Status, SubflowFigures
from pm.api.events import ServiceEvent
from pm.api.shapes import (
    AddressShape,
    ConfigProblemShape,
    EventShape,
    MissingPairShape,
    PolicyShape,
    ReadinessShape,
    RemoteAddressShape,
    RetryShape,
    SessionDetailShape,
    SessionShape,
    StatusShape,
    SubflowOptionShape,
    SubflowShape,
    UnroutableShape,
)
from pm.clock import Moment
from pm.errors import Problem
from pm.model import LocalAddress, Origin, Subflow, token_text
from pm.names import valid_text
from pm.notation import yaml_key
from pm.path_managers.endpoints import Endpoints
from pm.path_managers.remotes import reachable
from pm.policies.model import Policy
from pm.programs.tcp_option_programs import PluginReport
from pm.sessions.session import Session

_REASONS = {
    Origin.INITIAL: "initial subflow (application)",
    Origin.PEER: "opened by the peer",
    Origin.OPERATOR: "by hand",
}


def encode(value: Any) -> bytes:
    """JSON without blanks, UTF-8."""
    return valid_text(json.dumps(value, ensure_ascii=False, separators=(",", ":"))).encode()


def reason(subflow: Subflow, path_manager: str | None) -> str:
    """Say in words why a subflow was opened."""
    if subflow.origin is Origin.POLICY:
        return f"{path_manager or 'the kernel, or a former policy'}: {subflow.pair}"
    return _REASONS[subflow.origin]


def path_manager_of(session: Session) -> str | None:
    """None where the service leaves the session alone."""
    if session.policy:
        return session.policy.path_manager.name
    return Endpoints.name if session.unowned else None


def subflow_view(subflow: Subflow, path_manager: str | None, figures: SubflowFigures | None) -> SubflowShape:
    return {
        **subflow_name_view(subflow),
        "state": subflow.state,
        "stuck": subflow.stuck,
        "reason": reason(subflow, path_manager),
        "rtt_s": figures.rtt_us / 1e6 if figures else None,
        "cwnd": figures.cwnd if figures else None,
        "congestion_control": figures.congestion_control if figures else None,
        "bytes_sent": figures.bytes_sent if figures else None,
        "bytes_received": figures.bytes_received if figures else None,
        "retransmits": figures.retransmits if figures else None,
        "delivery_rate": figures.delivery_rate if figures else None,
    }


def unroutable_views(session: Session) -> list[UnroutableShape]:
    return [
        {"local": pair.local, "remote": pair.remote, "remote_port": pair.remote_port, "reason": why}
        for pair, why in session.unroutable.items()
    ]


def session_view(
    session: Session,
    cgroup: str | None,
    program: str | None,
    figures: Sequence[SubflowFigures | None],
    now: Moment,
) -> SessionShape:
    """``figures`` are this session's from ``ControlPlane.stats``."""
    policy, there, path_manager = session.policy, reachable(session), path_manager_of(session)
    initial: RemoteAddressShape = {"ip": session.remote, "port": session.remote_port, "address_id": 0}
    announced: list[RemoteAddressShape] = [
        {"ip": r.ip, "port": r.port, "address_id": r.address_id} for r in session.remotes
    ]
    failed: list[RetryShape] = [
        {
            "local": pair.local,
            "remote": pair.remote,
            "remote_port": pair.remote_port,
            "failures": retry.failures,
            "reason": retry.reason,
        }
        for pair, retry in (session.retries or {}).items()
        if (pair.remote, pair.remote_port) in there
    ]
    # A subflow that appeared after the figures were read has none yet.
    known = [*figures, *[None] * (len(session.subflows) - len(figures))]
    return {
        "token": token_text(session.token),
        "role": session.role,
        "state": session.state,
        "policy": policy.name if policy else None,
        "path_manager": path_manager,
        "cgroup": cgroup,
        "managed": session.managed,
        "program": program,
        "age_s": round(now.monotonic - session.created.monotonic, 3),
        "created_at": rfc3339(session.created.time),
        "established_at": rfc3339(session.established.time) if session.established else None,
        "sampled_at": rfc3339(now.time),
        "remote_addresses": [initial, *announced],
        "failed": failed,
        "unroutable": unroutable_views(session),
        "subflows": [subflow_view(s, path_manager, f) for s, f in zip(session.subflows, known, strict=False)],
    }


def session_detail_view(
    session: Session,
    cgroup: str | None,
    program: str | None,
    figures: Sequence[SubflowFigures | None],
    options: Sequence[tuple[str, PluginReport]],
    missing: list[MissingPairShape],
    now: Moment,
) -> SessionDetailShape:
    """A session with its history, newest last; ``options`` are (subflow id, report) pairs."""
    return {
        **session_view(session, cgroup, program, figures, now),
        "totals": traffic_view(session.carried),
        "closed_subflows": [closed_subflow_view(closed) for closed in session.closed or ()],
        "earlier_subflows": earlier_subflows_view(session),
        "missing": missing,
        "options": [_option_view(subflow, report) for subflow, report in options],
        "events": [
            {"time": rfc3339(entry.time), "event": entry.event, "detail": str(entry.detail)}
            for entry in session.history
        ],
    }


def _option_view(subflow: str, report: PluginReport) -> SubflowOptionShape:
    return {
        "subflow": subflow,
        "option": report.plugin,
        "sent": report.sent,
        "received": report.received,
        "applied": report.applied,
        "refused": report.refused,
    }


def policy_view(policy: Policy, attached: Mapping[str, str], sessions: int) -> PolicyShape:
    """``attached`` is that of the control plane; ``sessions`` is the policy's number of live sessions."""
    parameters = policy.path_manager.parameters
    networks = policy.accept.from_
    return {
        "name": policy.name,
        "cgroup": policy.cgroup,
        "path_manager": {
            "name": policy.path_manager.name,
            "parameters": dataclasses.asdict(parameters) if dataclasses.is_dataclass(parameters) else {},  # type: ignore[arg-type]
        },
        "start": {"after_s": policy.start.after, "after_bytes": policy.start.after_bytes},
        "announce": policy.announce,
        "accept": {
            "max_subflows": policy.accept.max_subflows,
            "from": None if networks is None else [str(network) for network in networks],
        },
        "options": _as_configured(policy.options),
        "cgroups": sorted(path for path, name in attached.items() if name == policy.name),
        "sessions": sessions,
    }


def _as_configured(value: Any) -> Any:
    """A part of the configuration as JSON, without the keys that were left out."""
    if dataclasses.is_dataclass(value):
        fields = {yaml_key(f.name): getattr(value, f.name) for f in dataclasses.fields(value)}
        return {key: _as_configured(part) for key, part in fields.items() if part is not None and part != ()}
    if isinstance(value, tuple):
        return [_as_configured(part) for part in value]
    return value if isinstance(value, bool | int | float | str | dict) else str(value)


def address_view(address: LocalAddress) -> AddressShape:
    return {
        "ip": address.ip,
        "prefix_len": address.prefix_len,
        "interface": address.ifname,
        "ifindex": address.ifindex,
        "usable": address.usable,
        "kind": address.kind,
        "metric": address.metric,
        "backup": address.backup,
        "up": address.up,
        "why": address.why,
    }


def problem_views(problems: Sequence[Problem]) -> list[ConfigProblemShape]:
    return [{"file": p.file, "line": p.line, "path": p.path, "message": p.message} for p in problems]


def status_view(status: Status, options: Mapping[str, Mapping[str, int]], now: Moment) -> StatusShape:
    """``options`` are those of ``ControlPlane.option_counters``."""
    return {
        "version": status.version,
        "pid": status.pid,
        "ready": status.ready,
        "reasons": list(status.reasons),
        "started_at": rfc3339(status.started_at.time),
        "uptime_s": round(now.monotonic - status.started_at.monotonic, 3),
        "datapath": status.datapath,
        "selection": status.selection,
        "kernel": {
            "release": status.kernel_release,
            "checks": [
                {
                    "name": check.name,
                    "ok": check.ok,
                    "required": check.required,
                    "found": check.found,
                    "remedy": check.remedy,
                }
                for check in status.checks
            ],
        },
        "config": {
            "path": status.config_path,
            "digest": status.config_digest,
            "warnings": problem_views(status.config_warnings),
            "sources": [{"path": path, "digest": digest} for path, digest in sorted(status.sources.items())],
            "last_reload": {
                "time": rfc3339(status.last_reload.time),
                "ok": status.last_reload.ok,
                "problems": problem_views(status.last_reload.problems),
            },
        },
        "sessions": status.sessions,
        "counters": dict(status.counters),
        "options": {plugin: dict(events) for plugin, events in options.items()},
    }


def readiness_view(status: Status) -> ReadinessShape:
    state: Literal["changed", "starting"] = "changed" if status.reasons else "starting"
    return {"status": "ok" if status.ready else state, "reasons": list(status.reasons)}


def event_view(event: ServiceEvent) -> EventShape:
    return {
        "time": rfc3339(event.time),
        "type": event.kind,
        "action": event.action,
        "token": None if event.token is None else token_text(event.token),
        "detail": dict(event.detail),
    }
