# SPDX-License-Identifier: Apache-2.0
"""``why`` of connections that are no MPTCP sessions: which end has no MPTCP, or where it was lost."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.middlebox import Change, flip_payload, forwarding, frames_of
from tests.lab.netns import inside
from tests.lab.scenarios import config, policy
from tests.lab.service import ApiError, Service, command
from tests.lab.traffic import Traffic
from tests.lab.waiting import wait_equal

Json = dict[str, Any]


def ask(service: Service, *subject: str, prefix: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Exit status, output and errors of ``mptcp-pm why SUBJECT``."""
    words = [*prefix, *command(), "--socket", str(service.socket_path), "why", *subject]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def sockets(service: Service, subject: Traffic | str) -> list[Json]:
    """What is said about a process, by the command, or by REST about ``address=…`` or ``cgroup=…``."""
    if isinstance(subject, str):
        document = service.get(f"/v1/why?{subject}")
    else:
        status, out, err = ask(service, str(pid(subject)), "--json")
        assert status == 0, err
        document = json.loads(out)
    found: list[Json] = document["sockets"]
    return found


def codes(service: Service, subject: Traffic | str, *, listening: bool = False) -> list[list[str]]:
    """The codes of the findings of each connection, or of each listener."""
    found = [s for s in sockets(service, subject) if (s["remote"] is None) is listening]
    return [[f["code"] for f in socket["findings"]] for socket in found]


def watcher(lab: Lab, ns: str = "client") -> Service:
    return lab.service(config(policy(lab, "c", "none")), ns=ns)


def strip(lab: Lab, chain: str, *which: str) -> None:
    """A box in front of the server that removes MPTCP's options (kind 30)."""
    rule = ("-t", "mangle", "-A", chain, "-p", "tcp", *which)
    lab.run("server", "iptables", *rule, "-j", "TCPOPTSTRIP", "--strip-options", "30")


def pid(traffic: Traffic) -> int:
    return traffic.process.pid


@pytest.mark.parametrize(
    ("client_args", "server_args", "stripped", "here", "there"),
    [
        (["--tcp"], [], "", "plain_socket", "client_without_mptcp"),
        ([], ["--tcp"], "", "peer_without_mptcp", "plain_listener"),
        (["--tcp"], ["--tcp"], "", "plain_socket", "plain_listener"),
        ([], [], "both", "peer_without_mptcp", "client_without_mptcp"),
        ([], [], "answers", "peer_without_mptcp", "client_without_mptcp"),
    ],
)
def test_each_end_says_who_has_no_mptcp(
    lab: Lab, client_args: list[str], server_args: list[str], stripped: str, here: str, there: str
) -> None:
    """By PID, by cgroup and by either address: the end that did not ask, or did not get it."""
    if stripped == "both":
        strip(lab, "PREROUTING")
    if stripped:
        strip(lab, "POSTROUTING")
    server, client = lab.server(*server_args, cgroup="s/1"), lab.client(None, *client_args, cgroup="c/1")
    ours, theirs = watcher(lab), watcher(lab, "server")
    (local,) = client.open()
    ip, port = local.split()
    ends = f"address={ip}:{port}", f"address={lab.address('server', 1)}:5000", f"address={ip}"
    for subject in (client, f"cgroup={lab.cgroup_path('c')}", *ends):
        assert codes(ours, subject) == [[here]]
    for subject in (server, f"cgroup={lab.cgroup_path('s')}", *ends):
        assert codes(theirs, subject) == [[there]]
    assert codes(theirs, server, listening=True) == ([["plain_listener"]] if server_args else [[]])
    (socket,) = sockets(ours, client)
    assert socket["cgroup"] == lab.cgroup_path("c/1")
    assert (socket["local"], socket["remote"]["port"]) == ({"ip": ip, "port": int(port)}, 5000)
    facts = [fact for s in sockets(theirs, server) for f in s["findings"] for fact in f["evidence"]]
    assert ("MPTcpExtMPCapableFallbackACK is 1" in facts) is (stripped == "answers")


