# SPDX-License-Identifier: Apache-2.0
"""The plan is the difference between wanted and existing subflows, make before break."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from pm.model import LocalAddress, Origin, Pair, RemoteAddress, Role, Subflow, SubflowState
from pm.path_managers.registry import registry
from pm.sessions.actions import Announce, Close, Open, Plan, SetBackup, Withdraw
from pm.sessions.plan import SETTLED_S, plan
from pm.sessions.session import FailureKind, Retry, Session
from tests.unit.builders import REMOTE, REMOTE_PORT, address, locals_of, policy, session, subflow

A, B = "10.0.1.1", "10.0.2.1"


def actions(s: Session, *addresses: LocalAddress, now: float = 0.0, lost: Iterable[str] = ()) -> list[Any]:
    assert s.policy
    return plan(s, registry()[s.policy.path_manager.name], locals_of(*addresses, lost=lost), now).actions


def test_opens_what_is_missing() -> None:
    """A second local address, a second subflow, with the address's own id."""
    s = session(policy=policy())
    assert actions(s, address(A), address(B)) == [Open(Pair(B, REMOTE, REMOTE_PORT), 2, False, "fullmesh")]


def test_initial_address_has_id_zero() -> None:
    """ndiffports joins from the initial address: id 0, as often as wanted."""
    s = session(policy=policy("ndiffports", {"subflows": 3}))
    assert [a.local_id for a in actions(s, address(A))] == [0, 0]


def test_initial_address_may_be_multiplied_though_the_rules_exclude_it() -> None:
    """The application chose that address itself (loopback, say)."""
    s = session("127.0.0.1", policy=policy("ndiffports"))
    excluded = address("127.0.0.1")
    locals_ = locals_of(excluded)
    locals_ = type(locals_)((), locals_.up, {})
    assert len(plan(s, registry()["ndiffports"], locals_, 0.0).actions) == 1


def test_nothing_to_do_when_all_is_there() -> None:
    """Level-triggered: a second look finds nothing, also while a subflow is still opening."""
    there = [subflow(A, origin=Origin.INITIAL), subflow(B, local_port=0, state=SubflowState.OPENING)]
    assert actions(session(policy=policy(), subflows=there), address(A), address(B)) == []


def test_nothing_without_policy() -> None:
    """A session outside all policies, or of the kernel's own path manager, is left alone."""
    addresses = address(A), address(B)
    assert plan(session(), registry()["fullmesh"], locals_of(*addresses), 0.0) == Plan()
    assert actions(session(policy=policy(), managed=False), *addresses) == []


def test_retry_waits_and_says_how_long() -> None:
    """A failed pair is not opened before its time; the plan tells when that is."""
    pair = Pair(B, REMOTE, REMOTE_PORT)
    s = session(policy=policy(), retries={pair: Retry(1, 0.0, 5.0, "ECONNREFUSED")})
    locals_ = locals_of(address(A), address(B))
    assert plan(s, registry()["fullmesh"], locals_, 4.0) == Plan([], 5.0)
    assert len(plan(s, registry()["fullmesh"], locals_, 5.0).actions) == 1


def test_threshold_not_reached_opens_nothing() -> None:
    """start.after: a young session has its initial subflow only."""
    assert actions(session(policy=policy(), started=False), address(A), address(B)) == []


def test_lost_initial_address_overrides_the_threshold() -> None:
    """A session that would die does not wait for start.after."""
    s = session(policy=policy(), started=False)
    assert Open(Pair(B, REMOTE, REMOTE_PORT), 1, False, "fullmesh") in actions(s, address(B), lost=[A])


def test_lost_address_is_withdrawn_then_closed() -> None:
    """RM_ADDR must come before SUBFLOW_DESTROY, which makes the kernel forget the id."""
    gone = subflow(B, local_id=2)
    s = session(policy=policy(), subflows=[subflow(A, origin=Origin.INITIAL), gone])
    assert actions(s, address(A), address(B, up=False)) == [
        Withdraw(B, 2, "address lost"),
        Close(gone, "address lost"),
    ]


