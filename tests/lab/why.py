# SPDX-License-Identifier: Apache-2.0
"""The findings of ``why``, and their commands as a person would run them."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import Any

from tests.lab.lab import Lab
from tests.lab.service import Service, command
from tests.lab.waiting import wait_for

ON_THE_PEER = "# on the peer: "


def findings(service: Service, token: str | None = None) -> dict[str, dict[str, Any]]:
    """Those of a session (default: the only one) and of its pairs, by code."""
    if token is None:
        (session,) = service.sessions()
        token = session["token"]
    why = service.get(f"/v1/sessions/{token}/why")
    found = [*why["findings"], *(f for pair in why["pairs"] for f in pair["findings"])]
    return {f["code"]: f for f in found}


def wait_finding(
    service: Service, code: str, token: str | None = None, deadline_s: float = 15.0
) -> dict[str, Any]:
    """Wait until there is such a finding."""
    what = f"the finding {code}"
    found = wait_for(
        lambda: findings(service, token), what, until=lambda codes: code in codes, deadline_s=deadline_s
    )
    return found[code]


def execute(lab: Lab, service: Service, line: str, **places: str) -> str:
    """Run a command of a finding where it belongs; ``places`` replace words such as GATEWAY."""
    for name, value in places.items():
        line = line.replace(name, value)
    ns = "client"
    if line.startswith(ON_THE_PEER):
        line, ns = line.removeprefix(ON_THE_PEER), "server"
    words = shlex.split(line)
    if words[0] == "mptcp-pm":
        environment = {**os.environ, "MPTCP_PM_SOCKET": str(service.socket_path)}
        words = [*command(), *words[1:]]
        return subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout
    return lab.run(ns, *words)
