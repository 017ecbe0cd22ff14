# SPDX-License-Identifier: Apache-2.0
"""Why a session as a whole gets no more subflows: each reason made for real, and that its command helps."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.lab.firewall import DROP, OPTION, RESET, STRIP, firewall
from tests.lab.lab import Lab
from tests.lab.netns import inside
from tests.lab.plugins import PLUGINS, install
from tests.lab.scenarios import (
    config,
    counter,
    mesh,
    peer_path_manager,
    policy,
    wait_pairs,
    wait_reported,
    wait_usable,
)
from tests.lab.service import ROOT, Service
from tests.lab.waiting import wait_for
from tests.lab.why import execute, findings, wait_finding

IPPROTO_MPTCP = 262


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """One address of the server: the mesh has two pairs."""
    return make_lab(client=2, server=1)


def start(lab: Lab, path_manager: Any = "fullmesh", top: Any = None, **fields: Any) -> Service:
    """A service, and one session of the policy a."""
    lab.server()
    service = lab.service(config(policy(lab, "a", path_manager, **fields), **(top or {})))
    lab.client(cgroup="a").open()
    wait_for(service.sessions, "the session")
    return service


def token_of(lab: Lab) -> str:
    """Of the only MPTCP socket, which may have fallen back."""
    return "0x" + lab.run("client", "ss", "-HniM").split("token:")[1].split()[0]


def change(service: Service, **top: Any) -> None:
    """Replace parts of the configuration; the command that reloads it is the test's."""
    import yaml

    service.configure({**yaml.safe_load(service.config_path.read_text()), **top})


# The policy


def test_a_path_manager_that_wants_nothing(lab: Lab) -> None:
    """By hand a subflow is opened all the same."""
    service = start(lab, "none")
    found = wait_finding(service, "not_wanted")
    assert found["evidence"] == [f"{lab.address('client', 2)} × {lab.address('server', 1)}"]
    execute(lab, service, found["commands"][0])
    wait_pairs(lab, mesh(lab))


def test_a_cap(lab: Lab) -> None:
    """The key is named, and a subflow by hand is beyond it."""
    service = start(lab, {"fullmesh": {"max_subflows": 1}})
    found = wait_finding(service, "cap_reached")
    assert "policies.a.path_manager.fullmesh.max_subflows" in found["text"]
    execute(lab, service, found["commands"][0])
    wait_pairs(lab, mesh(lab))
    assert findings(service) == {}


def test_the_limit_of_endpoints(lab: Lab) -> None:
    """The namespace's own limit, which ``ip mptcp`` sets."""
    lab.ip("client", "mptcp", "limits", "set", "subflow", "0")
    lab.ip("client", "mptcp", "endpoint", "add", lab.address("client", 2), "subflow")
    service = start(lab, "endpoints")
    if service.datapath() == "bpf":
        pytest.skip("the kernel's own path manager has the sessions of `endpoints` on the bpf datapath")
    found = wait_finding(service, "cap_reached")
    execute(lab, service, found["commands"][0])
    wait_pairs(lab, mesh(lab))


def test_no_endpoint(lab: Lab) -> None:
    """The command makes one."""
    service = start(lab, "endpoints")
    if service.datapath() == "bpf":
        pytest.skip("the kernel's own path manager has the sessions of `endpoints` on the bpf datapath")
    found = wait_finding(service, "not_wanted")
    execute(lab, service, found["commands"][0])
    wait_pairs(lab, mesh(lab))


def test_start_is_not_reached(lab: Lab) -> None:
    """How far it is; a smaller `start`, reloaded by the command, opens the subflow."""
    service = start(lab, start={"after": "1h", "after_bytes": "1MB"})
    found = wait_finding(service, "start_not_reached")
    assert [fact.split(":")[0] for fact in found["evidence"]] == ["`start.after`", "`start.after_bytes`"]
    assert found["evidence"][1].endswith("2 of 1000000 bytes")
    (session,) = service.sessions()
    detail = service.get(f"/v1/sessions/{session['token']}")
    assert [pair["state"] for pair in detail["missing"]] == ["waiting"]
    change(service, policies=[policy(lab, "a")])
    execute(lab, service, found["commands"][-1])
    wait_pairs(lab, mesh(lab))


