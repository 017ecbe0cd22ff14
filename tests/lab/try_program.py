# SPDX-License-Identifier: Apache-2.0
"""``kernel/try``: what a path manager in BPF C does with one connection."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from pm.cli.tables import endpoint
from tests.lab.lab import Lab
from tests.lab.oracle import Flow
from tests.lab.scenarios import config, policy
from tests.lab.service import command

QUIET_S = 1.0  # when nothing has changed for so long, it is done


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ipv6", action="store_true")
    parser.add_argument("--announce", action="store_true")
    parser.add_argument("source", type=Path)
    parser.add_argument("parameters", nargs="*")
    arguments = parser.parse_args()
    source, family = arguments.source, 6 if arguments.ipv6 else 4
    parameters = {name: int(value) for name, _, value in (p.partition("=") for p in arguments.parameters)}
    program = {"program": {"name": source.stem, "source": str(source), "parameters": parameters}}
    _check(program)
    with Lab(client=3, server=2) as lab:
        if arguments.announce:
            second = lab.address("server", 2, family)
            lab.ip("server", "mptcp", "endpoint", "add", second, "dev", "eth1", "signal")
        lab.server()
        service = lab.service(config(policy(lab, "a", program), datapath="bpf"))
        lab.client(lab.address("server", 1, family), cgroup="a").open()
        flows = _settled(lambda: [f for flows in lab.subflows().values() for f in flows])
        print(f"{source.name}: {len(flows)} subflows")
        for flow in flows:
            kind = "initial" if flow.initial else "backup" if flow.backup else ""
            local = endpoint({"ip": flow.local, "port": flow.local_port})
            remote = endpoint({"ip": flow.remote, "port": flow.remote_port})
            print(f"  {local} -> {remote} {flow.state} {kind}".rstrip())
        counters = service.get("/v1/status")["counters"]
        print(f"opened by the program: {counters.get('claimed', 0) > 0 and not counters.get('open', 0)}")


def _check(path_manager: dict[str, Any]) -> None:
    """Exit with the problems of the C file, if it has any, in words."""
    chosen = {"policies": [{"name": "a", "cgroup": "/a", "path_manager": path_manager}], "datapath": "bpf"}
    with NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(chosen, file)
        file.flush()
        checked = subprocess.run([*command(), "check", file.name], stdout=subprocess.DEVNULL, check=False)
    if checked.returncode:
        sys.exit(checked.returncode)


def _settled(look: Callable[[], list[Flow]]) -> list[Flow]:
    """What is there once nothing changes any more."""
    found, since = look(), time.monotonic()
    while time.monotonic() < since + QUIET_S:
        if (now := look()) != found:
            found, since = now, time.monotonic()
        time.sleep(0.05)
    return found


if __name__ == "__main__":
    main()
