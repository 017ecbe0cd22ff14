# SPDX-License-Identifier: Apache-2.0
"""``make demo``: three iperf3, two policies, one table that shows what each session has and why.

Client and server are joined by two links of 100 Mbit/s. With DEMO_ONCE=1: some seconds, the table
once, and exit status 0 only if every session has exactly the subflows its policy asks for,
by the kernel's word (ss) and by the service's.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import Any, NamedTuple

from rich.console import Console

from tests.demo.view import View, console, watch
from tests.lab.lab import Lab
from tests.lab.service import Service
from tests.lab.waiting import wait_equal

Pairs = Counter[tuple[str, str]]


class Application(NamedTuple):
    """One iperf3 and what its sessions should have. Its two connections (control, data) are two sessions."""

    cgroup: str
    port: int
    policy: str | None
    wanted: Pairs


def applications(lab: Lab) -> list[Application]:
    client, server = lab.addresses("client"), lab.addresses("server")
    initial = (client[0], server[0])
    # Sessions of no policy have what `ip mptcp` says: a subflow to what the server announces.
    others = Counter([initial, (client[1], server[1])])
    return [
        Application("sync", 5201, "sync", Counter(itertools.product(client, server))),
        Application("shell", 5202, "shell", Counter({initial: 3})),
        Application("other", 5203, None, others),
    ]


def configuration(lab: Lab) -> dict[str, Any]:
    return {
        "policies": [
            {"name": "sync", "cgroup": lab.cgroup("sync"), "path_manager": "fullmesh"},
            {
                "name": "shell",
                "cgroup": lab.cgroup("shell"),
                "path_manager": {"ndiffports": {"subflows": 3}},
            },
        ]
    }


def start(lab: Lab) -> Service:
    """Traffic and service. The server's kernel announces its second address, as a multihomed server does."""
    for link in (1, 2):
        lab.shape(link, mbit=100)
    lab.ip("server", "mptcp", "endpoint", "add", lab.address("server", 2), "dev", "eth1", "signal")
    service = lab.service(configuration(lab))
    quiet: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    }
    iperf3 = ["mptcpize", "run", "iperf3"]
    for app in applications(lab):
        lab.popen([*iperf3, "--server", "--port", str(app.port)], ns="server", **quiet)
    wait_equal(lambda: lab.run("server", "ss", "-HtlnO").count("LISTEN"), 3)
    for app in applications(lab):
        args = ["--client", lab.address("server", 1), "--port", str(app.port), "--time", "0"]
        lab.popen([*iperf3, *args], cgroup=app.cgroup, **quiet)
    return service


def differences(lab: Lab, service: Service) -> list[str]:
    """What is not as the policies ask for, in words: of the kernel's subflows, and of the service's."""
    found = []
    kernel = [flows for flows in lab.subflows().values() if any(f.state == "ESTAB" for f in flows)]
    reported = service.sessions()
    for app in applications(lab):
        ours: list[Pairs] = [
            Counter((f.local, f.remote) for f in flows)
            for flows in kernel
            if flows[0].remote_port == app.port
        ]
        shown = [s for s in reported if any(f["remote"]["port"] == app.port for f in s["subflows"])]
        theirs: list[Pairs] = [
            Counter((f["local"]["ip"], f["remote"]["ip"]) for f in s["subflows"]) for s in shown
        ]
        if ours != [app.wanted] * 2:
            found.append(f"{app.cgroup}: the kernel has {_words(ours)}, wanted twice {_words([app.wanted])}")
        if theirs != [app.wanted] * 2:
            found.append(f"{app.cgroup}: the service shows {_words(theirs)}")
        if any(s["policy"] != app.policy for s in shown):
            found.append(f"{app.cgroup}: policies {[s['policy'] for s in shown]}, wanted {app.policy}")
    return found


def _words(sessions: list[Pairs]) -> str:
    return "; ".join(", ".join(f"{n}x {a} - {b}" for (a, b), n in s.items()) for s in sessions) or "none"


def check_once(console: Console, lab: Lab, service: Service, view: View) -> int:
    """Wait for the subflows, let traffic flow, print; 0 if everything still is as asked for."""
    try:
        wait_equal(lambda: differences(lab, service), [], deadline_s=15)
    except AssertionError as e:
        console.print(f"not reached: {e}")
    view.table()
    time.sleep(3)
    console.print(view.table())
    found = differences(lab, service)
    console.print("\n".join(found) or "every session has exactly the subflows its policy asks for")
    return 1 if found else 0


def main() -> int:
    if os.geteuid() != 0:
        print("the demo needs root: network namespaces and cgroups", file=sys.stderr)
        return 1
    # SIGTERM unwinds the stack as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    once = os.environ.get("DEMO_ONCE") == "1"
    shown = console()
    try:
        with Lab() as lab:
            service = start(lab)
            view = View(service)
            if once:
                return check_once(shown, lab, service, view)
            watch(shown, view)
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