def test_last_subflow_is_never_closed() -> None:
    """With every address lost the newest subflow stays, and nothing is withdrawn over a dead path."""
    s = session(policy=policy())
    assert actions(s, address(A, up=False)) == []


def test_make_before_break() -> None:
    """The only subflow's address is lost: first another is opened, the old one goes in a later plan."""
    s = session(policy=policy())
    assert [type(a) for a in actions(s, address(A, up=False), address(B))] == [Open]
    s.subflows.append(subflow(B, local_id=2))
    assert [type(a) for a in actions(s, address(A, up=False), address(B))] == [Withdraw, Close]


def test_reload_to_none_closes_ours_only() -> None:
    """The initial subflow, the peer's and the operator's stay."""
    ours = subflow(B)
    s = session(
        policy=policy("none"),
        subflows=[
            subflow(A, origin=Origin.INITIAL),
            ours,
            subflow(B, local_port=2, origin=Origin.PEER),
            subflow(B, local_port=3, origin=Origin.OPERATOR),
        ],
    )
    assert actions(s, address(A), address(B)) == [Close(ours, "not wanted by the policy")]


def test_what_exists_at_an_address_that_is_not_reachable_stays() -> None:
    """An adopted session that may have the C flag: its subflows to the initial address are not closed."""
    s = session(policy=policy(), deny_join_id0=True, remotes=(RemoteAddress("10.0.8.1", 0, 2),))
    s.subflows += [subflow(B, local_port=41001), subflow(B, "10.0.8.1", local_port=41002)]
    assert not [a for a in actions(s, address(A), address(B, 3)) if isinstance(a, Close)]


def test_surplus_on_a_wanted_pair_is_closed() -> None:
    """ndiffports from 3 to 2: one goes."""
    extra = [subflow(A, local_port=p) for p in (1, 2)]
    s = session(policy=policy("ndiffports"), subflows=[subflow(A, origin=Origin.INITIAL), *extra])
    assert actions(s, address(A)) == [Close(extra[1], "not wanted by the policy")]


def test_backup_flag_follows_the_wanted_set() -> None:
    """A standby is promoted by MP_PRIO, unless the operator set the flag by hand."""
    standby = subflow(B, backup=True)
    s = session(policy=policy("backup"), subflows=[standby])
    addresses = address(A), address(B, 3)
    assert SetBackup(standby, False, "primary") in actions(s, *addresses)
    standby.backup_by_hand = True
    assert not any(isinstance(a, SetBackup) for a in actions(s, *addresses))


def test_server_announces_its_other_addresses_once() -> None:
    """ADD_ADDR for usable addresses other than the initial one; withdrawn when they go."""
    s = session(policy=policy("none", announce=True), role=Role.SERVER)
    assert actions(s, address(A), address(B, 3)) == [Announce(B, 2, "announced by the policy")]
    s.announced = {B: 2}
    assert actions(s, address(A), address(B, 3)) == []
    assert actions(s, address(A), address(B, 3, up=False)) == [Withdraw(B, 2, "address lost")]


def test_client_does_not_announce() -> None:
    """A client has no port that the peer could connect to."""
    assert actions(session(policy=policy("none", announce=True)), address(A), address(B)) == []


def test_v4_socket_gets_no_v6_subflow() -> None:
    """The kernel allows v6 subflows on v6 sockets only; those may have both families."""
    addresses = address(A), address("fd00::1", 3)
    v4 = session(policy=policy("none", announce=True), role=Role.SERVER)
    assert actions(v4, *addresses) == []
    dual = session(policy=policy("none", announce=True), role=Role.SERVER, socket_family=6)
    assert [a.ip for a in actions(dual, *addresses)] == ["fd00::1"]


def test_subflow_closed_by_hand_is_not_opened_again() -> None:
    """DELETE over REST holds, until the next reload."""
    s = session(policy=policy(), closed_by_operator={Pair(B, REMOTE, REMOTE_PORT): 1})
    assert actions(s, address(A), address(B)) == []


def stuck(local: str, **fields: Any) -> Subflow:
    found = subflow(local, **fields)
    found.stuck = True
    return found


