# SPDX-License-Identifier: Apache-2.0
"""What the service says that subflows have carried, those that have ended too: compared with ss."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from tests.lab.lab import Lab
from tests.lab.netns import run_inside
from tests.lab.scenarios import config, mesh, policy, wait_pairs
from tests.lab.service import Service
from tests.lab.traffic import Traffic
from tests.lab.waiting import wait_equal, wait_for

FAMILIES = pytest.mark.parametrize("family", [4, 6])
PAYLOAD = 300_000
Json = dict[str, Any]


class Bytes(NamedTuple):
    acked: int
    received: int


def is_quiet(lab: Lab) -> bool:
    """Nothing is on its way, and nothing will be sent again, neither by TCP nor by MPTCP."""
    for ns in ("client", "server"):
        netns = lab.netns(ns)
        for line in run_inside(netns, "ss", "-tniOH", "state", "established").splitlines():
            if line.split()[:2] != ["0", "0"]:
                return False
        for line in run_inside(netns, "ss", "-MniOH", "state", "established").splitlines():
            sent = dict(re.findall(r"(write_seq|snd_una):(\w+)", line))
            if len(set(sent.values())) != 1:
                return False
    return True


def ss_bytes(lab: Lab, ns: str = "client") -> dict[str, Bytes]:
    """What ss shows of each established MPTCP subflow once all is quiet, by its ends as in REST."""
    wait_for(lambda: is_quiet(lab), "quiet connections")
    found = {}
    for line in run_inside(lab.netns(ns), "ss", "-tniOH", "state", "established").splitlines():
        if "tcp-ulp-mptcp" in line:
            counts = dict(re.findall(r"(bytes_acked|bytes_received):(\d+)", line))
            ends = "-".join(end.replace("[", "").replace("]", "") for end in line.split()[2:4])
            name = ends.replace("::ffff:", "")
            found[name] = Bytes(int(counts.get("bytes_acked", 0)), int(counts.get("bytes_received", 0)))
    return found


def only_session(service: Service) -> Json:
    (session,) = service.sessions()
    found: Json = service.get(f"/v1/sessions/{session['token']}")
    return found


def wait_closed(service: Service, count: int, source: str) -> list[Json]:
    """The closed subflows of the only session, once there are so many with figures from there."""
    return wait_for(
        lambda: only_session(service)["closed_subflows"],
        f"{count} closed subflows, {source}",
        until=lambda closed: [c["source"] for c in closed] == [source] * count,
    )


def connect(lab: Lab, family: int, cgroup: str = "a") -> Traffic:
    """A session over all links that has carried ``PAYLOAD`` each way."""
    client = lab.client(lab.address("server", 1, family), cgroup=cgroup)
    client.open()
    wait_pairs(lab, mesh(lab, family))
    client.send(bytes=PAYLOAD)
    return client


def close_join(service: Service) -> str:
    """Close a subflow that the policy opened; its id."""
    session = only_session(service)
    join = next(s["id"] for s in session["subflows"] if s["origin"] == "policy")
    service.delete(f"/v1/sessions/{session['token']}/subflows/{quote(join, safe='')}")
    return str(join)


def assert_agree(closed: Json, before: Bytes) -> None:
    """What ss showed when nothing was under way any more; a FIN may have come after that."""
    assert closed["bytes_acked"] - before.acked in (0, 1)
    assert closed["bytes_received"] - before.received in (0, 1)


@FAMILIES
def test_a_closed_join_keeps_its_figures(lab: Lab, family: int) -> None:
    """On both ends: the totals of the session include it, and agree with what ss showed."""
    lab.server(cgroup="s")
    service = lab.service(config(policy(lab, "a")))
    peer = lab.service(config(policy(lab, "s", "none")), ns="server")
    connect(lab, family)
    ours, theirs = ss_bytes(lab), ss_bytes(lab, "server")
    join = close_join(service)
    (closed,) = wait_closed(service, 1, "kernel")
    assert (closed["id"], closed["reason"], closed["interface"]) == (join, "by hand", "eth1")
    assert_agree(closed, ours[join])
    (their_closed,) = wait_closed(peer, 1, "kernel")
    assert_agree(their_closed, theirs["-".join(reversed(join.split("-")))])
    session = only_session(service)
    (left,) = session["subflows"]
    now = ss_bytes(lab)[left["id"]]
    assert session["totals"]["bytes_acked"] == closed["bytes_acked"] + now.acked
    assert session["totals"]["bytes_received"] == closed["bytes_received"] + now.received
    assert session["totals"]["bytes_acked"] >= PAYLOAD
    nothing = {"bytes_acked": 0, "bytes_received": 0, "retransmits": 0}
    assert session["earlier_subflows"] == {"count": 0, **nothing}


def test_a_path_that_goes_away(lab: Lab) -> None:
    """Its FIN stays on the way for minutes, and its socket: until then the last sample is what is known.

    Its interface is known, although the address is gone.
    """
    lab.server()
    service = lab.service(config(policy(lab, "a")))
    connect(lab, 4)
    before = ss_bytes(lab)
    ip = lab.address("client", 2)
    lab.del_address("client", 2, ip)
    (closed,) = wait_closed(service, 1, "last_sample")
    assert (closed["local"]["ip"], closed["interface"]) == (ip, "eth1")
    assert_agree(closed, before[closed["id"]])


def test_sockets_older_than_the_program(lab: Lab) -> None:
    """Nobody reports them: they have what sock_diag showed last, and say so."""
    lab.server()
    first = lab.service(config(policy(lab, "a")))
    client = connect(lab, 4)
    before = ss_bytes(lab)
    first.stop()  # it takes its programs with it
    service = lab.service(config(policy(lab, "a")))
    assert len(only_session(service)["subflows"]) == 2
    join = close_join(service)
    (closed,) = wait_closed(service, 1, "last_sample")
    assert closed["id"] == join
    assert_agree(closed, before[join])
    client.close()


def test_selection_by_namespace(lab: Lab) -> None:
    """No program at all: sock_diag has the figures, here of a subflow that the peer closed."""
    lab.server()
    document = config({"name": "all", "cgroup": "/", "path_manager": "fullmesh"}, selection="namespace")
    service = lab.service(document)
    connect(lab, 4)
    before = ss_bytes(lab)
    join = close_join(service)
    (closed,) = wait_closed(service, 1, "last_sample")
    assert_agree(closed, before[join])


MANY = 70


def test_many_closed_subflows_are_added_up(lab: Lab) -> None:
    """The last 64 are listed; what those before them carried is in the sums."""
    lab.server()
    service = lab.service(config(policy(lab, "a", "none")))
    client = lab.client(cgroup="a")
    client.open()
    token = only_session(service)["token"]
    for number in range(1, MANY + 1):
        opened = service.post(f"/v1/sessions/{token}/subflows", {"local": lab.address("client", 2)})
        service.delete(f"/v1/sessions/{token}/subflows/{quote(opened['id'], safe='')}")
        wait_for(
            lambda: only_session(service),
            f"{number} closed subflows",
            until=lambda s: s["earlier_subflows"]["count"] + len(s["closed_subflows"]) == number,  # noqa: B023
        )
        # A peer that has not yet closed its side counts the subflow, and may be at its limit.
        wait_equal(lambda: [len(flows) for flows in lab.subflows("server").values()], [1])
    wait_closed(service, 64, "kernel")
    session = only_session(service)
    assert session["earlier_subflows"]["count"] == MANY - 64
    listed = [*session["closed_subflows"], session["earlier_subflows"]]
    (left,) = ss_bytes(lab).values()
    assert session["totals"]["bytes_acked"] == sum(part["bytes_acked"] for part in listed) + left.acked
