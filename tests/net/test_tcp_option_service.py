# SPDX-License-Identifier: Apache-2.0
"""Options and the service: whose policy counts, reloads, refused programs, third parties, what REST shows."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import pytest

from pm.linux.bpf.tcp_option_layouts import BUILT_IN
from pm.linux.bpf.tcp_option_maps import read_records
from tests.lab.commands import run
from tests.lab.lab import Lab
from tests.lab.netns import inside
from tests.lab.scenarios import attached_programs, config, policy
from tests.lab.service import ROOT, ApiError, Service
from tests.lab.tcp_options import ACCEPT, ASKED, SEND, USUAL, Connection, events, pinned, start, with_options
from tests.lab.waiting import wait_equal, wait_for

LEVEL = ROOT / "docs/examples/level/level.c"


@pytest.fixture
def lab(make_lab: object) -> Lab:
    lab: Lab = make_lab(client=2, server=1)  # type: ignore[operator]
    for cgroup in ("client", "client/plain", "server"):
        lab.cgroup(cgroup)
    return lab


def test_no_options_no_programs(lab: Lab) -> None:
    """Without options there is the classifier alone: no option program, no map of it, empty counters."""
    service = lab.service(config(policy(lab, "client", "none")))
    assert [p["name"] for p in attached_programs(lab, "client")] == ["classify"]
    assert not [pin for pin in lab.pins() if "option" in pin.name or pin.name == "states"]
    assert service.get("/v1/status")["options"] == {}


def test_segments_are_said_to_be_unavailable(lab: Lab) -> None:
    """Status (and doctor) say whether this kernel counts segments for delayed_ack: the patched one."""
    service = lab.service(config(policy(lab, "client", "none")))
    (check,) = [c for c in service.get("/v1/status")["kernel"]["checks"] if c["name"] == "delack_segments"]
    assert check["ok"] == Path("/proc/sys/net/mptcp/bpf_max_subflows").exists()
    assert not check["required"]


def test_innermost_policy_has_the_socket(lab: Lab) -> None:
    """A policy without options keeps those of the cgroup around it away from its sockets."""
    client = {"client": {"congestion_control": SEND["congestion_control"]}, "client/plain": {}}
    start(lab, client, {"server": ACCEPT})
    assert len(attached_programs(lab, "client/plain")) == 2
    for cgroup, expected in (("client", ASKED), ("client/plain", USUAL)):
        with Connection(lab, cgroup) as connection:
            connection.exchange()
            assert connection.server.get()["congestion"] == expected


def test_rest_shows_each_subflow(lab: Lab) -> None:
    """Joins carry options too; REST says per subflow what was sent, received and applied; metrics count."""
    configuration = config(
        policy(lab, "client", "fullmesh", options={"user_timeout": dict(SEND["user_timeout"])})
    )
    client = lab.service(configuration)
    server = lab.service(with_options(lab, {"server": ACCEPT}), ns="server")
    with Connection(lab, mptcp=True) as connection:
        connection.exchange()
        lab.wait_subflows(2)
        for _ in range(10):
            connection.exchange(answer=20_000)

        def options(service: Service) -> list[tuple[bool, bool, int | None]]:
            (session,) = service.sessions()
            detail = service.get(f"/v1/sessions/{session['token']}")
            ids = {subflow["id"] for subflow in detail["subflows"]}
            assert {option["subflow"] for option in detail["options"]} <= ids
            return [(o["sent"], o["received"], o["applied"]) for o in detail["options"]]

        wait_equal(lambda: options(client), [(True, False, 30_000)] * 2)
        wait_equal(lambda: options(server), [(False, True, 30_000)] * 2)
    assert events(server, "user_timeout")["applied"] == 2
    assert 'mptcp_pm_option_events_total{event="applied",option="user_timeout"} 2.0' in server.get("/metrics")


@pytest.mark.parametrize("family", [4, 6])
def test_records_are_found_by_ports(lab: Lab, family: int) -> None:
    """Those of the sockets asked for and no others, also where the policies around them have no options."""
    start(lab, {"client": {"user_timeout": SEND["user_timeout"]}, "client/plain": {}}, {"server": ACCEPT})
    with (
        Connection(lab, family=family) as first,
        Connection(lab, "client/plain", family=family, port=5001) as plain,
        Connection(lab, family=family, port=5002) as last,
    ):
        states = pinned(lab, "client", "states")

        def sent(*ports: tuple[int, int]) -> list[int]:
            records = inside(lab.netns("client"), lambda: read_records(states, ports))
            return sorted(record.sent for record in records.values())

        one, other, another = (tuple(c.client.get()["ports"]) for c in (first, plain, last))
        bit = 1 << BUILT_IN.index("user_timeout")
        try:
            assert sent(one) == sent(another) == [bit]
            assert sent(other) == [0]
            assert sent(one, other, another) == [0, bit, bit]
            assert sent((one[0], another[1]), one[::-1], (1, 1)) == []
            assert sent() == []
        finally:
            os.close(states)


def test_every_subflow_is_changed(lab: Lab) -> None:
    """The initial subflow and, once it carries data, the joined one use what the client asks for."""
    for link in (1, 2):
        lab.shape(link, 20)  # one link alone is too slow for the scheduler
    options = {"congestion_control": dict(SEND["congestion_control"])}
    lab.service(config(policy(lab, "client", "fullmesh", options=options)))
    lab.service(with_options(lab, {"server": ACCEPT}), ns="server")
    with Connection(lab, mptcp=True) as connection:
        connection.exchange()
        lab.wait_subflows(2)
        connection.server.driver.begin("send", bytes=1_000_000)
        connection.client.do("receive", bytes=1_000_000)
        connection.server.driver.finish()
        sockets = run("nsenter", f"--net=/run/netns/{lab.netns('server')}", "ss", "-tniHO")
        assert re.findall(rf"\b({ASKED}|{USUAL}) wscale", sockets) == [ASKED] * 2


def test_reload_changes_parameters_and_plugins(lab: Lab) -> None:
    """New parameters and plugins count for the next connection; without options the programs go."""
    client, _ = start(lab, {"client": {"user_timeout": SEND["user_timeout"]}}, {"server": ACCEPT})
    changed = {"user_timeout": {"advertise": "40s"}, "congestion_control": SEND["congestion_control"]}
    for options, timeout, name in (
        ({"user_timeout": SEND["user_timeout"]}, 30_000, USUAL),
        ({"user_timeout": {"advertise": "35s"}}, 35_000, USUAL),
        (changed, 40_000, ASKED),
        ({}, 0, USUAL),
    ):
        client.configure(with_options(lab, {"client": options}))
        client.reload()
        with Connection(lab) as connection:
            connection.exchange()
            got = connection.server.get()
            assert (got["user_timeout"], got["congestion"]) == (timeout, name)
    assert [p["name"] for p in attached_programs(lab, "client")] == ["classify"]


def test_killed_service_leaves_programs_that_the_next_takes_over(lab: Lab) -> None:
    """After SIGKILL options go on; the next start attaches no second program; a clean end removes all."""
    client, _ = start(lab, {"client": {"user_timeout": SEND["user_timeout"]}}, {"server": ACCEPT})
    client.kill()
    with Connection(lab) as connection:
        connection.exchange()
        assert connection.server.get()["user_timeout"] == 30_000
    client.start()
    assert len(attached_programs(lab, "client")) == 2
    client.kill()
    client.configure(with_options(lab, {"client": {}}))
    client.start()
    assert len(attached_programs(lab, "client")) == 1
    client.terminate()
    assert attached_programs(lab, "client") == []


def level(source: Path, **parameters: int) -> dict[str, object]:
    return {"name": "level", "source": str(source), "exid": 0x4D4C, "parameters": parameters}


@pytest.mark.parametrize("family", [4, 6])
def test_documented_third_party_plugin(lab: Lab, family: int) -> None:
    """docs/examples/level: the server marks its packets as the client asks, within its policy's limit."""
    sends = {"plugins": [{**level(LEVEL, level=5), "send": True}]}
    accepts = {"plugins": [{**level(LEVEL, highest=5), "accept": True}]}
    client, _ = start(lab, {"client": sends}, {"server": accepts})
    plugins = (*BUILT_IN, "level")
    with Connection(lab, family=family) as connection:
        connection.exchange()
        report = connection.server.reports(plugins)["level"]
        assert (report.received, report.applied) == (True, 5 << 5)
        sockets = run("nsenter", f"--net=/run/netns/{lab.netns('server')}", "ss", "-tniH", "--tos")
        assert re.search("(tclass|tos):0xa0", sockets)
    client.configure(with_options(lab, {"client": {"plugins": [{**level(LEVEL, level=6), "send": True}]}}))
    client.reload()
    with Connection(lab, family=family) as connection:
        connection.exchange()
        assert connection.server.reports(plugins)["level"].refused == "not_allowed"


