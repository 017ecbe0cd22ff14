# SPDX-License-Identifier: Apache-2.0
"""What ``explain`` and ``reload --dry-run`` print for people."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from pm.cli.tables import add_row, duration_text, facts_grid, new_table, pair_text, unroutable_table
from pm.errors import Problem

Json = dict[str, Any]


def explanation_report(found: Json) -> RenderableType:
    if found["policy"] is None:
        return Text(f"no policy owns connections of {found['cgroup']}: they are left alone")
    start = found["start"]
    waits = [duration_text(start["after_s"])] if start["after_s"] else []
    waits += [f"{start['after_bytes']} bytes"] if start["after_bytes"] else []
    rows = [
        ("cgroup", found["cgroup"]),
        ("policy", f"{found['policy']} ({found['matched']})"),
        ("path manager", found["path_manager"]),
        ("initial subflow", f"{found['local']} × {found['remote']} port {found['remote_port']}"),
        ("others after", " and ".join(waits) or "at once"),
    ]
    parts: list[RenderableType] = [facts_grid(*rows)]
    if found["subflows"]:
        subflows = new_table("SUBFLOW", "", "BOUND")
        for planned in found["subflows"]:
            bound = "to its interface" if planned["bound"] else ""
            add_row(subflows, pair_text(planned), "backup" if planned["backup"] else "", bound)
        parts += ["", subflows]
    else:
        parts += ["", Text("no other subflow")]
    if found["unroutable"]:
        parts += ["", unroutable_table(found["unroutable"])]
    if found.get("complaint"):
        parts += ["", Text(f"path manager {found['path_manager']}: {found['complaint']}", "yellow")]
    return Group(*parts)


def dry_run_report(run: Json) -> RenderableType:
    parts: list[RenderableType] = [Text(str(Problem(**warning)), "yellow") for warning in run["warnings"]]
    counts = f"{run['opens']} subflows opened, {run['closes']} closed, in {run['sessions']} sessions"
    if run["digest"] == run["in_force"]:
        parts.append(Text(f"{run['path']} is in force already"))
    parts.append(Text(f"{run['path']} ({run['digest'][:12]}): {counts}"))
    for session in run["changed"]:
        moved = f": policy {session['policy']} → {session['new_policy']}"
        parts.append(Text(session["token"] + moved * (session["policy"] != session["new_policy"])))
        parts += [Text(f"  open   {pair_text(o)}{' backup' * o['backup']}") for o in session["opens"]]
        parts += [Text(f"  close  {closed['id']} ({closed['reason']})") for closed in session["closes"]]
        parts += [Text(f"  backup {b['id']} {'on' if b['backup'] else 'off'}") for b in session["backups"]]
    return Group(*parts)
