# SPDX-License-Identifier: Apache-2.0
"""/metrics, the alerting rules and the dashboard of docs/, with Debian's Prometheus and a real service."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.lab.lab import Lab
from tests.lab.prometheus import ALERTS, Prometheus, promtool
from tests.lab.scenarios import config, policy, wait_reported
from tests.lab.service import ROOT, Service
from tests.lab.waiting import wait_equal, wait_for
from tests.net.test_figures import ss_bytes

LISTEN = "127.0.0.1:9464"
DASHBOARD = json.loads((ROOT / "docs/grafana/mptcp-pm.json").read_text())
TESTS = ALERTS.with_name("alerts_test.yml")
RULES = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
NAMES = [rule["alert"] for rule in RULES]
HOSTILE = 'eth"\\{}\u00e9'
PAYLOAD = 300_000
Json = dict[str, Any]


def replaced(text: str) -> str:
    """A query with what Grafana puts in for its variables, when all is selected."""
    for name, value in (("$instance", ".*"), ("$policy", ".*"), ("$__rate_interval", "1m")):
        text = text.replace(name, value)
    assert "$" not in text, text
    return text


QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]


def rename(lab: Lab, name: str, new: str) -> None:
    """Also where the kernel does so only to interfaces that are down, which takes their routes away."""
    routes = lab.ip("client", "-4", "route", "show", "table", "all", "dev", name).splitlines()
    lab.ip("client", "link", "set", name, "down")
    lab.ip("client", "link", "set", name, "name", new)
    lab.ip("client", "link", "set", new, "up")
    for route in reversed(routes):
        if "proto kernel" not in route:
            lab.ip("client", "route", "replace", *route.split(), "dev", new)


class Scene:
    """A client with two interfaces, one of a hostile name, whose sessions have carried something."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        rename(lab, "eth1", HOSTILE)
        lab.server()
        document = config(policy(lab, "a"))
        self.service: Service = lab.service(document, start=False)
        api = {"unix": str(self.service.socket_path), "probes": {"listen": LISTEN}}
        self.service.configure({**document, "api": api})
        self.service.start()
        self.client = lab.client(cgroup="a")
        self.client.open(3)
        self.prometheus = Prometheus(lab, LISTEN)
        wait_reported(self.service, 2, sessions=3)
        self.client.send(bytes=PAYLOAD)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab() as lab:
        yield Scene(lab)


def test_promtool_finds_nothing_wrong_with_the_metrics(scene: Scene) -> None:
    """Names, units, types and help texts are as Prometheus wants them."""
    found = promtool("check", "metrics", text=scene.service.get("/metrics"))
    assert (found.returncode, found.stderr, found.stdout) == (0, "", "")
    bad = promtool("check", "metrics", text="# TYPE x_total gauge\nx_total 1\n")
    assert bad.returncode != 0


def test_bytes_are_those_of_ss(scene: Scene) -> None:
    """For each interface, what ss shows of its subflows; also where its name needs escapes."""
    lab, prometheus = scene.lab, scene.prometheus
    by_address = {lab.address("client", 1): "eth0", lab.address("client", 2): HOSTILE}

    def of_ss() -> dict[str, tuple[int, int]]:
        sums = dict.fromkeys(by_address.values(), (0, 0))
        for ends, found in ss_bytes(lab).items():
            name = by_address[ends.split(":")[0]]
            sums[name] = (sums[name][0] + found.acked, sums[name][1] + found.received)
        return sums

    def of_prometheus() -> dict[str, tuple[int, int]]:
        sent, received = (
            {
                sample["metric"]["interface"]: int(sample["value"][1])
                for sample in prometheus.query(f'mptcp_pm_{way}_bytes_total{{policy="a"}}')
            }
            for way in ("sent", "received")
        )
        return {name: (count, received[name]) for name, count in sent.items()}

    wanted = of_ss()
    assert sum(sent for sent, _ in wanted.values()) >= 3 * PAYLOAD
    wait_equal(of_prometheus, wanted)
    assert prometheus.value(f"mptcp_pm_interface_sessions{{interface={json.dumps(HOSTILE)}}}") == 3
    assert prometheus.value('mptcp_pm_joins_total{result="established"}') == 3


