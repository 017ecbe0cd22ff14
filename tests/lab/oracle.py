# SPDX-License-Identifier: Apache-2.0
"""The kernel's own word on MPTCP subflows, by ``ss``: what tests compare the service with."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.lab.netns import run_inside

# iproute2 misc/ss.c, mptcp_subflow_info(): token:REMOTE(id:N)/LOCAL(id:N), hexadecimal tokens.
_ULP = re.compile(
    r"tcp-ulp-mptcp flags:(?P<flags>\w*) "
    r"token:(?P<remote_token>\w+)\(id:(?P<remote_id>\d+)\)/(?P<token>\w+)\(id:(?P<local_id>\d+)\)"
)


class Flow(NamedTuple):
    """One TCP subflow. Addresses as ``inet_ntop`` writes them, IPv4 also where v4-mapped."""

    local: str
    local_port: int
    remote: str
    remote_port: int
    local_id: int
    remote_id: int
    state: str  # ss's word: ESTAB, SYN-SENT, ...
    flags: str  # ss's letters: M/m MP_CAPABLE, J/j joined (remote/local), B/b backup, e fully established
    device: str = ""  # what it is bound to

    @property
    def backup(self) -> bool:
        return "b" in self.flags.lower()

    @property
    def initial(self) -> bool:
        return "m" in self.flags.lower()


def read_subflows(netns: str) -> dict[int, list[Flow]]:
    """The subflows of a network namespace by local token, in every state."""
    return parse_subflows(run_inside(netns, "ss", "-tnaiOH"))


def parse_subflows(text: str) -> dict[int, list[Flow]]:
    """Output of ``ss -tnaiOH`` (one line per socket) to subflows by local token."""
    found: dict[int, list[Flow]] = {}
    for line in text.splitlines():
        ulp = _ULP.search(line)
        if ulp is None:
            continue
        state, _, _, local, remote = line.split()[:5]
        flow = Flow(
            *_endpoint(local),
            *_endpoint(remote),
            int(ulp["local_id"]),
            int(ulp["remote_id"]),
            state,
            ulp["flags"],
            local.rpartition(":")[0].partition("%")[2].strip("]"),
        )
        found.setdefault(int(ulp["token"], 16), []).append(flow)
    return found


def _endpoint(text: str) -> tuple[str, int]:
    """``10.0.0.1%eth0:80``, ``[fd00::1]:80``, ``[::ffff:10.0.0.1]:80`` to address and port."""
    host, _, port = text.rpartition(":")
    host = host.partition("%")[0].strip("[]").removeprefix("::ffff:")
    return host, int(port)
