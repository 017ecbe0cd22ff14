# SPDX-License-Identifier: Apache-2.0
"""Path managers are pure: a session and local addresses in, the wanted subflows out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pm.model import LocalAddress, Pair, RemoteAddress, Role, Want, Wanted, family_of
from pm.path_managers.registry import registry
from pm.sessions.session import Session
from tests.unit.builders import REMOTE, REMOTE_PORT, address, session, subflow

A, B = "10.0.1.1", "10.0.2.1"


def wanted(name: str, session_: Session, *addresses: LocalAddress, **parameters: Any) -> Wanted:
    path_manager = registry()[name]
    result: Wanted = path_manager.wanted(session_, addresses, path_manager.Parameters(**parameters))
    return result


def pair(local: str, remote: str = REMOTE, port: int = REMOTE_PORT) -> Pair:
    return Pair(local, remote, port)


def test_none_wants_the_initial_subflow_only() -> None:
    """`none` adds nothing, whatever addresses there are."""
    assert wanted("none", session(), address(A), address(B)) == {pair(A): Want()}


def test_ndiffports_counts_the_initial_subflow() -> None:
    """subflows: 3 is three in all, on the initial pair."""
    assert wanted("ndiffports", session(), address(A), address(B), subflows=3) == {pair(A): Want(3)}


def test_ndiffports_of_a_server_wants_one() -> None:
    """A server cannot connect to the client's ephemeral port."""
    assert wanted("ndiffports", session(role=Role.SERVER), subflows=3) == {pair(A): Want(1)}


def test_ndiffports_respects_the_c_flag() -> None:
    """A peer that set the C flag of MP_CAPABLE refuses joins to its initial address."""
    assert wanted("ndiffports", session(deny_join_id0=True), subflows=3) == {pair(A): Want(1)}


def test_fullmesh_is_every_local_with_every_remote_of_its_family() -> None:
    """Two local and two remote addresses make four pairs; a v6 remote has no v4 partner."""
    s = session(remotes=(RemoteAddress("10.0.9.2", 0, 1), RemoteAddress("fd00::9", 0, 2)))
    assert set(wanted("fullmesh", s, address(A), address(B))) == {
        pair(A),
        pair(A, "10.0.9.2"),
        pair(B),
        pair(B, "10.0.9.2"),
    }


def test_fullmesh_uses_the_announced_port() -> None:
    """ADD_ADDR with a port: subflows go there (RFC 8684, section 3.4.1)."""
    s = session(remotes=(RemoteAddress("10.0.9.2", 8080, 1),))
    assert pair(A, "10.0.9.2", 8080) in wanted("fullmesh", s, address(A))


def test_fullmesh_marks_backup_interfaces() -> None:
    """Subflows from a backup interface carry the backup flag."""
    assert wanted("fullmesh", session(), address(A), address(B, 3, backup=True))[pair(B)] == Want(1, True)


def test_fullmesh_cap_leaves_every_pair_its_first_subflow() -> None:
    """max_subflows is spent in rounds, not on the first pair."""
    got = wanted("fullmesh", session(), address(A), address(B), subflows_per_pair=2, max_subflows=3)
    assert {p: w.subflows for p, w in got.items()} == {pair(A): 2, pair(B): 1}


def test_fullmesh_keeps_the_initial_pair_where_its_address_may_not_be_used() -> None:
    """An initial subflow from an excluded interface stays one subflow, and is never multiplied."""
    got = wanted("fullmesh", session(), address(B), subflows_per_pair=2)
    assert got == {pair(A): Want(1), pair(B): Want(2)}


def test_backup_wants_a_standby_over_another_interface() -> None:
    """Flagged backup while the primary works; an address of the same link is no standby."""
    got = wanted("backup", session(), address(A), address("10.0.1.2"), address(B, 3))
    assert got == {pair(A): Want(), pair(B): Want(1, True)}


def test_backup_promotes_the_standby_when_the_primary_is_gone() -> None:
    """Without an established primary the standby loses its backup flag."""
    s = session(subflows=[subflow(B, backup=True)])
    assert wanted("backup", s, address(A), address(B, 3))[pair(B)] == Want(1, False)


def test_backup_promotes_the_standby_when_the_primary_address_is_lost() -> None:
    """The link under the primary went: its subflow still looks established, its address is not usable."""
    assert wanted("backup", session(local_lost=True), address(B, 3))[pair(B)] == Want(1, False)


def test_backup_promotes_the_standby_when_the_peer_wants_the_primary_for_a_backup() -> None:
    """Both would be backups otherwise; a backup of the peer's on the standby changes nothing."""
    shunned = session(subflows=[subflow(A, peer_backup=True)])
    assert wanted("backup", shunned, address(A), address(B, 3)) == {pair(A): Want(), pair(B): Want(1, False)}
    both = session(subflows=[subflow(A), subflow(B, peer_backup=True)])
    assert wanted("backup", both, address(A), address(B, 3))[pair(B)] == Want(1, True)


def test_backup_on_one_interface_when_the_peer_withdrew_the_primary() -> None:
    """The primary's own interface serves once its pair is gone, and cannot be opened again; not before."""
    other = RemoteAddress("10.0.8.1", 0, 2)
    removed: dict[str, Any] = {"remotes": (other,), "initial_removed": True}
    got = wanted("backup", session(**removed, subflows=[subflow(A)]), address(A))
    assert got == {pair(A): Want()}
    gone = wanted("backup", session(**removed, subflows=[]), address(A))
    assert gone[Pair(A, other.ip, session().remote_port)] == Want(1, False)
    denied = session(remotes=(other,), deny_join_id0=True, subflows=[])
    assert Pair(A, other.ip, denied.remote_port) in wanted("backup", denied, address(A))


ips = st.integers(1, 6).map(lambda i: f"10.0.{i}.1") | st.integers(1, 4).map(lambda i: f"fd00:{i}::1")
address_sets = st.lists(
    st.builds(address, ips, st.integers(2, 5), backup=st.booleans()), max_size=6, unique_by=lambda a: a.ip
)
remotes = st.lists(
    st.builds(RemoteAddress, ips, st.sampled_from([0, 8080]), st.integers(1, 5)), max_size=4
).map(tuple)


@given(
    address_sets, remotes, st.integers(1, 3), st.integers(1, 10), st.sampled_from(list(Role)), st.booleans()
)
def test_fullmesh_invariants(
    addresses: list[LocalAddress],
    announced: tuple[RemoteAddress, ...],
    per_pair: int,
    cap: int,
    role: Role,
    deny: bool,
) -> None:
    """Families never mix, no cap is exceeded, the initial pair is always wanted."""
    s = session(remotes=announced, role=role, deny_join_id0=deny)
    got = wanted("fullmesh", s, *addresses, subflows_per_pair=per_pair, max_subflows=cap)
    assert s.initial_pair in got
    assert sum(w.subflows for w in got.values()) <= cap
    assert all(1 <= w.subflows <= per_pair for w in got.values())
    assert all(family_of(p.local) == family_of(p.remote) for p in got)


@pytest.mark.parametrize("name", ["none", "ndiffports", "fullmesh", "backup"])
@given(address_sets, remotes)
def test_path_managers_are_pure(
    name: str, addresses: list[LocalAddress], announced: tuple[RemoteAddress, ...]
) -> None:
    """Same arguments, same answer, and the session is not touched."""
    s = session(remotes=announced)
    before = repr(s)
    assert wanted(name, s, *addresses) == wanted(name, s, *addresses)
    assert repr(s) == before
