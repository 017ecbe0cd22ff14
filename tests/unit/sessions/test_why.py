# SPDX-License-Identifier: Apache-2.0
"""Which pairs are missing, and what the evidence says of them. tests/net/test_why*.py make each for real."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pm.kernel import PathFacts, Rises, RouteOver, SessionInfo, TcpState
from pm.model import Origin, Pair, RemoteAddress, SubflowState
from pm.no_session import LOSSES, NEVER_ASKED
from pm.path_managers.registry import registry
from pm.sessions.evidence import Evidence
from pm.sessions.missing import PairState, Picture, missing_pairs, picture_of
from pm.sessions.session import FailureKind, Retry, Session
from pm.sessions.why import Why, explain, explain_stranger
from pm.sessions.why_paths import rp_filter_name
from tests.unit.builders import REMOTE, REMOTE_PORT, address, locals_of, policy, session, subflow

ROOT = Path(__file__).resolve().parents[3]
A, B = "10.0.1.1", "10.0.2.1"
PAIR_B = Pair(B, REMOTE, REMOTE_PORT)
FACTS = PathFacts("eth3", leaves_by="eth3", answers="eth3")
NOW = 100.0


def info(**fields: Any) -> SessionInfo:
    values: dict[str, Any] = {
        "token": 0x1234, "state": int(TcpState.ESTABLISHED), "uid": 0, "inode": 0, "cgroup_id": 0,
        "fallback": False, "extra_subflows": 0, "addresses_announced": 0, "addresses_accepted": 0,
        "counted": True, "retransmits": 0, "bytes_retransmitted": 0, "bytes_sent": 0, "bytes_received": 0,
        "bytes_acked": 0,
    } | fields  # fmt: skip
    return SessionInfo(**values)


def picture(of: Session, *addresses: str) -> Picture:
    there = [address(ip, ifindex) for ifindex, ip in enumerate(addresses or (A, B), 2)]
    assert of.policy
    chosen = registry()[of.policy.path_manager.name]
    return picture_of(of, of.policy, chosen, replace(locals_of(*there), there=tuple(there)))


def evidence(of: Session, **fields: Any) -> Evidence:
    values: dict[str, Any] = {"now": NOW, "info": info(), "rises": Rises({}, 9.0), "picture": picture(of)}
    return Evidence(**(values | {"paths": {PAIR_B: FACTS}} | fields))


def codes(why: Why) -> list[str]:
    return [f.code for f in (*why.findings, *(f for _, found in why.pairs for f in found))]


def opening(age_s: float = 5.0) -> Session:
    """The second subflow has been in SYN_SENT for a while."""
    flows = [
        subflow(A, local_port=40000, origin=Origin.INITIAL),
        subflow(B, local_port=0, state=SubflowState.OPENING, since=NOW - age_s),
    ]
    return session(policy=policy(), subflows=flows)


def failed(kind: FailureKind) -> Session:
    return session(policy=policy(), retries={PAIR_B: Retry(2, NOW - 1, NOW + 3, "why", kind)})


# Which are missing


def test_looking_changes_nothing() -> None:
    """The picture is of a copy, with what the plan would note in it."""
    s = session(policy=policy(), started=False, local_ifindex=0)
    seen = picture(s)
    assert (s.started, s.local_ifindex, s.unroutable, list(s.history)) == (False, 0, {}, [])
    assert seen.session.local_ifindex == 2


@pytest.mark.parametrize(
    ("make", "state"),
    [
        (lambda: session(policy=policy()), PairState.WAITING),
        (opening, PairState.OPENING),
        (lambda: failed(FailureKind.UNANSWERED), PairState.FAILED),
        (lambda: session(policy=policy(), closed_by_operator={PAIR_B: 1}), PairState.CLOSED),
    ],
)
def test_states(make: Any, state: PairState) -> None:
    """One pair is missing, whatever became of it."""
    (missing,) = missing_pairs(picture(make()), {PAIR_B: 3}, NOW)
    assert (missing.pair, missing.state) == (PAIR_B, state)
    assert missing.retransmits == (3 if state is PairState.OPENING else None)
    assert missing.age_s == (5.0 if state is PairState.OPENING else None)
    assert missing.retry_in_s == (3.0 if state is PairState.FAILED else None)


@pytest.mark.parametrize("fields", [{"half_closed": True}, {"managed": False}])
def test_nothing_is_missing_where_nothing_can_be_opened(fields: dict[str, Any]) -> None:
    """Such a session gets no subflow: that is said of the session."""
    assert missing_pairs(picture(session(policy=policy(), **fields)), {}, NOW) == []


def test_a_peer_cannot_make_the_list_long() -> None:
    """It announces as many addresses as it likes, and each is filtered or fails."""
    remotes = tuple(RemoteAddress(f"10.9.{i // 250}.{i % 250 + 1}", 0, i % 255 + 1) for i in range(500))
    s = session(policy=policy(parameters={"max_subflows": 64}), remotes=remotes, refused_remotes=remotes)
    why = explain(s, evidence(s))
    assert len(why.pairs) <= 64
    assert len(why.findings) <= 20
    assert all(len(f.evidence) <= 9 for f in why.findings)


# Findings


@pytest.mark.parametrize(
    ("rp_filter", "answers", "code"),
    [
        ((0, 0), "eth0", "syn_unanswered"),
        ((1, 0), "eth0", "rp_filter"),
        ((0, 1), "eth0", "rp_filter"),
        ((0, 1), "", "rp_filter"),
        ((1, 2), "eth0", "syn_unanswered"),  # the larger one holds: loose
        ((2, 1), "eth0", "syn_unanswered"),
        ((1, 1), "eth3", "syn_unanswered"),  # the way back is right
    ],
)
@pytest.mark.parametrize("make", [opening, lambda: failed(FailureKind.UNANSWERED)])
def test_rp_filter_is_judged_as_the_kernel_does(
    make: Any, rp_filter: tuple[int, int], answers: str, code: str
) -> None:
    """The larger of all and the interface holds; the way back must be by the interface of the answer."""
    s = make()
    facts = FACTS._replace(rp_filter=rp_filter, answers=answers)
    why = explain(s, evidence(s, paths={PAIR_B: facts}))
    assert codes(why)[0] == code
    (_, found) = why.pairs[0]
    assert found[0].likely == (code == "syn_unanswered")


def test_an_address_on_a_dummy() -> None:
    """Its packets leave by another interface, where the answers come: its own rp_filter says nothing."""
    s = opening()
    seen = picture(s)
    held = tuple(replace(a, holder=a.ip == B) for a in seen.addresses.there)
    seen = replace(seen, addresses=replace(seen.addresses, there=held))
    facts = PathFacts("dum0", leaves_by="eth0", answers="eth0", rp_filter=(1, 1))
    why = explain(s, evidence(s, picture=seen, paths={PAIR_B: facts}))
    assert codes(why) == ["source_filtered"]
    assert why.pairs[0][1][0].likely


@pytest.mark.parametrize(
    ("name", "setting"),
    [("eth0", "net.ipv4.conf.eth0.rp_filter"), ("eth0.10", "net/ipv4/conf/eth0.10/rp_filter")],
)
def test_sysctl_takes_names_with_dots(name: str, setting: str) -> None:
    """A VLAN."""
    assert rp_filter_name(name) == setting


@pytest.mark.parametrize(
    ("kind", "code", "likely"),
    [
        (FailureKind.COMMAND, "refused_by_kernel", False),
        (FailureKind.UNREACHABLE, "unreachable", False),
        (FailureKind.RESET, "connection_refused", True),
        (FailureKind.NO_MPTCP, "join_option_missing", True),
        (FailureKind.REFUSED, "refused_by_peer", False),
        (FailureKind.ENDED, "subflow_lost", False),
    ],
)
def test_each_kind_of_failure(kind: FailureKind, code: str, likely: bool) -> None:
    """And when it is tried again. While the next SYN has just been sent, the last failure counts."""
    s = failed(kind)
    why = explain(s, evidence(s))
    assert codes(why) == [code, "backoff"]
    assert why.pairs[0][1][0].likely == likely
    again = opening(age_s=0.1)
    again.retries = s.retries
    assert codes(explain(again, evidence(again))) == [code]


def test_a_syn_that_was_just_sent() -> None:
    """Nothing is to be said yet."""
    s = opening(age_s=0.1)
    assert codes(explain(s, evidence(s))) == ["opening"]


@pytest.mark.parametrize(
    ("routes", "commands"),
    [
        ((RouteOver(102, "10.0.2.9"),), [f"ip rule add from {B} lookup 102"]),
        (
            (RouteOver(254, "10.0.2.9"), RouteOver(254, "")),
            [
                "ip route add default via 10.0.2.9 dev eth3 table 1003",
                f"ip rule add from {B} lookup 1003",
            ],
        ),
        (
            (),
            [
                "ip route add default via GATEWAY dev eth3 table 1003",
                f"ip rule add from {B} lookup 1003",
            ],
        ),
    ],
)
def test_commands_for_a_missing_route(routes: tuple[RouteOver, ...], commands: list[str]) -> None:
    """The rule where there is a table; else a table, by the router that `main` has or the person writes."""
    s = session(policy=policy(), mark=7)
    seen = picture(s)
    seen.session.unroutable = {PAIR_B: "packets would leave by eth0: no route over eth3"}
    facts = PathFacts("eth3", leaves_by="eth0", answers="eth0", routes=routes)
    (_, found) = explain(s, evidence(s, picture=seen, paths={PAIR_B: facts})).pairs[0]
    assert found[0].code == "no_route"
    assert found[0].commands == (*commands, f"ip route get {REMOTE} from {B} mark 0x7")


def test_a_stranger() -> None:
    """A session of this moment."""
    assert codes(explain_stranger(0x99)) == ["not_known_yet"]


def test_a_program_that_opens_the_subflows() -> None:
    """On the bpf datapath the service waits for it."""
    s = session(policy=policy())
    assert codes(explain(s, evidence(s, program="fullmesh"))) == ["left_to_program"]


def test_a_blackhole_is_told_of_beside_the_rest() -> None:
    """Not where the kernel cannot have any (before Linux 6.12), or does not look for it."""
    s = session(policy=policy())
    rises = Rises({"MPTcpExtBlackhole": 1}, 30.0)
    assert "blackhole" in codes(explain(s, evidence(s, rises=rises, blackhole_timeout_s=3600)))
    assert "blackhole" not in codes(explain(s, evidence(s, rises=rises)))
    assert "blackhole" not in codes(explain(s, evidence(s, blackhole_timeout_s=3600)))


def test_every_code_is_documented() -> None:
    """docs/why.md has each code that the sources have, and no other."""
    made = {code for _, code, _ in (*LOSSES, *NEVER_ASKED)}
    for file in (*(ROOT / "pm/sessions").glob("why*.py"), ROOT / "pm/no_session.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
                made |= {str(n.value) for n in ast.walk(node.args[0]) if isinstance(n, ast.Constant)}
    documented = re.findall(r"^\| `([a-z0-9_]+)` \|", (ROOT / "docs/why.md").read_text(), flags=re.M)
    assert sorted(made) == sorted(set(documented))


def test_names_in_commands_are_quoted() -> None:
    """Whoever makes an interface gives it almost any name."""
    name = "$(id);&"
    s = opening()
    facts = FACTS._replace(interface=name, leaves_by=name, answers="eth1", rp_filter=(1, 1))
    (_, found) = explain(s, evidence(s, paths={PAIR_B: facts})).pairs[0]
    assert found[0].commands == (f"sysctl -w 'net.ipv4.conf.{name}.rp_filter=2'",)