def test_no_policy(lab: Lab) -> None:
    """A session of another cgroup; on the netlink datapath it has what ``ip mptcp endpoint`` says."""
    lab.server()
    service = lab.service({"policies": [policy(lab, "a")], "addresses": {"include": ["eth*"]}})
    lab.client(cgroup="other").open()
    (session,) = wait_for(service.sessions, "the session")
    code = "no_policy" if service.datapath() == "bpf" else "not_wanted"
    found = wait_finding(service, code, session["token"])
    for line in found["commands"]:
        execute(lab, service, line)


def test_a_rate(lab: Lab) -> None:
    """Many sessions at once, one subflow per second: a session says when its turn comes."""
    lab.server()
    limits = {"opens_per_second": 1}
    service = lab.service(config(policy(lab, "a"), limits=limits))
    lab.client(cgroup="a").open(8)
    sessions = wait_for(service.sessions, "all", until=lambda found: len(found) == 8)
    found = wait_for(
        lambda: [f for s in sessions if (f := findings(service, s["token"]).get("rate_limited"))],
        "sessions that wait",
    )
    change(service, limits={"opens_per_second": 1000})
    execute(lab, service, found[0]["commands"][0])
    wait_reported(service, 2, sessions=8)


def test_a_path_manager_whose_answer_is_rejected(lab: Lab, tmp_path: Path) -> None:
    """A third party's: the session stays as it is, and the finding has the reason."""
    target = install(tmp_path / "installed", PLUGINS / "hostile")
    lab.server()
    nonsense = policy(lab, "a", {"nonsense": {"kind": "bug", "never": ["tun*"]}})
    service = lab.service(config(nonsense), env={"PYTHONPATH": f"{target}:{ROOT}"})
    lab.client(cgroup="a").open()
    wait_for(service.sessions, "the session")
    assert "raised RuntimeError: bug" in str(wait_finding(service, "path_manager_failed")["evidence"])


# Addresses


def test_an_interface_that_is_down(lab: Lab) -> None:
    """The command brings it up again."""
    lab.ip("client", "link", "set", "eth1", "down")
    service = start(lab)
    found = wait_finding(service, "address_not_usable")
    assert found["evidence"] == ["interface is down"]
    execute(lab, service, found["commands"][0])
    wait_usable(service, lab.address("client", 2))


def test_an_interface_that_the_rules_exclude(lab: Lab) -> None:
    """The reason is that of ``mptcp-pm addresses``."""
    service = start(lab, top={"addresses": {"include": ["eth*"], "exclude": ["eth1"]}})
    found = wait_finding(service, "address_not_usable")
    assert found["evidence"] == ["interface matches addresses.exclude"]
    assert found["evidence"][0] in execute(lab, service, found["commands"][0])


def test_one_path_only(make_lab: Callable[..., Lab]) -> None:
    """There is nothing else to say."""
    lab = make_lab(client=1, server=1)
    assert list(findings(start(lab))) == ["one_path_only"]


@pytest.mark.parametrize(
    ("ip", "reason"),
    [
        ("10.77.9.9", "not allowed by `remote_addresses`"),
        ("224.0.0.1", "no host's address"),
        ("169.254.1.1", "link-local"),
        ("10.77.1.1", "an address of this host"),
    ],
)
def test_an_announced_address_that_is_refused(lab: Lab, ip: str, reason: str) -> None:
    """Filtered, no host's, or our own."""
    with peer_path_manager(lab) as peer:
        service = start(lab, top={"remote_addresses": {"deny": ["10.77.9.0/24"]}})
        wait_pairs(lab, mesh(lab))
        (token,) = lab.subflows("server")
        peer.announce(token, ip, 9)
        found = wait_finding(service, "remote_address_refused")
        assert ip in found["text"]
        assert reason in found["evidence"][0]


def test_an_address_that_remote_addresses_deny_is_allowed_later(make_lab: Callable[..., Lab]) -> None:
    """The reload judges again what was announced before."""
    lab = make_lab(client=2, server=2)
    other = lab.address("server", 2)
    with peer_path_manager(lab) as peer:
        service = start(lab, top={"remote_addresses": {"deny": [f"{other}/32"]}})
        wait_pairs(lab, mesh(lab))
        (token,) = lab.subflows("server")
        peer.announce(token, other, 9)
        found = wait_finding(service, "remote_address_refused")
        change(service, remote_addresses={})
        execute(lab, service, found["commands"][0])
        wait_pairs(lab, mesh(lab, server_links=2))


# The peer


