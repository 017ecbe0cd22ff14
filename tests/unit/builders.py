# SPDX-License-Identifier: Apache-2.0
"""Sessions, addresses and events for tests of the pure modules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pm.clock import Moment
from pm.kernel import MptcpEvent, SocketRecord, SubflowRecord, TcpState, UlpFlag
from pm.model import LocalAddress, Origin, Role, Subflow, SubflowState
from pm.path_managers.choice import PathManagerChoice
from pm.path_managers.registry import registry
from pm.policies.model import Policy
from pm.sessions.history import History
from pm.sessions.known_ways import Routes, anywhere
from pm.sessions.local_addresses import LocalAddresses
from pm.sessions.session import Session, SessionState
from pm.sessions.subflows import Subflows


def at(seconds: float) -> Moment:
    """A moment at which both clocks show the same."""
    return Moment(seconds, seconds)


REMOTE = "10.0.9.1"
REMOTE_PORT = 5201


def address(ip: str, ifindex: int = 2, *, backup: bool = False, up: bool = True) -> LocalAddress:
    return LocalAddress(ip, 24, ifindex, f"eth{ifindex}", up, backup, "", up)


def locals_of(*addresses: LocalAddress, lost: Iterable[str] = ()) -> LocalAddresses:
    """Those that are not up are lost."""
    routes = Routes(anywhere)
    routes.set_addresses(a for a in addresses if a.usable)
    return LocalAddresses(
        tuple(a for a in addresses if a.usable),
        frozenset(a.ip for a in addresses if a.up),
        {a.ip: i for i, a in enumerate(addresses, 1)},
        {a.ip for a in addresses if not a.up} | set(lost),
        {a.ip: a.ifindex for a in addresses},
        routes=routes,
    )


def policy(path_manager: str = "fullmesh", parameters: dict[str, Any] | None = None, **fields: Any) -> Policy:
    chosen = registry()[path_manager].Parameters(**(parameters or {}))
    return Policy(name="p", cgroup="/p", path_manager=PathManagerChoice(path_manager, chosen), **fields)


def session(local: str = "10.0.1.1", remote: str = REMOTE, **fields: Any) -> Session:
    """An established client session with its initial subflow."""
    family = 6 if ":" in local else 4
    values: dict[str, Any] = {
        "token": 0x1234,
        "number": 1,
        "role": Role.CLIENT,
        "socket_family": family,
        "local": local,
        "local_port": 40000,
        "remote": remote,
        "remote_port": REMOTE_PORT,
        "created": at(1.0),
        "history": History(),
        "state": SessionState.ESTABLISHED,
        "established": at(1.0),
        "started": True,
        "local_ifindex": 2,
        "device": 0,
    } | fields
    values["subflows"] = Subflows(values.get("subflows", ()))
    result = Session(**values)
    if "subflows" not in fields:
        result.subflows.append(subflow(local, remote, local_port=40000, origin=Origin.INITIAL))
    return result


def subflow(
    local: str,
    remote: str = REMOTE,
    *,
    local_port: int = 41000,
    origin: Origin = Origin.POLICY,
    state: SubflowState = SubflowState.ESTABLISHED,
    **fields: Any,
) -> Subflow:
    return Subflow(local, local_port, remote, REMOTE_PORT, origin, state, **fields)


def record(
    *,
    is_initial: bool = True,
    is_established: bool = True,
    is_fully_established: bool = True,
    opened_here: bool = True,
    backup: bool = False,
    peer_backup: bool = False,
    **fields: Any,
) -> SubflowRecord:
    """A subflow as a dump shows it: by default the established initial one of ``session()``."""
    state = TcpState.ESTABLISHED if is_established else TcpState.SYN_SENT
    if opened_here:
        flags = UlpFlag.MCAP_LOC if is_initial else UlpFlag.JOIN_LOC
    else:
        flags = UlpFlag.MCAP_REM if is_initial else UlpFlag.JOIN_REM
    for flag, wanted in (
        (UlpFlag.FULLY_ESTABLISHED, is_fully_established),
        (UlpFlag.BACKUP_LOC, backup),
        (UlpFlag.BACKUP_REM, peer_backup),
    ):
        flags |= flag if wanted else UlpFlag(0)
    values: dict[str, Any] = {
        "token": 0x1234,
        "remote_token": 0,
        "local": "10.0.1.1",
        "local_port": 40000,
        "remote": REMOTE,
        "remote_port": REMOTE_PORT,
        "socket_family": 4,
        "state": int(state),
        "flags": int(flags),
        "local_id": 0,
        "remote_id": 0,
        "cookie": 0,
        "cgroup_id": 77,
        "ifindex": 0,
    }
    return SubflowRecord(**(values | fields))


def event(kind: int, **fields: Any) -> MptcpEvent:
    values: dict[str, Any] = {
        "type": kind,
        "token": 0x1234,
        "family": 4,
        "local": "10.0.1.1",
        "local_port": 40000,
        "remote": REMOTE,
        "remote_port": REMOTE_PORT,
        "local_id": 0,
        "remote_id": 0,
        "backup": False,
        "error": 0,
        "reset_reason": -1,
        "server_side": False,
        "deny_join_id0": False,
    }
    return MptcpEvent(**(values | fields))


def socket_record(**fields: Any) -> SocketRecord:
    """A plain TCP connection."""
    values: dict[str, Any] = {
        "local": "10.0.1.1",
        "local_port": 40000,
        "remote": REMOTE,
        "remote_port": REMOTE_PORT,
        "state": TcpState.ESTABLISHED,
        "inode": 11,
        "cgroup_id": 7,
        "ifindex": 0,
        "mptcp": False,
        "token": 0,
        "flags": 0,
        "retransmits": 0,
    }
    return SocketRecord(**{**values, **fields})


def listener(**fields: Any) -> SocketRecord:
    """A plain TCP listener on any IPv4 address."""
    values: dict[str, Any] = {"local": "0.0.0.0", "local_port": 80, "remote": "0.0.0.0", "remote_port": 0}
    return socket_record(**{**values, "state": TcpState.LISTEN, "inode": 12, **fields})
