# SPDX-License-Identifier: Apache-2.0
"""A machine goes from one datapath to the other, and from a policy to its programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pm.linux.bpf.path_manager_maps import MAPS, SOURCE
from tests.lab.commands import run
from tests.lab.lab import Lab
from tests.lab.scenarios import config, mesh, policy, wait_pairs
from tests.lab.service import ApiError
from tests.lab.waiting import wait_equal, wait_for


def test_netlink_after_a_killed_bpf_service() -> None:
    """Programs that were left would go on opening subflows: they are taken off, with their maps."""
    with Lab() as lab:
        lab.server()
        lab.cgroup("a")
        service = lab.service(config(policy(lab, "a"), datapath="bpf"))
        pinned = {path.name for path in lab.pins()}
        assert set(MAPS) <= pinned
        service.kill()
        assert {path.name for path in lab.pins()} == pinned
        service = lab.service(config(policy(lab, "a", {"ndiffports": {"subflows": 2}}), datapath="netlink"))
        assert not {path.name for path in lab.pins()} & set(MAPS)
        lab.client(cgroup="a").open()
        wait_pairs(lab, [mesh(lab)[0]] * 2)
        (session,) = service.sessions()
        assert session["managed"]
        assert session["program"] is None
        service.terminate()
        assert not lab.pins()


def test_claims_of_another_version() -> None:
    """A pinned map with another content is not taken over: the service manages what its programs claimed."""
    with Lab() as lab:
        lab.server()
        lab.cgroup("a")
        service = lab.service(config(policy(lab, "a"), datapath="bpf"))
        lab.client(cgroup="a").open()
        wait_pairs(lab, mesh(lab))
        service.kill()
        (pin,) = (str(path) for path in lab.pins() if path.name == "claims")
        ours = json.loads(lab.in_mounts("bpftool", "-j", "map", "show", "pinned", pin))
        lab.in_mounts("rm", pin)
        lab.in_mounts(
            *("bpftool", "map", "create", pin, "type", ours["type"], "key", str(ours["bytes_key"])),
            *("value", str(ours["bytes_value"]), "entries", str(ours["max_entries"])),
            *("name", "claims_0123ab", "flags", str(ours["flags"])),
        )
        service.start()
        found = json.loads(lab.in_mounts("bpftool", "-j", "map", "show", "pinned", pin))
        assert found["name"] == ours["name"] != "claims_0123ab"
        assert found["id"] != ours["id"]
        (session,) = wait_for(service.sessions, "the session", until=lambda found: found[0]["managed"])
        assert session["program"] is None
        lab.client(cgroup="a").open()
        wait_equal(
            lambda: [(s["program"], len(s["subflows"])) for s in service.sessions()],
            [(None, len(mesh(lab))), ("fullmesh", len(mesh(lab)))],
        )


@pytest.mark.parametrize("name", MAPS)
def test_every_map_is_known(name: str) -> None:
    """What is taken away is what the programs have."""
    assert name in Path(SOURCE).read_text()


def loaded() -> int:
    """Path managers' programs in the kernel."""
    listed = json.loads(run("bpftool", "-j", "prog", "show"))
    return sum(program.get("name", "").startswith("path_manager_") for program in listed)


def test_programs_wait_for_their_cgroups() -> None:
    """Loaded at the start, they stay so: no first connection of a new cgroup waits for the verifier."""
    with Lab() as lab:
        policies = config(policy(lab, "a"), policy(lab, "b", {"ndiffports": {"subflows": 2}}), datapath="bpf")
        service = lab.service(policies)
        assert loaded() == 2
        lab.cgroup("a")
        wait_for(
            lambda: lab.cgroup_path("a") in str(service.get("/v1/policies")),
            "the new cgroup among the policies' own",
        )
        assert loaded() == 2
        missing = {"program": {"name": "x", "source": "/nowhere.c"}}
        service.configure(config(policy(lab, "a"), policy(lab, "b", missing), datapath="bpf"))
        with pytest.raises(ApiError):
            service.reload()
        assert loaded() == 2