def test_nothing_is_opened_where_the_peer_cannot_be_reached() -> None:
    """A server, the C flag, a withdrawn initial address: what exists stays, what went is not opened."""
    for fields in ({"role": Role.SERVER}, {"deny_join_id0": True}, {"initial_removed": True}):
        gone = session(policy=policy("ndiffports"), subflows=[], **fields)
        assert actions(gone, address(A), address(B, 3)) == []
        there = session(policy=policy("none"), **fields)
        assert actions(there, address(A), address(B, 3)) == []


def test_a_half_closed_session_gets_nothing_new() -> None:
    """But its lost subflows are closed all the same."""
    gone = subflow(B, local_id=2)
    flows = [subflow(A, origin=Origin.INITIAL), gone]
    s = session(policy=policy(), half_closed=True, subflows=flows)
    assert Close(gone, "address lost") in actions(s, address(A), address(B, up=False))
    assert actions(session(policy=policy(), half_closed=True), address(A), address(B)) == []


@pytest.mark.parametrize("remote", ["127.0.0.1", "127.9.9.9", "::1", B])
def test_a_host_with_itself_needs_no_path(remote: str) -> None:
    """Loopback, or an address of this host."""
    local = "::1" if ":" in remote else A
    s = session(local, remote, policy=policy(), subflows=[subflow(local, remote, origin=Origin.INITIAL)])
    assert actions(s, address(A), address(B, 3)) == []


def test_link_local_addresses_go_together_on_their_interface() -> None:
    """The subflow is bound to it: an address of fe80::/10 says nothing without."""
    near, far = address("fe80::2", 2), address("fe80::3", 3)
    s = session("fe80::1", "fe80::9", policy=policy())
    (opened,) = actions(s, address("fe80::1", 2), near, far, address("2001:db8::1", 2))
    assert (opened.pair.local, opened.ifindex) == ("fe80::2", 2)
    s = session("2001:db8::1", "2001:db8::9", policy=policy())
    assert actions(s, address("2001:db8::1", 2), near, far) == []


def test_the_applications_own_link_local_address_is_multiplied() -> None:
    """Whether the rules allow link-local addresses or not."""
    s = session("fe80::1", "fe80::9", policy=policy("ndiffports"))
    excluded = LocalAddress("fe80::1", 64, 2, "eth0", False, False, "")
    assert [a.ifindex for a in actions(s, excluded)] == [2]


def test_a_private_address_is_not_announced_to_a_public_peer() -> None:
    """It would be somebody else's there. To a private peer it is announced."""
    public, private = address("203.0.113.5", 3), address("192.168.7.7", 4)
    for remote, announced in (("198.51.100.1", {public.ip}), (REMOTE, {public.ip, private.ip})):
        s = session(A, remote, policy=policy("none", announce=True), role=Role.SERVER)
        assert {a.ip for a in actions(s, address(A), public, private)} == announced


def test_a_refused_announcement_waits_for_its_time() -> None:
    """And the plan says when that is."""
    s = session(policy=policy("none", announce=True), role=Role.SERVER)
    s.address_retries = {B: Retry(1, 0.0, 5.0, "EINVAL")}
    locals_ = locals_of(address(A), address(B, 3))
    assert plan(s, registry()["none"], locals_, 4.0) == Plan([], 5.0)
    assert len(plan(s, registry()["none"], locals_, 5.0).actions) == 1


def test_a_stuck_subflow_is_replaced_then_closed() -> None:
    """Another one on the pair first; the stuck one goes once that has settled."""
    dead = stuck(B, local_id=2)
    s = session(policy=policy(), subflows=[subflow(A, origin=Origin.INITIAL), dead])
    addresses = address(A), address(B)
    assert [type(a) for a in actions(s, *addresses)] == [Open]
    twin = subflow(B, local_port=2, local_id=2, since=10.0)
    s.subflows.append(twin)
    settled = 10.0 + SETTLED_S
    assert plan(s, registry()["fullmesh"], locals_of(*addresses), 10.5) == Plan([], settled)
    assert [a.subflow for a in actions(s, *addresses, now=settled)] == [dead]
    twin.carried = True
    assert [a.subflow for a in actions(s, *addresses, now=10.5)] == [dead]