def test_a_peer_that_denies_joins(lab: Lab) -> None:
    """The C flag; the command on the peer helps the next connection."""
    lab.sysctl("server", net__mptcp__allow_join_initial_addr_port=0)
    service = start(lab)
    found = wait_finding(service, "peer_denies_joins")
    assert "the peer announced no address" in found["evidence"]
    execute(lab, service, found["commands"][0])
    lab.client(cgroup="a").open()
    wait_for(lambda: sorted(lab.established()), "a session with two", until=lambda found: found == [1, 2])


def test_a_peer_that_withdrew_its_address(make_lab: Callable[..., Lab]) -> None:
    """RM_ADDR of id 0."""
    lab = make_lab(client=2, server=2)
    with peer_path_manager(lab) as peer:
        service = start(lab)
        wait_pairs(lab, mesh(lab))
        (token,) = lab.subflows("server")
        other = lab.address("server", 2)
        peer.announce(token, other, 2)
        wait_pairs(lab, mesh(lab, server_links=2))
        peer.withdraw(token, 0)
        found = wait_finding(service, "peer_withdrew_address")
        assert f"the peer announced {other}" in found["evidence"]


def test_a_server_waits_for_its_client(lab: Lab) -> None:
    """It cannot open one; the client's limits are what helps."""
    lab.sysctl("client", net__mptcp__pm_type=0)
    lab.ip("client", "mptcp", "limits", "set", "subflow", "0")
    lab.server(cgroup="srv")
    service = lab.service(config(policy(lab, "srv")), ns="server")
    lab.client().open()
    wait_for(service.sessions, "the session")
    found = wait_finding(service, "peer_opens")
    assert found["commands"] == ["# on the peer: ip mptcp limits set subflow 8 add_addr_accepted 8"]


# What is no MPTCP, not yet, or not any more


def test_a_peer_without_mptcp(lab: Lab) -> None:
    """Only the kernel has such a token: its subflow says what happened."""
    lab.server("--tcp")
    service = lab.service(config(policy(lab, "a")))
    lab.client(cgroup="a").open()
    found = findings(service, token_of(lab))
    assert not found["peer_without_mptcp"]["likely"]
    assert "our SYN had MP_CAPABLE, the answer had not" in found["peer_without_mptcp"]["evidence"]
    execute(lab, service, found["peer_without_mptcp"]["commands"][0].replace("; ss -lM", ""))


def test_a_middlebox_that_removes_options_from_syns(make_lab: Callable[..., Lab]) -> None:
    """The same as a peer without MPTCP, for all that this end can know."""
    lab = make_lab(client=2, server=2)
    lab.server()
    service = lab.service(config(policy(lab, "a")))
    with firewall(lab, lab.address("client", 1), *STRIP):
        lab.client(lab.address("server", 2), "--bind", lab.address("client", 1), cgroup="a").open()
        assert "peer_without_mptcp" in findings(service, token_of(lab))


def test_a_middlebox_that_removes_options_later(make_lab: Callable[..., Lab]) -> None:
    """The handshake was MPTCP's, and the first data came without its options."""
    lab = make_lab(client=2, server=2)
    lab.server()
    service = lab.service(config(policy(lab, "a")))
    with firewall(lab, lab.address("client", 1), "!", "--syn", *STRIP):
        lab.client(lab.address("server", 2), "--bind", lab.address("client", 1), cgroup="a").open()
        found = wait_finding(service, "fell_back", token_of(lab))
        assert not found["likely"]
        assert "FALLBACK" in found["evidence"][0]


def test_the_blackhole_of_the_kernel(make_lab: Callable[..., Lab]) -> None:
    """A firewall dropped SYNs with MP_CAPABLE: the kernel stops MPTCP, until the command starts it again."""
    lab = make_lab(client=2, server=2)
    lab.sysctl("client", net__mptcp__syn_retrans_before_tcp_fallback=1)
    service = start(lab)
    wait_pairs(lab, mesh(lab))
    (session,) = service.sessions()
    source, remote = lab.address("client", 1), lab.address("server", 2)
    with firewall(lab, source, *OPTION, *DROP):
        lab.client(remote, "--bind", source, cgroup="a").open()
    found = wait_finding(service, "blackhole", session["token"])
    assert not found["likely"]
    assert "MPTcpExtBlackhole rose by 1" in str(found["evidence"])

    def is_mptcp() -> bool:
        client = lab.client(remote, "--bind", source, cgroup="a")
        client.open()
        return bool(client.report()[0]["mptcp"])

    assert not is_mptcp()
    disabled = wait_finding(service, "blackhole", session["token"])
    assert "MPTcpExtMPCapableSYNTXDisabled rose by 1" in str(disabled["evidence"])
    execute(lab, service, found["commands"][0])
    assert is_mptcp()
    assert counter(lab, "client", "MPTcpExtBlackhole") == 1