REFUSED = [
    (("value[0] =", "valu[0] ="), "does not compile"),
    (("return OPTION_NOTHING;", "return *(volatile int *)8;"), "verifier refused"),
    (("return OPTION_NOTHING;", "return no_such_function();"), "implicit declaration"),
    (("_HEADER + 1", "_HEADER + 13"), "level_LENGTH: more than 16 bytes"),
]


@pytest.mark.parametrize(("change", "what"), REFUSED, ids=["compiler", "verifier", "misspelled", "long"])
def test_refused_plugin_changes_nothing(lab: Lab, change: tuple[str, str], what: str, tmp_path: Path) -> None:
    """The reload is refused with the log's name, which has the reason; the former programs run on."""
    bad = tmp_path / "level.c"
    bad.write_text(LEVEL.read_text().replace(*change))
    client, _ = start(lab, {"client": {"user_timeout": SEND["user_timeout"]}}, {"server": ACCEPT})
    before = attached_programs(lab, "client")
    client.configure(with_options(lab, {"client": {"plugins": [{**level(bad, level=5), "send": True}]}}))
    with pytest.raises(ApiError) as refused:
        client.reload()
    message = json.dumps(refused.value.problem)
    assert what in message
    assert str(bad) in message
    (log,) = set(re.findall(r"(/[\w./-]+\.log)", message))
    assert Path(log).read_text().strip()
    assert attached_programs(lab, "client") == before
    with Connection(lab) as connection:
        connection.exchange()
        assert connection.server.get()["user_timeout"] == 30_000
    assert not client.get("/v1/status")["config"]["last_reload"]["ok"]


