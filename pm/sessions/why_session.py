# SPDX-License-Identifier: Apache-2.0
"""Why a session as a whole gets no more subflows. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from pm.findings import Finding
from pm.kernel import TcpState
from pm.model import LocalAddress, Pair, Role, family_of, is_link_local, is_loopback, token_text
from pm.path_managers.endpoints import Endpoints
from pm.path_managers.fullmesh import FullMesh
from pm.path_managers.ndiffports import NDiffPorts
from pm.path_managers.none import NonePathManager
from pm.path_managers.remotes import candidates, reachable
from pm.sessions.admission import wait_for_age
from pm.sessions.evidence import Evidence
from pm.sessions.missing import Picture
from pm.sessions.placement import fits
from pm.sessions.session import Session, SessionState

SHOWN_MAX = 8  # of things of one kind
INTERFACE_DOWN = "interface is down"  # `why` of such an address
ON_THE_PEER = "# on the peer: "

_BLACKHOLE = ("MPTcpExtBlackhole", "MPTcpExtMPCapableSYNTXDisabled")


def blackhole(evidence: Evidence) -> Iterator[Finding]:
    """The kernel stops MPTCP for new connections after SYNs with MP_CAPABLE were lost (Linux 6.12)."""
    facts = evidence.rise_of(*_BLACKHOLE)
    if facts and evidence.blackhole_timeout_s:
        setting = f"net.mptcp.blackhole_timeout={evidence.blackhole_timeout_s}"
        yield Finding(
            "blackhole",
            "SYNs with MPTCP's options were lost, and the kernel makes new connections of this network "
            f"namespace plain TCP for a time: {evidence.blackhole_timeout_s} s at first, longer each time. "
            "Writing the sysctl ends that; 0 stops it for ever.",
            (*facts, setting),
            (f"sysctl -w {setting}",),
        )


def about_session(session: Session, picture: Picture, evidence: Evidence) -> list[Finding]:
    """What holds for all pairs of a session that gets subflows."""
    return [
        *_start(session, picture, evidence),
        *_path_manager(session),
        *_remote_end(session),
        *_refused_remotes(session, evidence),
        *_unusable_addresses(session, picture),
        *_left_out(session, picture),
        *blackhole(evidence),
    ]


def decides_alone(session: Session, evidence: Evidence) -> Finding | None:
    """The reason why a session gets no subflow at all."""
    token = token_text(session.token)
    if not session.managed:
        return Finding(
            "not_managed",
            "The kernel's own path manager has this session, since it began before the service did. Only a "
            "new connection gets the subflows of its policy.",
            ("the kernel refused a command: userspace PM not selected",),
            ("ip mptcp endpoint show", "ip mptcp limits show"),
        )
    if session.half_closed or evidence.info.state not in (TcpState.ESTABLISHED, TcpState.SYN_SENT):
        state = TcpState(evidence.info.state).name.replace("_", "-")
        return Finding(
            "half_closed",
            "One end has closed, or shut down its side: no subflow can be opened any more.",
            (f"the session is in {state}",),
        )
    if session.state is SessionState.CREATED:
        return Finding(
            "not_established",
            "The session is not established yet: the kernel opens no subflow before the first data has been "
            "acknowledged. An application that only connects has one subflow.",
            (f"{evidence.moved} bytes moved so far",),
        )
    if evidence.picture is None:
        where = evidence.cgroup or "unknown"
        return Finding(
            "no_policy",
            "No policy owns the session's cgroup: the service leaves it alone.",
            (f"its cgroup is {where}",),
            ("mptcp-pm policies", f"mptcp-pm session {token}"),
        )
    return None


def _start(session: Session, picture: Picture, evidence: Evidence) -> Iterator[Finding]:
    if session.started or not session.established:
        return
    start = picture.policy.start
    age_s = evidence.now - session.established.monotonic
    facts = []
    if wait_for_age(start, age_s):
        facts.append(f"`start.after`: {age_s:.1f} of {start.after:g} s")
    if start.after_bytes:
        facts.append(f"`start.after_bytes`: {evidence.moved} of {start.after_bytes} bytes")
    yield Finding(
        "start_not_reached",
        f"The policy {picture.policy.name} opens subflows only once a session has reached its `start`. The "
        "key can be made smaller, and the file reloaded.",
        tuple(facts),
        (f"mptcp-pm session {token_text(session.token)}", "mptcp-pm reload"),
    )


def _path_manager(session: Session) -> Iterator[Finding]:
    if session.complaint:
        yield Finding(
            "path_manager_failed",
            "The answer of the path manager was rejected: the session keeps the subflows that it has.",
            (session.complaint,),
            (f"mptcp-pm session {token_text(session.token)}",),
        )


def _remote_end(session: Session) -> Iterator[Finding]:
    there = reachable(session)
    if session.role is Role.SERVER and not there:
        yield Finding(
            "peer_opens",
            "This end is the server: the client opens the subflows. This end can open one only to an address "
            "that the client announces with a port. `announce: true` in the policy tells the client of all "
            "addresses of this end.",
            ("no address with a port was announced by the client",),
            (f"{ON_THE_PEER}ip mptcp limits set subflow 8 add_addr_accepted 8",),
        )
    if session.role is Role.CLIENT and session.deny_join_id0:
        yield Finding(
            "peer_denies_joins",
            "The peer accepts no subflow to its initial address, only to others that it announces; most "
            "often it is behind a load balancer. Without one it can be told to accept them.",
            ("MP_CAPABLE had the C flag (RFC 8684, section 3.1)", _announced(session)),
            (f"{ON_THE_PEER}sysctl -w net.mptcp.allow_join_initial_addr_port=1",),
        )
    if session.role is Role.CLIENT and session.initial_removed:
        yield Finding(
            "peer_withdrew_address",
            "The peer withdrew its initial address: no subflow is opened to it.",
            (f"RM_ADDR for {session.remote}", _announced(session)),
        )


def _announced(session: Session) -> str:
    names = ", ".join(remote.ip for remote in session.remotes[:SHOWN_MAX])
    return f"the peer announced {names}" if names else "the peer announced no address"


def _refused_remotes(session: Session, evidence: Evidence) -> Iterator[Finding]:
    for remote in session.refused_remotes[:SHOWN_MAX]:
        why = evidence.refused.get(remote.ip, "not allowed when it was announced")
        yield Finding(
            "remote_address_refused",
            f"The peer announced {remote.ip}, and no subflow goes there. `remote_addresses` in the "
            "configuration says which addresses are allowed.",
            (why,),
            ("mptcp-pm reload",),
        )


def _unusable_addresses(session: Session, picture: Picture) -> Iterator[Finding]:
    if isinstance(picture.policy.path_manager.parameters, NonePathManager.Parameters):
        return
    used = {a.ip for a in picture.outlook.usable} | {s.local for s in session.subflows}
    families = {family_of(remote) for remote, _ in picture.outlook.there}
    shown = 0
    for address in picture.addresses.there:
        if address.ip in used or address.family not in families or _is_noise(address) or shown == SHOWN_MAX:
            continue
        shown += 1
        commands = ["mptcp-pm addresses"]
        if address.why == INTERFACE_DOWN:
            commands.insert(0, f"ip link set dev {quote(address.ifname)} up")
        yield Finding(
            "address_not_usable",
            f"{address.ip} on {address.ifname} is not used.",
            (_why_not(session, address),),
            tuple(commands),
        )


def _is_noise(address: LocalAddress) -> bool:
    """What nobody takes for a path."""
    return address.ifname == "lo" or (address.family == 6 and is_link_local(address.ip))


def _why_not(session: Session, address: LocalAddress) -> str:
    if not address.usable or fits(session, address):
        return address.why
    if session.socket_family == 4 and address.family == 6:
        return "the application's socket is an IPv4 one"
    return "the application's socket is bound to another interface or VRF, or the address is in a VRF"


def _left_out(session: Session, picture: Picture) -> Iterator[Finding]:
    """Pairs that could have a subflow, and that the path manager does not want."""
    policy, choice = picture.policy, picture.policy.path_manager
    there = {s.pair for s in session.subflows}
    possible = candidates(picture.session, picture.outlook.usable)
    # Endpoints may be on any interface, on `lo` too.
    used = there.union(picture.outlook.wanted)
    left = [pair for pair in possible if pair not in used and not is_loopback(pair.local)]
    if not left:
        return
    facts = [str(pair) for pair in left[:SHOWN_MAX]]
    if len(left) > SHOWN_MAX:
        facts.append(f"and {len(left) - SHOWN_MAX} others")
    wanted = sum(want.subflows for want in picture.outlook.wanted.values())
    by_hand = f"mptcp-pm subflow add {token_text(session.token)} --local {left[0].local} {_remote(left[0])}"
    key = f"policies.{policy.name}.path_manager.{choice.name}.max_subflows"
    if choice.name == Endpoints.name:
        yield _beyond_endpoints(left, facts, wanted, choice.max_subflows)
    elif choice.name == FullMesh.name and wanted >= choice.max_subflows:
        yield Finding(
            "cap_reached",
            f"The policy's cap has no room for other pairs: {choice.max_subflows} subflows. The key is "
            f"`{key}`; `addresses.order` says which addresses come first.",
            tuple(facts),
            (by_hand,),
        )
    else:
        yield Finding(
            "not_wanted",
            f"The path manager {choice.name} of the policy {policy.name} does not want other pairs"
            f"{_in_words(choice.name)}.",
            tuple(facts),
            (by_hand,),
        )


def _remote(pair: Pair) -> str:
    return f"--remote {pair.remote} --port {pair.remote_port}"


def _in_words(path_manager: str) -> str:
    known = {
        NonePathManager.name: ": it opens no subflow. `fullmesh` or `backup` do",
        NDiffPorts.name: ": all its subflows are between the initial addresses. `fullmesh` uses others",
        "backup": ": it has one standby over another interface. `fullmesh` uses all",
    }
    return known.get(path_manager, "")


def _beyond_endpoints(left: list[Pair], facts: list[str], wanted: int, cap: int) -> Finding:
    if wanted >= cap:
        return Finding(
            "cap_reached",
            f"`ip mptcp limits` allows {cap - 1} subflows beside the initial one.",
            tuple(facts),
            (f"ip mptcp limits set subflow {min(cap, 8)}",),
        )
    return Finding(
        "not_wanted",
        "`ip mptcp endpoint` and `ip mptcp limits` ask for no other subflow.",
        tuple(facts),
        (f"ip mptcp endpoint add {left[0].local} subflow", "ip mptcp endpoint show"),
    )
