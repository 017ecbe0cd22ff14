# SPDX-License-Identifier: Apache-2.0
"""The record of a session, and the schema of records. Pure."""

from __future__ import annotations

import json
from typing import Any

from pm.api.closed_views import closed_subflow_view, earlier_subflows_view, rfc3339, traffic_view
from pm.api.schemas import Schema, schema_of
from pm.api.views import path_manager_of
from pm.model import RemoteAddress, token_text
from pm.records.record_shapes import AddressShape, RecordShape
from pm.sessions.endings import Ended


def record_of(ended: Ended) -> RecordShape:
    session, at = ended.session, ended.at
    return {
        "version": 1,
        "token": token_text(session.token),
        "role": session.role,
        "policy": session.policy.name if session.policy else None,
        "path_manager": path_manager_of(session),
        "managed": session.managed,
        "cgroup": ended.cgroup,
        "cgroup_id": ended.cgroup_id,
        "created_at": rfc3339(session.created.time),
        "established_at": rfc3339(session.established.time) if session.established else None,
        "ended_at": rfc3339(at.time),
        "duration_s": round(at.monotonic - session.created.monotonic, 3),
        "reason": ended.reason,
        "fallback": ended.fallback,
        "local": {"ip": session.local, "port": session.local_port},
        "remote": {"ip": session.remote, "port": session.remote_port},
        "announced": [
            {"ip": ip, "port": 0, "address_id": address_id}
            for ip, address_id in (session.announced or {}).items()
        ],
        "remote_addresses": [_address(remote) for remote in session.remotes],
        "refused_addresses": [_address(remote) for remote in session.refused_remotes],
        "totals": traffic_view(session.carried),
        "subflows": [closed_subflow_view(closed) for closed in session.closed or ()],
        "earlier_subflows": earlier_subflows_view(session),
    }


def _address(remote: RemoteAddress) -> AddressShape:
    return {"ip": remote.ip, "port": remote.port, "address_id": remote.address_id}


def record_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a record."""
    components: dict[str, Schema] = {}
    schema_of(RecordShape, components)
    text = json.dumps(components).replace("#/components/schemas/", "#/$defs/")
    definitions = json.loads(text)
    record = definitions.pop("Record")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Record of a session (mptcp-pm)",
        **record,
        "$defs": definitions,
    }
