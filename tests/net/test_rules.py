# SPDX-License-Identifier: Apache-2.0
"""Connection thresholds, accept rules and commands by hand."""

from __future__ import annotations

import pytest

from tests.lab.lab import Lab
from tests.lab.scenarios import ALL_ADDRESSES, config, mesh, policy, wait_pairs, wait_reported
from tests.lab.service import ApiError
from tests.lab.waiting import wait_equal, wait_for


def test_start_after(lab: Lab) -> None:
    """No extra subflow before the session has the age; the history tells when it was reached."""
    lab.server()
    service = lab.service(config(policy(lab, "a", start={"after": "1s"})))
    lab.client(cgroup="a").open()
    wait_pairs(lab, mesh(lab))
    (session,) = service.sessions()
    events = {e["event"]: e["time"] for e in service.get(f"/v1/sessions/{session['token']}")["events"]}
    assert events["established"] < events["start_reached"] < events["subflow_established"]


def test_start_after_bytes(lab: Lab) -> None:
    """A session that moves nothing gets nothing; 64 KiB later it has its mesh."""
    lab.server()
    service = lab.service(config(policy(lab, "a", start={"after_bytes": "64KiB"})))
    quiet, busy = lab.client(cgroup="a"), lab.client(cgroup="a")
    quiet.open()
    busy.open()
    busy.send(bytes=200_000)
    wait_equal(lambda: sorted(len(f) for f in lab.subflows().values()), [1, 2])
    assert sorted(len(s["subflows"]) for s in service.sessions()) == [1, 2]


def test_accept_max_subflows(lab: Lab) -> None:
    """The server's policy lets two subflows in; the client's further joins are reset."""
    lab.server(cgroup="srv")
    service = lab.service(config(policy(lab, "srv", "none", accept={"max_subflows": 2})), ns="server")
    lab.service(config(policy(lab, "a", {"ndiffports": {"subflows": 4}})))
    lab.client(cgroup="a").open()
    wait_for(lambda: service.get("/v1/status")["counters"].get("joins_refused", 0) >= 2, "two refused joins")
    wait_equal(lambda: lab.established("server"), [2])


def test_accept_from(lab: Lab) -> None:
    """A join from outside the prefixes is refused, one from inside stays."""
    lab.server(cgroup="srv")
    prefix = lab.address("client", 1).rsplit(".", 1)[0] + ".0/24"
    service = lab.service(config(policy(lab, "srv", "none", accept={"from": [prefix]})), ns="server")
    lab.service(config(policy(lab, "a", {"fullmesh": {"subflows_per_pair": 2}})))
    lab.client(cgroup="a").open()
    wait_for(lambda: service.get("/v1/status")["counters"].get("joins_refused", 0) >= 2, "two refused joins")
    remote, inside = lab.address("server", 1), lab.address("client", 1)
    wait_pairs(lab, [(remote, inside)] * 2, ns="server")


def test_subflows_by_hand(lab: Lab) -> None:
    """POST opens, PATCH sets the backup flag, DELETE closes, and the path manager respects all three."""
    lab.server()
    service = lab.service(config(policy(lab, "a", "none")))
    lab.client(cgroup="a").open()
    (session,) = wait_reported(service, 1, policy="a")
    path = f"/v1/sessions/{session['token']}/subflows"
    local, remote = lab.address("client", 2), lab.address("server", 1)
    service.post(path, {"local": local, "remote": remote, "remote_port": 5000})
    wait_pairs(lab, mesh(lab))
    (session,) = wait_reported(service, 2)
    subflow = next(f for f in session["subflows"] if f["local"]["ip"] == local)
    assert subflow["origin"] == "operator"
    service.patch(f"{path}/{subflow['id']}", {"backup": True})
    wait_for(
        lambda: [f.flags for fs in lab.subflows().values() for f in fs if f.local == local and f.backup],
        "a backup subflow",
    )
    service.delete(f"{path}/{subflow['id']}")
    wait_pairs(lab, mesh(lab)[:1])


def test_delete_holds_against_the_path_manager(lab: Lab) -> None:
    """A subflow closed by hand is not opened again until a reload."""
    lab.server()
    service = lab.service(config(policy(lab, "a"), **ALL_ADDRESSES))
    lab.client(cgroup="a").open()
    wait_pairs(lab, mesh(lab))
    (session,) = wait_reported(service, 2)
    subflow = next(f for f in session["subflows"] if f["origin"] == "policy")
    service.delete(f"/v1/sessions/{session['token']}/subflows/{subflow['id']}")
    wait_pairs(lab, mesh(lab)[:1])
    lab.add_address("client", 2, "10.77.2.77")  # a reconciliation that could have reopened it
    wait_pairs(lab, [*mesh(lab)[:1], ("10.77.2.77", lab.address("server", 1))])


def test_errors_of_commands_by_hand(lab: Lab) -> None:
    """404 for what is not there, 409 with the kernel's own message for what it refuses."""
    lab.server()
    service = lab.service(config(policy(lab, "a", "none")))
    lab.client(cgroup="a").open()
    (session,) = wait_for(service.sessions, "a session")
    good = {"local": lab.address("client", 2), "remote": lab.address("server", 1), "remote_port": 5000}
    with pytest.raises(ApiError) as e:
        service.post("/v1/sessions/0x1/subflows", good)
    assert e.value.status == 404
    with pytest.raises(ApiError) as e:
        service.delete(f"/v1/sessions/{session['token']}/subflows/nothing")
    assert e.value.status == 404
    with pytest.raises(ApiError) as e:
        service.post(f"/v1/sessions/{session['token']}/subflows", good | {"local": "10.99.99.99"})
    assert e.value.status == 409
    assert "EADDRNOTAVAIL" in str(e.value.problem)