def test_counters_of_the_kernel_are_all_there(scene: Scene) -> None:
    """As many as its own file has, each with its value."""
    names, values = (
        line.split()[1:]
        for line in scene.lab.run("client", "cat", "/proc/net/netstat").splitlines()
        if line.startswith("MPTcpExt:")
    )
    wanted = dict(zip(names, map(int, values), strict=True))
    assert wanted.pop("MPCurrEstab") == 3

    def found() -> dict[str, int]:
        samples = scene.prometheus.query("mptcp_pm_kernel_events_total")
        return {sample["metric"]["counter"]: int(sample["value"][1]) for sample in samples}

    wait_equal(found, wanted)
    assert wanted["MPJoinSynTx"] == 3


@pytest.mark.parametrize("expression", QUERIES)
def test_every_query_of_the_dashboard_has_an_answer(scene: Scene, expression: str) -> None:
    """Prometheus takes it, and finds something."""
    wait_for(lambda: scene.prometheus.query(replaced(expression)), "an answer", deadline_s=15)


def test_a_host_without_sessions_has_figures() -> None:
    """0, where a dashboard would say that there are no data; and the policies can be chosen there."""
    with Lab() as lab:
        service = lab.service(config(policy(lab, "a")), start=False)
        api = {"unix": str(service.socket_path), "probes": {"listen": LISTEN}}
        service.configure({**config(policy(lab, "a")), "api": api})
        service.start()
        prometheus = Prometheus(lab, LISTEN)
        figures = [panel for panel in DASHBOARD["panels"] if panel["type"] == "stat"]
        shown = {panel["title"]: panel["targets"][0]["expr"] for panel in figures}
        values = {title: prometheus.value(replaced(expression)) for title, expression in shown.items()}
        assert values == {"Ready": 1, "Sessions": 0, "Subflows": 0, "Stuck subflows": 0, "Version": 1}
        names = prometheus.get("label/policy/values", **{"match[]": "mptcp_pm_sessions"})
        assert "a" in names


def test_an_idle_service_measures_its_lag_for_those_who_scrape(lab: Lab) -> None:
    """Nobody else makes it wake up for that."""
    service = lab.service(config(policy(lab, "a")))

    def measured() -> float:
        families = text_string_to_metric_families(service.get("/metrics"))
        (count,) = (
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "mptcp_pm_event_loop_lag_seconds_count"
        )
        return float(count)

    time.sleep(2)  # eight times, if it did so
    assert measured() == 0
    wait_for(measured, "measurements", until=lambda count: count > 0)


def test_variables_of_the_dashboard_have_values(scene: Scene) -> None:
    """Those that are read from labels."""
    variables = [v["definition"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    assert variables
    for definition in variables:
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", definition).groups()  # type: ignore[union-attr]
        path = f"label/{label}/values"
        assert scene.prometheus.get(path, **{"match[]": metric}), definition


def test_shipped_rules_alert_on_a_real_service(scene: Scene) -> None:
    """All of them are evaluated without an error; a bad configuration file makes its alert pending."""
    prometheus, service = scene.prometheus, scene.service

    def states() -> dict[str, tuple[str, str]]:
        (group,) = prometheus.get("rules")["groups"]
        return {rule["name"]: (rule["health"], rule["state"]) for rule in group["rules"]}

    wait_equal(states, dict.fromkeys(NAMES, ("ok", "inactive")))
    service.configure("policies: 7\n")
    service.request("POST", "/v1/reload")
    wait_for(states, "pending", until=lambda found: found["MptcpPmConfigurationBad"] == ("ok", "pending"))


def test_rules_pass_their_tests() -> None:
    """promtool test rules: each alert fires in trouble, and in no other case; it resolves after that."""
    found = promtool("test", "rules", str(TESTS))
    assert found.returncode == 0, found.stdout + found.stderr
    tested = [test["alertname"] for test in yaml.safe_load(TESTS.read_text())["tests"][0]["alert_rule_test"]]
    assert tested == [name for name in NAMES for _ in range(3)]  # before the trouble, in it, and after it


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "expression", ["vector(0) > 1", "mptcp_pm_ready >= 0", "max_over_time(({})[100m:1m])"]
)
def test_a_broken_rule_fails_its_tests(tmp_path: Path, name: str, expression: str) -> None:
    """One that never fires, one that always does, and one that does not resolve."""
    document = yaml.safe_load(ALERTS.read_text())
    (rule,) = (rule for rule in document["groups"][0]["rules"] if rule["alert"] == name)
    rule["expr"] = expression.format(rule["expr"])
    rule.pop("for", None)
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(document))
    (tmp_path / "alerts_test.yml").write_text(TESTS.read_text())
    found = promtool("test", "rules", str(tmp_path / "alerts_test.yml"))
    assert found.returncode != 0
    assert name in found.stdout + found.stderr
