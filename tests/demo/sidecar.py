# SPDX-License-Identifier: Apache-2.0
"""``make demo-sidecar``: docker/compose.yaml, an unchanged iperf3 whose connections use both networks.

With DEMO_ONCE=1: some seconds, the table once, and exit status 0 only if every connection has an established
subflow on each network and carries data on both, by the kernel's word (ss), and the sidecar says why.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from rich.console import Console

from tests.demo.view import View, console, watch
from tests.lab.containers import Project, make_image, project
from tests.lab.waiting import wait_equal

NETWORKS = 2


def differences(sidecar: Project) -> list[str]:
    """What is not as it should be, in words."""
    found = []
    kernel = {
        token: {f.local for f in flows if f.state == "ESTAB"} for token, flows in sidecar.subflows().items()
    }
    if not kernel:
        found.append("the application has no connection")
    for token, local in kernel.items():
        if len(local) != NETWORKS:
            found.append(f"{token:#010x} is established on {', '.join(sorted(local)) or 'no network'} only")
    for session in sidecar.sessions():
        if session["policy"] != "application":
            found.append(f"{session['token']} has the policy {session['policy']}")
        if not all(flow["reason"] for flow in session["subflows"]):
            found.append(f"{session['token']} has a subflow without a reason")
    if len(carrying := [ip for ip, count in sidecar.acked().items() if count > 100_000]) != NETWORKS:
        found.append(f"data on {', '.join(carrying) or 'no network'} only")
    return found


def check_once(shown: Console, sidecar: Project, view: View) -> int:
    try:
        wait_equal(lambda: differences(sidecar), [], deadline_s=30)
    except AssertionError as e:
        shown.print(f"not reached: {e}")
    view.table()
    time.sleep(2)
    shown.print(view.table())
    found = differences(sidecar)
    shown.print("\n".join(found) or "every connection of the application uses both networks")
    return 1 if found else 0


def main() -> int:
    # SIGTERM unwinds the stack as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    shown = console()
    try:
        make_image()
        shown.print("starting the containers of docker/compose.yaml ...")
        with project("docker/compose.yaml", name="-demo") as sidecar:
            sidecar.up("--build")
            view = View(sidecar, title="mptcp-pm: sessions of the application")
            if os.environ.get("DEMO_ONCE") == "1":
                return check_once(shown, sidecar, view)
            watch(shown, view)
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
