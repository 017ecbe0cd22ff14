# SPDX-License-Identifier: Apache-2.0
"""What the peer is told of the local addresses (ADD_ADDR, RM_ADDR): a part of the plan. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pm.model import Announcement, LocalAddress, Role, Subflow, SubflowState, is_private
from pm.path_managers.endpoints import NamespaceEndpoints
from pm.policies.model import Policy
from pm.sessions.actions import Announce, Plan, Withdraw
from pm.sessions.local_addresses import LocalAddresses
from pm.sessions.session import Session


def announcements(
    session: Session, policy: Policy, usable: list[LocalAddress], local_addresses: LocalAddresses
) -> list[Announcement]:
    """What the peer is told of us, as far as it is not known at once."""
    parameters = policy.path_manager.parameters
    if isinstance(parameters, NamespaceEndpoints):
        return parameters.announcements(session, local_addresses.lost)
    if not (policy.announce and session.role is Role.SERVER and session.started):
        return []
    peer_is_public = not is_private(session.remote)
    return [
        Announcement(address.ip)
        for address in usable
        if address.ip != session.local and not (peer_is_public and is_private(address.ip))
    ]


def announce(
    made: Plan,
    session: Session,
    told: Sequence[Announcement],
    local_addresses: LocalAddresses,
    now: float,
) -> None:
    for ip, port, backup in told:
        local_id = local_addresses.id_of(session, ip)
        known = session.announced and ip in session.announced
        if not known and local_id is not None and may_try(made, session, ip, now):
            made.actions.append(Announce(ip, local_id, "announced by the policy", port, backup))


def withdraw(
    made: Plan,
    session: Session,
    policy: Policy,
    told: Sequence[Announcement],
    usable: list[LocalAddress],
    local_addresses: LocalAddresses,
    now: float,
) -> None:
    """RM_ADDR for what the peer knows of us and that is gone.

    Comes before the subflows are closed: SUBFLOW_DESTROY makes the kernel forget the address id.
    """
    if isinstance(policy.path_manager.parameters, NamespaceEndpoints):
        stays = {announcement.ip for announcement in told}
    else:
        stays = {address.ip for address in usable}
    known = session.announced or {}
    gone = [ip for ip in known if ip not in stays]
    if _alive(session.subflows, local_addresses):
        lost = (s.local for s in session.subflows if s.local in local_addresses.lost)
        gone += [ip for ip in dict.fromkeys(lost) if ip not in known]
    for ip in gone:
        local_id = known.get(ip) or local_addresses.id_of(session, ip)
        if local_id is not None and may_try(made, session, ip, now):
            made.actions.append(Withdraw(ip, local_id, "address lost"))


def _alive(subflows: Sequence[Subflow], local_addresses: LocalAddresses) -> bool:
    return any(s.state is SubflowState.ESTABLISHED and s.local not in local_addresses.lost for s in subflows)


def may_try(made: Plan, session: Session, ip: str, now: float) -> bool:
    """Whether an announcement or withdrawal is due; a refused one is tried again with backoff."""
    retry = session.address_retries.get(ip) if session.address_retries else None
    if retry and now < retry.not_before:
        made.look_again(retry.not_before)
        return False
    return True
