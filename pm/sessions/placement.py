# SPDX-License-Identifier: Apache-2.0
"""By which interface each subflow of a session leaves, or should leave. Pure, given the routes' answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pm.model import LocalAddress, Origin, Pair, Subflow, SubflowState, Way, is_link_local
from pm.path_managers.remotes import can_reach
from pm.sessions.known_ways import Destination, Ways
from pm.sessions.local_addresses import LocalAddresses
from pm.sessions.session import Session


def fits(session: Session, address: LocalAddress) -> bool:
    """Whether the session's sockets can have the address: by its family, and by where they are bound."""
    if session.socket_family == 4 and address.family == 6:
        return False
    if session.device:
        return session.device in (address.ifindex, address.vrf)
    return not address.vrf


def find_ways(
    session: Session,
    there: Collection[tuple[str, int]],
    usable: list[LocalAddress],
    local_addresses: LocalAddresses,
) -> dict[Pair, Way]:
    """How packets leave, for every pair on which this end could open subflows."""
    if session.half_closed:
        return {}
    found: dict[Pair, Way] = {}
    for remote, port in there:
        if remote not in local_addresses.interfaces:  # the peer can announce an address of ours
            destination = Destination(remote, port, session.mark, session.device or 0)
            ways = local_addresses.routes.ways_to(destination)
            for a in usable:
                if can_reach(session, a, remote):
                    found[Pair(a.ip, remote, port)] = _way(session, a, ways, local_addresses)
    return found


def _way(session: Session, address: LocalAddress, ways: Ways, local_addresses: LocalAddresses) -> Way:
    if is_link_local(address.ip):
        return Way(address.ifindex)
    if bound := local_addresses.bound.get(address.ip):  # an endpoint with `dev`
        return Way(bound)
    # An endpoint can have an address that the rules exclude, of which nobody asked.
    return ways.get(address.ip) or Way(session.device or 0)


def initial_way(session: Session, pair: Pair) -> Way | None:
    """The application chose its address itself, whatever the rules say."""
    if pair.local != session.local or session.local_lost:
        return None
    return Way(session.device or (session.local_ifindex if is_link_local(pair.local) else 0))


def find_misplaced(
    session: Session, ways: Mapping[Pair, Way], local_addresses: LocalAddresses
) -> Collection[int]:
    """``id()`` of the subflows that use an interface which is not theirs any more."""
    return {id(s) for s in session.subflows if _is_misplaced(s, ways, local_addresses)}


def _is_misplaced(subflow: Subflow, ways: Mapping[Pair, Way], local_addresses: LocalAddresses) -> bool:
    """Bound to an interface that its address is not on any more, or opening over the wrong one."""
    if subflow.origin not in (Origin.POLICY, Origin.OPERATOR):
        return False
    way = ways.get(subflow.pair)
    if subflow.state is SubflowState.OPENING and way and subflow.origin is Origin.POLICY:
        return not way.exists or way.ifindex != subflow.ifindex
    home = local_addresses.interfaces.get(subflow.local, subflow.ifindex)
    return subflow.ifindex not in (0, home, way.ifindex if way else 0)
