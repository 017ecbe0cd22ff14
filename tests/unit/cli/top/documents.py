# SPDX-License-Identifier: Apache-2.0
"""What the service says, as ``top`` gets it."""

from __future__ import annotations

from typing import Any

from pm.cli.top.collector import InterfaceRow, PolicyRow, Request, SessionRow, Snapshot
from pm.cli.top.session_rates import Rate
from pm.cli.top.views_of_top import View

Json = dict[str, Any]
MIB = 2**20


def interface(name: str = "eth0", **changes: Any) -> Json:
    return {
        "name": name,
        "index": 2,
        "state": "up",
        "kind": "usual",
        "addresses": ["10.0.1.1/24"],
        "used": True,
        "reason": None,
        "backup": False,
        "sessions": 3,
        "subflows": 6,
        "sent_per_second": 12.3 * MIB,
        "received_per_second": 0.5 * MIB,
        "bytes_sent": 5 * 2**30,
        "bytes_received": 2**20,
        "share": 0.75,
        "rtt": 0.0123,
        "retransmits": 4,
        "retransmits_per_second": 0.5,
        **changes,
    }


def policy(name: str = "sync", **changes: Any) -> Json:
    manager = {"name": "fullmesh", "parameters": {}}
    known = {"name": name, "cgroup": f"/{name}.slice", "path_manager": manager, "sessions": 3, "cgroups": []}
    return {**known, **changes}


def subflow(id_: str = "10.0.1.1:40001-10.0.1.2:443", **changes: Any) -> Json:
    return {
        "id": id_,
        "local": {"ip": "10.0.1.1", "port": 40001},
        "remote": {"ip": "10.0.1.2", "port": 443},
        "state": "established",
        "backup": False,
        "stuck": False,
        "reason": "initial subflow (application)",
        "rtt_s": 0.0015,
        "cwnd": 10,
        "congestion_control": "cubic",
        "bytes_sent": 1000,
        "bytes_received": 2000,
        "retransmits": 3,
        **changes,
    }


def session(token: str = "0xa0000001", **changes: Any) -> Json:
    return {
        "token": token,
        "role": "client",
        "state": "established",
        "policy": "sync",
        "path_manager": "fullmesh",
        "cgroup": "/system.slice/rsync1.service",
        "age_s": 75.0,
        "sampled_at": "2026-11-26T12:00:00.000000Z",
        "remote_addresses": [{"ip": "10.0.1.2", "port": 443, "address_id": 0}],
        "subflows": [subflow(), subflow("10.0.2.1:50000-10.0.2.2:443", backup=True)],
        **changes,
    }


def detail(**changes: Any) -> Json:
    events = [
        {"time": "2026-11-26T11:59:00.000000Z", "event": "created", "detail": ""},
        {"time": "2026-11-26T11:59:01.000000Z", "event": "established", "detail": ""},
    ]
    return {**session(), "missing": [], "events": events, **changes}


def status(**changes: Any) -> Json:
    known = {"version": "0.1.0", "ready": True, "reasons": [], "datapath": "netlink", "sessions": 3}
    return {**known, "config": {"last_reload": {"ok": True}}, **changes}


def snapshot(view: View = View.INTERFACES, **changes: Any) -> Snapshot:
    eth1 = interface("eth1", sent_per_second=0.0, received_per_second=0.0, share=0.25, rtt=None)
    unused = interface(
        "eth2", state="no carrier", used=False, reason="no default route", subflows=0, share=None
    )
    both = [0.0, 1.0, 2.0, 4.0, 8.0]
    return Snapshot(
        Request(view, opened=changes.pop("opened", None)),
        1.7e9,
        changes.pop("status", None) or status(),
        Rate(12.3 * MIB, 0.5 * MIB),
        3,
        [InterfaceRow(i, both) for i in changes.pop("interfaces", (interface(), eth1, unused))],
    )._replace(
        policies=[
            PolicyRow(policy(), {"eth0": Rate(3.0 * MIB, 0.0), "eth1": Rate(0.0, 1.0 * MIB)}, both),
            PolicyRow(policy("rest", sessions=9), {}, []),
        ],
        sessions=[
            SessionRow(session(), Rate(2048.0, 0.0), both),
            SessionRow(session("0xa0000002", policy=None, cgroup=None), None, []),
        ],
        **changes,
    )