def test_a_session_has_the_answer_of_its_token(lab: Lab) -> None:
    """By PID as by token; a listener with MPTCP has nothing to be told."""
    server = lab.server()
    service = lab.service(config(policy(lab, "c")))
    client = lab.client(cgroup="c")
    client.open()
    lab.wait_subflows(2)
    (socket,) = sockets(service, client)  # one, with two subflows
    token = service.sessions()[0]["token"]
    assert (socket["findings"], socket["mptcp"]) == ([], True)
    assert socket["session"] == service.get(f"/v1/sessions/{token}/why")
    of_process, of_token = ask(service, str(pid(client)))[1], ask(service, token)[1]
    assert of_token.splitlines()[0] in " ".join(of_process.split())  # token and policy
    assert of_process.endswith(of_token.partition("\n")[2])
    status, out, _ = ask(watcher(lab, "server"), str(pid(server)))
    assert (status, "offers MPTCP" in out) == (0, True)


def test_switched_off_here(lab: Lab) -> None:
    """The program has to take TCP; the command of the finding helps its next connection."""
    lab.server()
    service = watcher(lab)
    lab.sysctl("client", net__mptcp__enabled=0)
    client = lab.client(None, "--tcp")  # as programs do that are refused an MPTCP socket
    client.open()
    (socket,) = sockets(service, client)
    assert [f["code"] for f in socket["findings"]] == ["plain_socket", "mptcp_disabled"]
    run_commands(lab, socket["findings"][1])
    other = lab.client()
    other.open()
    assert codes(service, other) == [[]]


def test_switched_off_at_the_peer(lab: Lab) -> None:
    """Here only the answer without MPTCP is seen; there the sysctl is named."""
    ours, theirs = watcher(lab), watcher(lab, "server")
    lab.sysctl("server", net__mptcp__enabled=0)
    server, client = lab.server("--tcp"), lab.client()
    client.open()
    assert codes(ours, client) == [["peer_without_mptcp"]]
    assert codes(theirs, server) == [["plain_listener", "mptcp_disabled"]]


def test_the_kernels_blackhole(lab: Lab) -> None:
    """The connection whose SYNs were dropped, then those without MPTCP; the first command ends that."""
    lab.server()
    service = watcher(lab)
    syns = ("-p", "tcp", "--syn", "--tcp-option", "30", "-j", "DROP")
    lab.run("server", "iptables", "-A", "INPUT", *syns)
    first, second = lab.client(), lab.client()
    first.open()
    second.open()
    (lost,), (stopped,) = sockets(service, first), sockets(service, second)
    assert [(f["code"], f["likely"]) for f in lost["findings"]] == [("syn_dropped", True)]
    (found,) = stopped["findings"]
    assert (found["code"], found["likely"]) == ("blackhole", False)
    assert "net.mptcp.blackhole_timeout is 3600 s" in found["evidence"]
    lab.run("server", "iptables", "-D", "INPUT", *syns)
    third, fourth = lab.client(), lab.client()
    third.open()
    assert codes(service, third) == [["blackhole"]]
    lab.run("client", *found["commands"][0].split())
    fourth.open()
    assert codes(service, fourth) == [[]]


def test_lost_in_the_middle_of_a_session(lab: Lab) -> None:
    """A box that removes options from now on: certain that it fell back, likely why. Both ends say so."""
    server, client = lab.server(), lab.client()
    ours, theirs = watcher(lab), watcher(lab, "server")
    client.open()
    lab.wait_subflows(1)
    for chain in ("PREROUTING", "POSTROUTING"):
        strip(lab, chain)
    client.send(bytes=100_000)
    for service, process in ((ours, client), (theirs, server)):
        (socket,) = [s for s in sockets(service, process) if s["remote"]]
        said = [(f["code"], f["likely"]) for f in socket["findings"]]
        assert said == [("fell_back", False), ("options_removed", True)]