def test_a_session_of_the_kernels_path_manager(lab: Lab) -> None:
    """It began before the service; a new connection gets its subflows."""
    lab.server()
    lab.ip("client", "mptcp", "limits", "set", "subflow", "0")
    client = lab.client(cgroup="a")
    client.open()
    service = lab.service(config(policy(lab, "a")))
    (session,) = wait_for(service.sessions, "the session")
    found = wait_finding(service, "not_managed", session["token"])
    assert "userspace PM not selected" in str(found["evidence"])
    client.open()
    wait_for(lambda: 2 in lab.established(), "a session with two subflows")


def test_a_session_that_is_not_established_yet(lab: Lab) -> None:
    """The application has connected, and said nothing."""
    lab.server()
    service = lab.service(config(policy(lab, "a")))

    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
        sock.connect((lab.address("server", 1), 5000))
        return sock

    with inside(lab.netns("client"), connect) as sock:
        (session,) = wait_for(service.sessions, "the session")
        assert list(findings(service, session["token"])) == ["not_established"]
        sock.sendall(b"x")
        wait_for(
            lambda: findings(service, session["token"]),
            "another finding",
            until=lambda codes: "not_established" not in codes,
        )


def test_one_end_has_closed(lab: Lab) -> None:
    """A client that has shut down its side."""
    lab.server()
    service = lab.service(config(policy(lab, "a", "none")))

    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
        sock.connect((lab.address("server", 1), 5000))
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        return sock

    with inside(lab.netns("client"), connect) as sock:
        (session,) = wait_for(service.sessions, "the session")
        sock.shutdown(socket.SHUT_WR)
        wait_finding(service, "half_closed", session["token"])


def test_sessions_that_end_while_one_asks(lab: Lab) -> None:
    """Each answer is a finding, or one line that says that there is no such session (any more)."""
    lab.server()
    service = lab.service(config(policy(lab, "a")))
    client = lab.client(cgroup="a")
    client.open(20)
    tokens = [s["token"] for s in wait_reported(service, 2, sessions=20)]
    client.begin("close")
    answers = [service.request("GET", f"/v1/sessions/{token}/why") for _ in range(3) for token in tokens]
    client.finish()
    wait_for(lambda: not service.sessions(), "no session")
    answers += [service.request("GET", f"/v1/sessions/{token}/why") for token in tokens]
    assert {status for status, _ in answers} <= {200, 404}
    assert [d["detail"] for status, d in answers if status == 404 and "no session" not in d["detail"]] == []
    assert "Traceback" not in service.log()


# What else shows it


def test_metrics_and_log_tell_of_failures(lab: Lab) -> None:
    """Opening, established and failed are counted apart; the log has the reason, not once per try."""
    with firewall(lab, lab.address("client", 2), *RESET):
        service = start(lab)
        wait_finding(service, "connection_refused")

        def counts() -> Counter[str]:
            found: Counter[str] = Counter()
            for family in text_string_to_metric_families(service.get("/metrics")):
                if family.name == "mptcp_pm_subflows":
                    for sample in family.samples:
                        found[sample.labels["state"]] += int(sample.value)
                elif family.name == "mptcp_pm_joins":
                    found.update({f"joins {s.labels['result']}": int(s.value) for s in family.samples})
            return found

        wait_for(counts, "one that failed", until=lambda found: found["failed"] == 1)
        assert counts()["established"] == 1
        assert counts()["joins reset"] >= 1
        assert counts()["joins established"] == counts()["joins unanswered"] == 0
        for _ in range(3):
            line = wait_finding(service, "backoff")["commands"][0]
            with contextlib.suppress(subprocess.CalledProcessError):  # the firewall refuses it at once
                execute(lab, service, line)
        told = [line for line in service.log_lines() if line["event"] == "subflow_failed"]
        assert len(told) == 1
        assert told[0]["reason"].startswith("ECONNREFUSED")


def test_the_end_of_a_session_is_no_failure(lab: Lab) -> None:
    """Nothing is logged about its subflows."""
    lab.server()
    service = lab.service(config(policy(lab, "a")))
    client = lab.client(cgroup="a")
    client.open(3)
    wait_reported(service, 2, sessions=3)
    client.close()
    wait_for(lambda: not service.sessions(), "no session")
    assert not [line for line in service.log_lines() if line["event"].startswith("subflow_")]
