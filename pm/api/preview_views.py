# SPDX-License-Identifier: Apache-2.0
"""What would be done, as JSON: pure functions."""

from __future__ import annotations

from pm.api.control import DryRun, Status
from pm.api.preview_shapes import ChangedSessionShape, DryRunShape, ExplanationShape, PlannedSubflowShape
from pm.api.views import problem_views, unroutable_views
from pm.model import token_text
from pm.sessions.actions import Close, Open, SetBackup
from pm.sessions.preview import Changed, Explanation


def explanation_view(cgroup: str, found: Explanation) -> ExplanationShape:
    session, policy = found.session, found.session.policy
    return {
        "cgroup": cgroup,
        "policy": policy.name if policy else None,
        "matched": policy.cgroup if policy else None,
        "path_manager": policy.path_manager.name if policy else None,
        "start": {"after_s": policy.start.after, "after_bytes": policy.start.after_bytes} if policy else None,
        "local": session.local,
        "remote": session.remote,
        "remote_port": session.remote_port,
        "subflows": [_planned(action) for action in found.subflows],
        "unroutable": unroutable_views(session),
        "complaint": session.complaint or None,
    }


def dry_run_view(run: DryRun, status: Status) -> DryRunShape:
    return {
        "path": status.config_path,
        "digest": run.loaded.digest,
        "in_force": status.config_digest,
        "warnings": problem_views(run.loaded.warnings),
        "sessions": run.prospect.sessions,
        "opens": run.prospect.opens,
        "closes": run.prospect.closes,
        "changed": [_changed(changed) for changed in run.prospect.changed],
    }


def _planned(action: Open) -> PlannedSubflowShape:
    pair = action.pair
    return {
        "local": pair.local,
        "remote": pair.remote,
        "remote_port": pair.remote_port,
        "backup": action.backup,
        "bound": bool(action.ifindex),
    }


def _changed(changed: Changed) -> ChangedSessionShape:
    session, policy, decisions = changed
    return {
        "token": token_text(session.token),
        "policy": session.policy.name if session.policy else None,
        "new_policy": policy.name if policy else None,
        "opens": [_planned(d) for d in decisions if isinstance(d, Open)],
        "closes": [{"id": d.subflow.id, "reason": d.reason} for d in decisions if isinstance(d, Close)],
        "backups": [{"id": d.subflow.id, "backup": d.backup} for d in decisions if isinstance(d, SetBackup)],
    }