def test_a_box_that_changes_the_payload(lab: Lab) -> None:
    """With MPTCP's checksum both ends notice and go on as TCP: likely the payload was changed."""
    for ns in ("client", "server"):
        lab.sysctl(ns, net__mptcp__checksum_enabled=1)
    server, client = lab.server(), lab.client()
    ours, theirs = watcher(lab), watcher(lab, "server")
    with box(lab) as changes:
        client.open()
        lab.wait_subflows(1)
        changes.append(flip_payload)
        client.send(bytes=100)
        changes.clear()
        client.send(bytes=100)  # the kernel falls back with the data that follow
        for service, process in ((ours, client), (theirs, server)):
            (said,) = codes(service, process)
            assert said[:2] == ["fell_back", "payload_changed"]


@contextlib.contextmanager
def box(lab: Lab) -> Iterator[list[Change]]:
    """The server's first link leads through a box that does to each segment what is in the list."""
    changes: list[Change] = []

    def change(tcp: bytearray) -> None:
        for each in changes:
            each(tcp)

    for ns in ("client", "server"):
        lab.ip(ns, "link", "set", "eth0", "gso_max_segs", "1")
    lab.ip("net", "link", "add", "box", "type", "veth", "peer", "name", "boxed")
    lab.ip("net", "link", "set", "server1", "nomaster")
    lab.ip("net", "link", "set", "boxed", "master", "br1", "up")
    lab.ip("net", "link", "set", "box", "up")
    ends = inside(lab.netns("net"), lambda: [frames_of("server1"), frames_of("box")])
    with forwarding(ends, change):
        yield changes


def test_no_answer_yet(lab: Lab) -> None:
    """A SYN on its way says nothing about the peer's MPTCP."""
    service = watcher(lab)
    lab.run("server", "iptables", "-A", "INPUT", "-p", "tcp", "-j", "DROP")
    client = lab.client()
    client.begin("open")
    wait_equal(lambda: codes(service, f"address={lab.address('server', 1)}:5000"), [["unanswered"]])


def test_both_ends_in_one_namespace(lab: Lab) -> None:
    """Over loopback the other end is here to be looked at."""
    service = watcher(lab)
    lab.server("--tcp", ns="client")
    client = lab.client("127.0.0.1")
    client.open()
    (found,) = sockets(service, client)[0]["findings"]
    assert found["code"] == "peer_without_mptcp"
    assert "in this network namespace" in found["text"]
    assert codes(service, "address=127.0.0.1:5000") == [["peer_without_mptcp"], ["plain_listener"]]


@pytest.mark.parametrize("dual_stack", [False, True])
def test_ipv6_and_v4_mapped(lab: Lab, dual_stack: bool) -> None:
    """An IPv6 socket is found by its address, by IPv4 where that is mapped."""
    lab.server("--tcp")
    service = watcher(lab)
    host = lab.address("server", 1, 4 if dual_stack else 6)
    lab.client(host, *(["--dual-stack"] if dual_stack else [])).open()
    end = f"{host}:5000" if dual_stack else f"[{host}]:5000"
    assert [codes(service, f"address={a}") for a in (end, host)] == [[["peer_without_mptcp"]]] * 2
    status, out, _ = ask(service, end)
    assert (status, f"→ {end} MPTCP" in out) == (0, True)


def test_many_connections_have_a_bound(lab: Lab) -> None:
    """A hundred in the answer, and the number of the others; people see ten and a sum in 80 columns."""
    lab.server("--tcp")
    service = watcher(lab)
    client = lab.client()
    client.open(130)
    status, out, _ = ask(service, str(pid(client)), "--json")
    document = json.loads(out)
    assert (status, len(document["sockets"]), document["left_out"]) == (0, 100, 30)
    status, out, _ = ask(service, str(pid(client)))
    lines = out.splitlines()
    assert max(len(line) for line in lines if not line.lstrip().startswith("$")) <= 80
    assert (lines[0], lines[12]) == (f"process {pid(client)} (python)", "… and 90 more")
    assert out.count("[peer_without_mptcp]") == 1
    assert lines[-1] == "30 more sockets are left out."


