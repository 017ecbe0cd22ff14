# SPDX-License-Identifier: Apache-2.0
"""`selection: namespace`: a sidecar that sees no cgroup but its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pm.linux.host.cgroups import find_cgroup_root
from tests.lab.lab import Lab
from tests.lab.netns import run_inside
from tests.lab.scenarios import config, count_programs, mesh, pairs_of, policy, ports_of
from tests.lab.service import Config, Service, command
from tests.lab.waiting import wait_equal, wait_for

CAPABILITY = ("setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin")
EVERYTHING = {"name": "all", "cgroup": "/", "path_manager": "fullmesh"}

Sidecar = Callable[..., Service]


@pytest.fixture
def sidecar(lab: Lab) -> Sidecar:
    """A service as an engine starts it: CAP_NET_ADMIN alone, and a cgroup namespace of its own."""
    root = find_cgroup_root()
    script = f'umount -l {root} && mount -t cgroup2 none {root} && umount -a -l -t bpf; exec "$@"'
    alone = ["unshare", "--cgroup", "--mount", "sh", "-c", script, "sh", *CAPABILITY]

    def start(document: Config, **arguments: Any) -> Service:
        service = lab.service(document, cgroup="sidecar", start=False, program=[], **arguments)
        service.prefix = []
        service.program = [*alone, *command()]
        return service.start()

    return start


def test_one_policy_owns_every_session(lab: Lab, sidecar: Sidecar) -> None:
    """With NET_ADMIN alone and nothing mounted: sessions of other cgroups have the policy for `/`."""
    lab.server()
    before = lab.client(cgroup="app")
    before.open()
    service = sidecar(config(EVERYTHING, policy(lab, "app")))
    after = lab.client(cgroup="app")
    after.open()
    wait_equal(lambda: [s["policy"] for s in service.sessions()], ["all", "all"])
    # The first one was there before the service: the kernel's path manager has it.
    wait_equal(lambda: pairs_of(lab, ports_of(after)), [Counter(mesh(lab))])
    status = service.get("/v1/status")
    assert (status["selection"], status["datapath"]) == ("namespace", "netlink")
    assert service.get("/v1/policies/all")["cgroups"] == ["/"]
    assert count_programs(lab, "app") == (0, 0)
    records = {line.get("event"): line for line in service.log_lines()}
    assert records["started"]["selection"] == "namespace"
    assert records["policies_without_sessions"]["policies"] == ["app"]
    service.configure(config({**EVERYTHING, "name": "other", "path_manager": "none"}))
    service.reload()
    assert [s["policy"] for s in service.sessions()] == ["other", "other"]
    service.terminate()


def test_what_needs_the_tree_is_refused(lab: Lab, sidecar: Sidecar) -> None:
    """A policy that could never own a session, and one with TCP options: an error with the mount."""
    service = sidecar(config(EVERYTHING))
    options = {"user_timeout": {"advertise": "30s"}}
    for document in (config(policy(lab, "app")), config({**EVERYTHING, "options": options})):
        service.configure(document)
        status, problem = service.request("POST", "/v1/reload")
        assert status == 422
        assert [p["path"] for p in problem["problems"]] == ["policies"] or "options" in json.dumps(problem)
        assert "-v /sys/fs/cgroup:/sys/fs/cgroup:ro" in json.dumps(problem)
    service.terminate()


def test_asked_for_on_a_host(lab: Lab) -> None:
    """Programs that a service with `selection: cgroup` left go away; cgroups are named."""
    lab.server()
    lab.cgroup("app")
    first = lab.service(config(policy(lab, "app"), on_exit="keep"))
    first.terminate()
    assert count_programs(lab, "app") != (0, 0)
    service = lab.service(config(EVERYTHING, selection="namespace"))
    assert count_programs(lab, "app") == (0, 0)
    lab.client(cgroup="app").open()
    wait_equal(
        lambda: [(s["policy"], s["cgroup"]) for s in service.sessions()], [("all", lab.cgroup_path("app"))]
    )
    service.terminate()
    assert lab.pins() == []


def test_doctor_says_what_a_sidecar_gets(lab: Lab, sidecar: Sidecar) -> None:
    """Without a visible tree CAP_BPF is not required, and the mount that shows the tree is named."""
    service = sidecar(config(EVERYTHING))
    doctor = lab.popen(
        [*service.program, "doctor", "--json"], cgroup="sidecar", stdout=subprocess.PIPE, text=True
    )
    output, _ = doctor.communicate(timeout=30)
    checks = {check["name"]: check for check in json.loads(output)["checks"]}
    assert doctor.returncode == 0
    assert (checks["cap_bpf"]["ok"], checks["cap_bpf"]["required"]) == (False, False)
    assert not checks["cgroup_tree"]["ok"]
    assert "--cgroupns host" in checks["cgroup_tree"]["remedy"]
    service.terminate()


def test_a_sidecar_that_is_left_alone(lab: Lab) -> None:
    """All interfaces but `lo` are gone: not ready at once, then exit 4; one that comes back is in time."""
    service = lab.service(config(EVERYTHING, selection="namespace"), start=False)
    service.start("--alone-exit", "off")
    for device in ("eth0", "eth1"):
        run_inside(lab.netns("client"), "ip", "link", "del", device)
    wait_for(lambda: not service.ready(), "a service that is not ready")
    assert "has no interface but lo left" in service.request("GET", "/readyz")[1]["reasons"][0]
    run_inside(lab.netns("client"), "ip", "link", "add", "back", "type", "veth", "peer", "name", "back2")
    wait_for(service.ready, "a service that is ready again")
    service.terminate()
    service.start("--alone-exit", "0s")
    run_inside(lab.netns("client"), "ip", "link", "del", "back")
    assert service.process.wait(20) == 4
    assert "start" in service.log().splitlines()[-1]
    assert lab.pins() == []


def test_left_while_the_service_starts(lab: Lab, tmp_path: Path) -> None:
    """An engine starts the sidecar just when the application ends: it does not stay in what is left."""
    # What the service imports first takes the interfaces away, and is the real module then.
    (tmp_path / "uvloop.py").write_text(
        "import subprocess, sys\n"
        "for device in ('eth0', 'eth1'):\n"
        "    subprocess.run(['ip', 'link', 'delete', device], check=True)\n"
        f"sys.path.remove({str(tmp_path)!r})\n"
        "del sys.modules['uvloop']\n"
        "import uvloop\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    document = config(EVERYTHING, selection="namespace")
    service = lab.service(document, start=False, env={**os.environ, "PYTHONPATH": path})
    with suppress(AssertionError):  # it may be ready for a moment
        service.start("--alone-exit", "0s")
    assert service.process.wait(20) == 4, service.log()
