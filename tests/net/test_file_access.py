# SPDX-License-Identifier: Apache-2.0
"""The event loop never waits for a file."""

from __future__ import annotations

import sys
from typing import Any

from tests.lab.lab import Lab
from tests.lab.waiting import wait_for


def test_no_file_is_used_in_the_loop(lab: Lab) -> None:
    """At start, in reloads, with new cgroups, sessions, questions and at the end: no blocking access."""
    lab.server()
    policy: dict[str, Any] = {
        "name": "a",
        "cgroup": lab.cgroup_path("a*"),
        "path_manager": "fullmesh",
        "options": {"user_timeout": {"advertise": "30s", "accept": {}}},
    }
    lab.cgroup("a")
    program = [sys.executable, "-m", "tests.lab.guarded_service"]
    service = lab.service({"policies": [policy]}, program=program)
    lab.client(cgroup="a").open(3)
    lab.wait_subflows(2, sessions=3)
    policy["path_manager"] = {"ndiffports": {"subflows": 3}}
    service.configure({"policies": [policy]})
    wait_for(lambda: service.get("/v1/status")["counters"].get("reloads", 0) >= 1, "a reload")
    service.post("/v1/reload")
    lab.cgroup("a2")
    wait_for(lambda: len(service.get("/v1/policies/a")["cgroups"]) == 2, "the new cgroup")
    for session in service.sessions(policy="a"):
        service.get(f"/v1/sessions/{session['token']}")
        service.get(f"/v1/sessions/{session['token']}/why")
    for path in ("/v1/addresses", "/v1/policies", "/v1/why?address=10.77.1.2", "/metrics", "/healthz"):
        service.get(path)
    assert service.process.poll() is None, service.log()
    service.terminate()
    assert service.process.returncode == 0, service.log()
    assert "BlockingError" not in service.log()
