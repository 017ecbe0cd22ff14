# SPDX-License-Identifier: Apache-2.0
"""``explain`` and ``reload --dry-run`` say what really happens then, and change nothing by themselves."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.lab.lab import Lab
from tests.lab.scenarios import SERVER, config, make_laptop, mesh, pairs_of, policy, wait_pairs
from tests.lab.service import ApiError
from tests.lab.waiting import wait_equal


@pytest.mark.parametrize("family", [4, 6])
def test_explain_says_what_a_connection_gets(lab: Lab, family: int) -> None:
    """With the way of each subflow; the connection then has just these, also one of a cgroup to come."""
    make_laptop(lab)
    lab.server("--address", SERVER[family])
    service = lab.service(config(policy(lab, "a/*"), policy(lab, "b", "none", start={"after": "2s"})))
    asked = {"cgroup": lab.cgroup_path("a/later"), "remote": SERVER[family], "remote_port": 5000}
    found = service.post("/v1/explain", asked)
    first, second = lab.addresses("client", family)
    assert (found["policy"], found["path_manager"], found["local"]) == ("a.any", "fullmesh", first)
    assert [(s["local"], s["bound"]) for s in found["subflows"]] == [(second, True)]
    assert found["unroutable"] == []
    lab.client(SERVER[family], cgroup="a/later").open()
    wait_pairs(lab, [(found["local"], SERVER[family]), (second, SERVER[family])])
    found = service.post("/v1/explain", asked | {"cgroup": lab.cgroup_path("b/below")})
    assert (found["policy"], found["start"]["after_s"], found["subflows"]) == ("b", 2.0, [])
    assert service.post("/v1/explain", asked | {"cgroup": "/elsewhere"})["policy"] is None
    lab.ip("client", f"-{family}", "rule", "add", "from", second, "to", SERVER[family], "prohibit")
    reason = {"reason": "no route (EACCES)", "local": second, "remote": SERVER[family], "remote_port": 5000}
    wait_equal(lambda: service.post("/v1/explain", asked)["unroutable"], [reason])


def test_a_dry_run_says_what_a_reload_does(lab: Lab) -> None:
    """A policy that moves sessions, and an interface that is excluded; the reload does just that."""
    lab.server()
    service = lab.service(config(policy(lab, "a"), policy(lab, "b", "none")))
    lab.client(cgroup="a").open(2)
    lab.client(cgroup="b").open()
    both, one = mesh(lab), mesh(lab)[:1]
    wait_equal(lambda: sorted(len(found) for found in pairs_of(lab)), [1, 2, 2])
    other = config(policy(lab, "a", "none"), policy(lab, "b"))
    content = yaml.safe_dump({**yaml.safe_load(service.config_path.read_text()), **other})
    run = service.post("/v1/reload/dry-run", {"content": content})
    assert (run["sessions"], run["opens"], run["closes"]) == (3, 1, 2)
    assert run["digest"] != run["in_force"]
    changed = {c["token"]: (c["opens"], c["closes"]) for c in run["changed"]}
    assert [(o["local"], o["remote"]) for opens, _ in changed.values() for o in opens] == both[1:]
    assert {x["reason"] for _, closes in changed.values() for x in closes} == {"not wanted by the policy"}
    assert sorted(len(found) for found in pairs_of(lab)) == [1, 2, 2]
    assert service.post("/v1/reload/dry-run")["changed"] == []
    service.configure(other)
    service.reload()
    wait_equal(lambda: sorted(sorted(found) for found in pairs_of(lab)), [one, one, both])
    with pytest.raises(ApiError, match=r"422.*policies.*is missing"):
        service.post("/v1/reload/dry-run", {"content": "policies: [{name: x}]"})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"selection": "cgroup"}, "restart the service"),
        (
            {"policies": [{"name": "a", "cgroup": "/only/this", "path_manager": "none"}]},
            "no session would have",
        ),
        ({"policies": [{"name": "a", "cgroup": "auto", "path_manager": "none"}]}, "needs the cgroup tree"),
    ],
)
def test_a_dry_run_refuses_what_a_reload_refuses(lab: Lab, change: dict[str, Any], problem: str) -> None:
    """Also what is only wrong where the service runs; with the same words."""
    whole = {"name": "whole", "cgroup": "/", "path_manager": "none"}
    service = lab.service({"selection": "namespace", "policies": [whole]})
    content = yaml.safe_load(service.config_path.read_text()) | change
    with pytest.raises(ApiError, match=problem) as refused:
        service.post("/v1/reload/dry-run", {"content": yaml.safe_dump(content)})
    service.configure(content)
    with pytest.raises(ApiError, match=problem) as reload_refused:
        service.reload()
    assert str(refused.value) == str(reload_refused.value)
