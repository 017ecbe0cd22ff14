# SPDX-License-Identifier: Apache-2.0
"""Shared by the tests of TCP options: two services, connections between their policies, what sockets have."""

from __future__ import annotations

import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

from pm.linux.bpf import libbpf
from pm.linux.bpf.tcp_option_layouts import BUILT_IN, OptionRecord
from pm.linux.bpf.tcp_option_maps import read_records
from pm.linux.host.netns import netns_cookie
from pm.programs.tcp_option_programs import PluginReport, plugin_reports
from tests.lab.capture import Option
from tests.lab.lab import Lab, Side
from tests.lab.netns import inside
from tests.lab.scenarios import config, policy
from tests.lab.service import ROOT, Service
from tests.lab.traffic import Traffic

# A namespace starts with the host's; setting it inside takes privileges that a namespace does not give.
USUAL = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
ASKED = "reno" if USUAL != "reno" else "cubic"
ALGORITHMS = {"reno": 1, "cubic": 2, "vegas": 3, "bbr": 4}

ACCEPT: dict[str, Any] = {
    "user_timeout": {"accept": {"min": "5s", "max": "10min"}},
    "congestion_control": {"accept": ["reno", "cubic"]},
    "initial_window": {"accept": {"max": 40, "from": ["10.77.0.0/16", "fd00:77::/32"]}},
    "delayed_ack": {"accept": True},
}
SEND: dict[str, Any] = {
    "user_timeout": {"advertise": "30s"},
    "congestion_control": {"request": ASKED},
    "initial_window": {"request": 20},
    "delayed_ack": {"request": {"fraction": 0.25}},
}
# What a client with SEND puts on the wire.
WIRE = {
    "user_timeout": Option(28, bytes.fromhex("001e")),
    "initial_window": Option(253, bytes.fromhex("4d490014")),
    "congestion_control": Option(253, bytes((0x4D, 0x43, ALGORITHMS[ASKED]))),
    "delayed_ack": Option(253, bytes.fromhex("4d441000")),
}


def pinned(lab: Lab, side: Side, name: str) -> int:
    """A descriptor of a service's map; the caller closes it."""
    cookie = str(inside(lab.netns(side), netns_cookie))
    (path,) = [path for path in lab.pins() if path.parent.name == cookie and path.name == name]
    return libbpf.open_pin(path)


class End:
    """A process on one side of a connection, and what happened to the options of its sockets."""

    def __init__(self, lab: Lab, side: Side, cgroup: str, *args: str) -> None:
        self.lab, self.side = lab, side
        command = [sys.executable, str(ROOT / "tests/lab/tcp_options_tool.py"), side, *args]
        self.process: subprocess.Popen[str] = lab.popen(
            command, side, cgroup, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.driver = Traffic(self.process)
        self.do = self.driver.do

    def get(self) -> dict[str, Any]:
        return self.do("get")

    def record(self) -> OptionRecord | None:
        """The program's record of the newest connection's socket, or of its initial subflow."""
        fd = pinned(self.lab, self.side, "states")
        ports = tuple(self.get()["ports"])
        try:
            records = inside(self.lab.netns(self.side), lambda: read_records(fd, [ports]))
        finally:
            os.close(fd)
        assert len(records) <= 1
        return next(iter(records.values()), None)

    def reports(self, plugins: tuple[str, ...] = BUILT_IN) -> dict[str, PluginReport]:
        """What happened on the newest connection, by plugin."""
        record = self.record()
        return {r.plugin: r for r in plugin_reports(record, plugins)} if record else {}

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class Connection:
    """A connection and its two ends; ``with`` ends both."""

    def __init__(
        self,
        lab: Lab,
        client_cgroup: str = "client",
        server_cgroup: str = "server",
        *,
        family: int = 4,
        mptcp: bool = False,
        port: int = 5000,
        client: tuple[str, ...] = (),
        server: tuple[str, ...] = (),
    ) -> None:
        common = ["--port", str(port), *(["--mptcp"] if mptcp else [])]
        self.server = End(lab, "server", server_cgroup, *common, *server)
        self.client = End(lab, "client", client_cgroup, lab.address("server", 1, family), *common, *client)

    def __enter__(self) -> Connection:
        self.client.do("open")
        self.server.do("open")
        return self

    def exchange(self, request: int = 100, answer: int = 100) -> None:
        """The client sends, the server answers, both have received all."""
        self.client.do("send", bytes=request)
        self.server.do("receive", bytes=request)
        self.server.do("send", bytes=answer)
        self.client.do("receive", bytes=answer)

    def __exit__(self, *error: object) -> None:
        self.client.close()
        self.server.close()


def start(lab: Lab, client: dict[str, Any], server: dict[str, Any], **top: Any) -> tuple[Service, Service]:
    """A service on each side; each argument is cgroup -> options of its policy. (client's, server's)."""
    return (
        lab.service(with_options(lab, client, **top)),
        lab.service(with_options(lab, server, **top), ns="server"),
    )


def with_options(lab: Lab, options: dict[str, Any], **top: Any) -> dict[str, Any]:
    """A configuration: cgroup -> options of its policy. Copies, since YAML would write an alias."""
    policies = (policy(lab, cgroup, "none", options=deepcopy(o)) for cgroup, o in options.items())
    return config(*policies, **deepcopy(top))


def events(service: Service, option: str) -> dict[str, int]:
    """Events of an option that happened at all."""
    counted = service.get("/v1/status")["options"][option]
    return {event: count for event, count in counted.items() if count}