def test_a_stuck_subflow_that_the_peer_counts_is_taken_back() -> None:
    """Only after a refusal, with another working subflow, and none working from its own address."""
    refused = Retry(1, 0.0, 100.0, "refused", kind=FailureKind.REFUSED)
    pair = Pair(B, REMOTE, REMOTE_PORT)
    dead = stuck(B, local_id=2)
    s = session(policy=policy(), subflows=[subflow(A, origin=Origin.INITIAL), dead], retries={pair: refused})
    addresses = address(A), address(B)
    assert [type(a) for a in actions(s, *addresses)] == [Withdraw, Close]
    s.retries = {pair: Retry(1, 0.0, 100.0, "ETIMEDOUT")}
    assert actions(s, *addresses) == []
    s.retries = {pair: refused}
    s.subflows[0].stuck = True
    assert [type(a) for a in actions(s, *addresses)] == [Open]  # nothing works: only more is tried


def test_a_half_that_the_peer_counts_is_taken_back() -> None:
    """The dead subflow is gone here: only after a refusal, and while nothing living is from its address."""
    pair = Pair(B, REMOTE, REMOTE_PORT)
    s = session(policy=policy(), subflows=[subflow(A, origin=Origin.INITIAL)])
    addresses = address(A), address(B, 2)
    reason = "the peer counts a subflow from it that is dead"
    s.retries = {pair: Retry(2, 0.0, 0.0, "refused", kind=FailureKind.REFUSED, left_half=True)}
    assert actions(s, *addresses) == [Withdraw(B, 2, reason, announce_first=True)]
    s.retries = {pair: Retry(1, 0.0, 0.0, "ETIMEDOUT", left_half=True)}
    assert [type(a) for a in actions(s, *addresses)] == [Open]  # the peer may have room
    s.retries = {pair: Retry(2, 0.0, 0.0, "refused", kind=FailureKind.REFUSED)}
    assert [type(a) for a in actions(s, *addresses)] == [Open]  # it had no half to take back
    s.retries = {pair: Retry(2, 0.0, 0.0, "refused", kind=FailureKind.REFUSED, left_half=True)}
    s.subflows[0].stuck = True
    assert [type(a) for a in actions(s, *addresses)] == [Open, Open]  # nothing works: only more is tried


def test_an_address_is_withdrawn_by_the_id_under_which_it_was_announced() -> None:
    """Also where the kernel has given it another one meanwhile."""
    s = session(policy=policy("none", announce=True), role=Role.SERVER, announced={B: 7}, local_ids={B: 3})
    assert actions(s, address(A), address(B, 3, up=False)) == [Withdraw(B, 7, "address lost")]


def test_an_address_that_was_never_there_is_not_lost() -> None:
    """AnyIP: it is on no interface, and the session is left alone under any policy."""
    for name in ("none", "fullmesh", "backup", "ndiffports"):
        s = session("192.0.2.1", policy=policy(name), role=Role.SERVER)
        assert actions(s, address(A), address(B, 3)) == []


def test_one_stuck_subflow_of_a_pair_is_kept_at_most() -> None:
    """A path that passes small packets only: each new subflow gets stuck, and none is left behind."""
    first, second = stuck(B, local_port=1, since=1.0), stuck(B, local_port=2, since=2.0)
    retry = Retry(2, 2.0, 100.0, "no data gets through")
    s = session(
        policy=policy(),
        subflows=[subflow(A, origin=Origin.INITIAL), first, second],
        retries={Pair(B, REMOTE, REMOTE_PORT): retry},
    )
    assert [a.subflow for a in actions(s, address(A), address(B), now=3.0)] == [first]


@pytest.mark.parametrize("remote", ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", A, B])
def test_what_is_no_other_hosts_address_is_not_dialled(remote: str) -> None:
    """Whatever the peer announces."""
    flows = [subflow(A, origin=Origin.INITIAL), subflow(B)]
    s = session(policy=policy(), subflows=flows, remotes=(RemoteAddress(remote, 0, 1),))
    assert actions(s, address(A), address(B)) == []