def test_a_process_of_another_namespace(lab: Lab) -> None:
    """The line names both namespaces and where to ask."""
    server = lab.server()
    status, out, err = ask(watcher(lab), str(pid(server)))
    assert (status, out, err.count("\n")) == (1, "", 1)
    namespace = os.stat(f"/proc/{pid(server)}/ns/net").st_ino
    assert f"net:[{namespace}]" in err
    assert f"nsenter --net=/proc/{pid(server)}/ns/net" in err


def test_a_process_that_the_user_may_not_see(lab: Lab) -> None:
    """With the rights of whoever asks, not those of the service."""
    service, client = watcher(lab), lab.client()
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    status, out, err = ask(service, str(pid(client)), prefix=nobody)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "no permission" in err
    assert "sudo" in err


def no_process(_: Lab) -> str:
    ended = subprocess.Popen(["true"])
    ended.wait()
    return str(ended.pid)


def no_socket(lab: Lab) -> str:
    return str(lab.popen(["sleep", "60"], stdin=subprocess.DEVNULL).pid)


def idle_cgroup(lab: Lab) -> str:
    lab.cgroup("idle")
    return lab.cgroup_path("idle")


def no_tcp(lab: Lab) -> str:
    return str(pid(lab.client()))


def test_a_process_with_many_sockets(lab: Lab) -> None:
    """The one of TCP has the highest inode."""
    program = "import socket, sys\n"
    program += "kept = [socket.socket(socket.AF_UNIX) for _ in range(600)]\n"
    program += "server = socket.create_server(('', 5000))\nprint('ready', flush=True)\nsys.stdin.read()"
    process = lab.popen(
        [sys.executable, "-c", program], ns="client", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    process.stdout.readline()
    status, out, err = ask(watcher(lab), str(process.pid), "--json")
    assert status == 0, err
    document = json.loads(out)
    assert [s["local"]["port"] for s in document["sockets"]] == [5000]
    assert document["left_out"] == 0


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        (no_process, "there is no process"),
        (no_socket, "has no socket"),
        (no_tcp, "none is of TCP"),
        (idle_cgroup, "TCP sockets of net:["),
        (lambda lab: lab.cgroup_path("nobody"), "no cgroup '/"),
        (lambda _: "192.0.2.9:443", "has no TCP connection"),
        (lambda _: "192.0.2.9:99999", "192.0.2.1:443"),
        (lambda _: "192.0.2.999", "192.0.2.1:443"),
        (lambda _: "0.0.0.0:80", "not the address of a host"),
        (lambda _: "fe80::1%eth0", "zone"),
        (lambda _: "nginx.service", "systemctl show -p ControlGroup nginx.service"),
        (lambda _: "0xffffffff", "no session"),
        (lambda _: "", "write a token"),
    ],
)
def test_one_line_for_each_mistake(lab: Lab, subject: Callable[[Lab], str], said: str) -> None:
    """No traceback, and what to do."""
    service = watcher(lab)
    status, out, err = ask(service, subject(lab))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert said in err


@pytest.mark.parametrize(
    "query",
    [
        "",
        "inodes=1&cgroup=/",
        "inodes=",
        "inodes=1,,2",
        "inodes=-1",
        "inodes=" + ",".join(map(str, range(1, 502))),
        "cgroup=a",
        "address=x",
        "address=10.0.0.1:0",
        "port=1",
    ],
)
def test_rest_refuses_what_is_not_one_question(lab: Lab, query: str) -> None:
    """400, and the service goes on."""
    service = watcher(lab)
    with pytest.raises(ApiError, match="bad-request"):
        service.get(f"/v1/why?{query}")
    assert (
        service.get("/v1/why?cgroup=/")["namespace"] == os.stat(f"/proc/{service.process.pid}/ns/net").st_ino
    )


def run_commands(lab: Lab, finding: Json) -> None:
    for line in finding["commands"]:
        lab.run("client", *line.split())