@pytest.mark.parametrize(("change", "what"), REFUSED[:2], ids=["compiler", "verifier"])
def test_start_with_a_refused_plugin(lab: Lab, change: tuple[str, str], what: str, tmp_path: Path) -> None:
    """The service ends with an error that names the plugin's file, and leaves nothing pinned."""
    bad = tmp_path / "level.c"
    bad.write_text(LEVEL.read_text().replace(*change))
    with pytest.raises(AssertionError, match=rf"ended with 1\n{bad}.*{what}"):
        lab.service(with_options(lab, {"client": {"plugins": [{**level(bad, level=5), "send": True}]}}))
    assert lab.pins() == []


def test_missing_plugin_file(lab: Lab) -> None:
    """A source that is not there: one error that names it."""
    client = lab.service(config(policy(lab, "client", "none")))
    plugin = {**level(Path("/nonexistent/level.c")), "send": True}
    client.configure(with_options(lab, {"client": {"plugins": [plugin]}}))
    with pytest.raises(ApiError, match=r"/nonexistent/level\.c: No such file"):
        client.reload()


def test_unavailable_congestion_control_is_a_warning(lab: Lab) -> None:
    """One that the kernel has not is logged with those that it has; asking for it is refused, not fatal."""
    _, server = start(
        lab,
        {"client": {"congestion_control": {"request": "vegas"}}},
        {"server": {"congestion_control": {"accept": ["vegas", "cubic"]}}},
    )
    (warning,) = [r for r in server.log_lines() if r.get("event") == "congestion_control_unavailable"]
    assert (warning["policy"], warning["missing"]) == ("server", ["vegas"])
    assert "cubic" in warning["available"]
    with Connection(lab) as connection:
        connection.exchange()
        assert connection.server.reports()["congestion_control"].refused == "not_allowed"
        assert connection.server.get()["congestion"] == USUAL


def test_an_edit_of_the_c_file_alone_is_noticed(lab: Lab, tmp_path: Path) -> None:
    """It is compiled again without a change of the configuration; `status` says which content is in force."""
    source = tmp_path / "level.c"
    source.write_text(LEVEL.read_text())
    plugins = {"plugins": [{**level(source, level=5), "send": True}]}
    service = lab.service(with_options(lab, {"client": plugins}))

    def in_force() -> list[dict[str, str]]:
        found: list[dict[str, str]] = service.get("/v1/status")["config"]["sources"]
        return found

    def expected() -> list[dict[str, str]]:
        return [{"path": str(source), "digest": hashlib.sha256(source.read_bytes()).hexdigest()}]

    before = expected()
    assert in_force() == before
    source.write_text("no C")
    wait_for(lambda: not service.get("/v1/status")["config"]["last_reload"]["ok"], "a refused reload")
    assert in_force() == before
    edited = tmp_path / "level.c.new"  # as editors do
    edited.write_text(LEVEL.read_text() + "/* edited */\n")
    edited.rename(source)
    wait_equal(in_force, expected())
