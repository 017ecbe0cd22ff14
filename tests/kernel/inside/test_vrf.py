# SPDX-License-Identifier: Apache-2.0
"""VRFs and sockets that are bound to a device: the kernel gives subflows nothing of it. Both datapaths.

The machine on which tests/net run need not have VRFs; the patched kernel does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.scenarios import config, policy
from tests.lab.waiting import wait_equal, wait_for


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Links 3 and 4 of the client belong to the VRF ``blue``."""
    with Lab(client=4, server=1) as lab:
        lab.ip("client", "link", "add", "blue", "type", "vrf", "table", "500")
        lab.ip("client", "link", "set", "blue", "up")
        for link in (3, 4):
            lab.ip("client", "link", "set", f"eth{link - 1}", "master", "blue")
            router = f"10.77.{link}.254"
            lab.ip("client", "route", "add", "default", "via", router, "table", "500", "metric", str(link))
        lab.server()
        yield lab


@pytest.mark.parametrize("datapath", ["netlink", "bpf"])
def test_a_session_stays_where_its_socket_is_bound(lab: Lab, datapath: str) -> None:
    """Unbound sessions stay out of the VRF, those of the VRF within, and those of a device on it.

    The next service finds it out again; and a link of the VRF that returns is used again.
    """

    def locals_of_sessions() -> Counter[tuple[str, ...]]:
        return Counter(
            tuple(sorted(f.local for f in flows if f.state == "ESTAB")) for flows in lab.subflows().values()
        )

    first, second, third, fourth = lab.addresses("client")
    service = lab.service(config(policy(lab, "a"), datapath=datapath))
    wanted = Counter({(first, second): 2, (third, fourth): 2, (fourth,): 2})
    devices = ((), ("--device", "blue"), ("--device", "eth3"))
    clients = [lab.client(None, *device, cgroup="a") for device in devices]
    for client in clients:
        client.open(1)
    for client in clients:
        client.open(1)
    wait_equal(locals_of_sessions, wanted)
    service.kill()
    service.start()
    lab.set_link("client", 3, up=False)
    wait_equal(locals_of_sessions, Counter({(first, second): 2, (fourth,): 4}))
    lab.set_link("client", 3, up=True)
    wait_equal(locals_of_sessions, wanted)
    unroutable = [p for s in service.sessions() for p in s["unroutable"]]
    wait_for(lambda: not unroutable, "no pair is left out")
    for client in clients:
        client.send(bytes=50_000)
