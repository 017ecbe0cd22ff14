# SPDX-License-Identifier: Apache-2.0
"""Why a TCP connection is no MPTCP session: which end did not ask for MPTCP, or where it was lost. Pure.

What the kernel keeps of a connection is shown by the flags of its subflow (net/mptcp/diag.c): MCAP_LOC is
set while its SYN asks for MPTCP and cleared where it does not any more, MCAP_REM once both ends agreed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pm.findings import Finding
from pm.kernel import SessionInfo, SocketRecord, TcpState, UlpFlag

SOCKETS_MAX = 100
WILDCARDS = ("0.0.0.0", "::")

_MAKE_IT_ASK = (
    "# the option of the program, where it is known: mptcp-pm why PID",
    "# a program in Go: GODEBUG=multipathtcp=1 COMMAND",
    "mptcpize run COMMAND",
)
# What can end MPTCP within a session: the counters of MPTcpExt that tell, and what is said then.
LOSSES = (
    (
        ("DataCsumErr", "MPFailTx", "MPFailRx"),
        "payload_changed",
        "A checksum was wrong: a box on the way changes what is sent (as an FTP helper of NAT does).",
    ),
    (
        ("DSSCorruptionFallback",),
        "mapping_damaged",
        "An option of MPTCP did not fit the data: a box on the way splits, joins or changes segments.",
    ),
    (
        ("DssFallback", "MPCapableDataFallback"),
        "options_removed",
        "Data came without MPTCP's option: a box on the way removes it, or answers in the peer's place (a "
        "proxy).",
    ),
    (("InfiniteMapRx",), "peer_fell_back", "The peer ended MPTCP: it lost options or data of ours."),
)
# What can keep MP_CAPABLE out of a SYN from the start.
NEVER_ASKED = (
    (
        "MPCapableSYNTXDisabled",
        "blackhole",
        "The kernel does not ask for MPTCP now: SYNs that asked for it were lost, and for some time it opens "
        "all connections of this network namespace as TCP. The first command ends that, the second for good.",
    ),
    ("MD5SigFallback", "md5_signature", "The program set a TCP MD5 signature, which MPTCP cannot have."),
    ("MPFallbackTokenInit", "no_token", "The kernel found no free token for the session."),
)


class MptcpState(NamedTuple):
    """What holds for all MPTCP sockets of a network namespace.

    ``blackhole_timeout_s`` is None before Linux 6.12; ``ephemeral`` are the first and the last local port
    that the kernel chooses; ``counters`` are those of MPTcpExt, without that prefix, that are not 0.
    """

    enabled: bool
    blackhole_timeout_s: int | None
    ephemeral: tuple[int, int]
    counters: Mapping[str, int]


class Chosen:
    """The sockets that are asked about: one of each session, at most ``SOCKETS_MAX``; others are counted."""

    def __init__(self, wanted: Callable[[SocketRecord], bool]) -> None:
        self._wanted = wanted
        self._sockets: dict[object, SocketRecord] = {}
        self.looked_at = 0
        self.left_out = 0

    def add(self, sockets: Iterable[SocketRecord]) -> None:
        for socket in sockets:
            self.looked_at += 1
            if not self._wanted(socket):
                continue
            key = socket.token or socket[:4]
            known = self._sockets.get(key)
            if known is None and len(self._sockets) >= SOCKETS_MAX:
                self.left_out += 1
            elif known is None or known.is_join:
                self._sockets[key] = socket

    @property
    def sockets(self) -> list[SocketRecord]:
        return list(self._sockets.values())

    def neighbours(self) -> set[tuple[int, int]]:
        """(local, remote) ports of their listeners, their other ends, and the listeners of those."""
        chosen = [socket for socket in self._sockets.values() if not socket.is_listener]
        listeners = {(port, 0) for s in chosen for port in (s.local_port, s.remote_port)}
        return listeners | {(s.remote_port, s.local_port) for s in chosen}


def explain(
    socket: SocketRecord, session: SessionInfo | None, around: Sequence[SocketRecord], state: MptcpState
) -> list[Finding]:
    """Why it is no MPTCP session; nothing where it is one, and for a listener that offers MPTCP.

    ``session`` is the one with its token, and ``around`` are the sockets of ``Chosen.neighbours``.
    """
    if not socket.mptcp:
        return [_plain(socket, around, state), *_switched_off(state)]
    if socket.is_listener:
        return _switched_off(state)
    fell_back = session is None or session.fallback
    if socket.state == TcpState.SYN_SENT and (not fell_back or socket.token):
        return [_unanswered(socket, fell_back)]
    if not fell_back:
        return []
    # A client that has the peer's key forgets MCAP_REM where the first answer has no MPTCP.
    if socket.flags & UlpFlag.MCAP_REM or (session and session.remote_key):
        return _lost_later(socket, state)
    if socket.flags & UlpFlag.MCAP_LOC:
        return [_peer_without(socket, around, state)]
    if socket.token:
        return [_lost_syns(socket, state)]
    return _never_asked(state)


def _switched_off(state: MptcpState) -> list[Finding]:
    if state.enabled:
        return []
    return [
        Finding(
            "mptcp_disabled",
            "MPTCP is switched off in this network namespace: no program here can make an MPTCP socket, and "
            "most take TCP then. In a container, `sysctls:` of its engine sets it.",
            ("net.mptcp.enabled is 0",),
            ("sysctl -w net.mptcp.enabled=1",),
        )
    ]


def _plain(socket: SocketRecord, around: Sequence[SocketRecord], state: MptcpState) -> Finding:
    listeners = [socket] if socket.is_listener else _listeners_of(socket, around)
    evidence = tuple(_describe(listener) for listener in listeners)
    if not listeners:
        first, last = state.ephemeral
        return Finding(
            "plain_socket",
            "This end is a plain TCP socket: the program that opened it did not ask for MPTCP.",
            (_describe(socket), f"no socket listens on port {socket.local_port}"),
            _MAKE_IT_ASK,
            likely=not first <= socket.local_port <= last,
        )
    if all(listener.mptcp for listener in listeners):
        return Finding(
            "client_without_mptcp",
            "The listener has MPTCP and the client did not ask for it: its socket is plain TCP, MPTCP is "
            "switched off there, or a box on the way removes the option.",
            (*evidence, *_counted(state, "MPCapableFallbackACK")),
            _look_at_syns(socket),
        )
    return Finding(
        "plain_listener",
        "The listener is plain TCP: all that it accepts is TCP, whatever the clients ask for.",
        evidence,
        _MAKE_IT_ASK,
        likely=any(listener.mptcp for listener in listeners),
    )


def _listeners_of(socket: SocketRecord, around: Sequence[SocketRecord]) -> list[SocketRecord]:
    """Those of the sockets around that can have accepted it: the kernel takes the most exact one."""
    same_family = WILDCARDS[":" in socket.local]
    for local in dict.fromkeys((socket.local, same_family, "::")):
        found = [s for s in around if s.is_listener and (s.local_port, s.local) == (socket.local_port, local)]
        if bound := [s for s in found if s.ifindex == socket.ifindex] or found:
            return bound
    return []


def _peer_without(socket: SocketRecord, around: Sequence[SocketRecord], state: MptcpState) -> Finding:
    other_end = (socket.remote, socket.remote_port, socket.local, socket.local_port)
    here = [other for other in around if other[:4] == other_end]
    evidence = ("our SYN had MP_CAPABLE, the answer had not", *_counted(state, "MPCapableFallbackSYNACK"))
    if here:
        listeners = _listeners_of(here[0], around)
        if listeners and not any(listener.mptcp for listener in listeners):
            return Finding(
                "peer_without_mptcp",
                "The other end is in this network namespace, and its listener is plain TCP.",
                (*map(_describe, listeners), *evidence),
            )
    return Finding(
        "peer_without_mptcp",
        "The peer answered without MPTCP: its socket is plain TCP, MPTCP is switched off there, or a box on "
        "the way removes the option.",
        evidence,
        ("# on the peer: sysctl net.mptcp.enabled; ss -lM", *_look_at_syns(socket)),
    )


def _lost_syns(socket: SocketRecord, state: MptcpState) -> Finding:
    return Finding(
        "syn_dropped",
        "SYNs that asked for MPTCP had no answer, and the one that did not had: a box on the way, or a "
        "firewall of the peer, drops them.",
        (
            f"{socket.retransmits} segments were sent again",
            *_counted(state, "MPCapableSYNTXDrop", "Blackhole"),
        ),
        _look_at_syns(socket),
        likely=True,
    )


def _never_asked(state: MptcpState) -> list[Finding]:
    found = [entry for entry in NEVER_ASKED if state.counters.get(entry[0])]
    if not found:
        return [
            Finding(
                "mptcp_not_asked",
                "The program made an MPTCP socket, and the kernel opened the connection without MPTCP.",
                ("our SYN had no MP_CAPABLE",),
                ("nstat -az 'MPTcpExt*'",),
            )
        ]
    return [
        Finding(
            code,
            text,
            ("our SYN had no MP_CAPABLE", *_counted(state, counter), *(_blackhole(state) if hole else ())),
            _end_blackhole(state) if hole else (),
            likely=len(found) > 1,
        )
        for counter, code, text in found
        for hole in [code == "blackhole"]
    ]


def _blackhole(state: MptcpState) -> Iterator[str]:
    yield from _counted(state, "MPCapableSYNTXDrop", "Blackhole")
    if state.blackhole_timeout_s is not None:
        yield f"net.mptcp.blackhole_timeout is {state.blackhole_timeout_s} s"


def _end_blackhole(state: MptcpState) -> tuple[str, ...]:
    name = "net.mptcp.blackhole_timeout"
    return (f"sysctl -w {name}={state.blackhole_timeout_s or 3600}", f"sysctl -w {name}=0")


def _lost_later(socket: SocketRecord, state: MptcpState) -> list[Finding]:
    found = [
        Finding(
            "fell_back",
            "Both ends agreed on MPTCP, and it was lost later: the connection goes on as TCP, over one path.",
            ("MPTCP_INFO has the flag FALLBACK, and the peer spoke MPTCP in the handshake",),
        )
    ]
    for counters, code, text in LOSSES:
        if evidence := _counted(state, *counters):
            found.append(Finding(code, text, evidence, _look_at_packets(socket), likely=True))
    return found


def _unanswered(socket: SocketRecord, fell_back: bool) -> Finding:
    asks = f"the SYN {'no longer asks' if fell_back else 'asks'} for MPTCP"
    text = "The peer has not answered yet: whether it has MPTCP is not known."
    return Finding("unanswered", text, (f"SYN sent again {socket.retransmits} times", asks))


def _counted(state: MptcpState, *names: str) -> tuple[str, ...]:
    """Counters are of the whole namespace: they show that it happens here, not to whom."""
    return tuple(f"MPTcpExt{name} is {state.counters[name]}" for name in names if state.counters.get(name))


def _look_at_syns(socket: SocketRecord) -> tuple[str, ...]:
    """To be run at both ends: where `mptcp capable` gets lost."""
    port = min(socket.local_port, socket.remote_port)
    return (f"tcpdump -nvi any 'tcp[tcpflags] & tcp-syn != 0 and port {port}'",)


def _look_at_packets(socket: SocketRecord) -> tuple[str, ...]:
    return (f"tcpdump -nvi any 'tcp and host {socket.remote} and port {socket.remote_port}'",)


def _describe(socket: SocketRecord) -> str:
    local = f"[{socket.local}]" if ":" in socket.local else socket.local
    kind = "MPTCP" if socket.mptcp else "plain TCP"
    return f"{local}:{socket.local_port} {'listens as' if socket.is_listener else 'is'} {kind}"
