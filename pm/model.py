# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of the service: addresses, pairs of addresses, subflows, and who wanted them.

Data only, no I/O and no clock. Terms are those of RFC 8684; IP addresses are canonical text
(``inet_ntop``), in IPv4 form also where the kernel reports it v4-mapped, and shared (one string
object per address), since a busy host holds thousands of references to the same few.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from pm.interfaces import UNKNOWN, Interface


class Role(StrEnum):
    """Which end of the initial subflow this host is."""

    CLIENT = "client"
    SERVER = "server"


class SubflowState(StrEnum):
    OPENING = "opening"
    ESTABLISHED = "established"


class Origin(StrEnum):
    """Who wanted a subflow."""

    INITIAL = "initial"  # the application, by its own connect() or accept()
    POLICY = "policy"  # the path manager of the session's policy
    PEER = "peer"  # the other end, which joined
    OPERATOR = "operator"  # a person, over REST or the CLI


class EventKind(StrEnum):
    """What an event of the service is about: the ``type`` that readers of the event stream see."""

    SESSION = "session"
    SUBFLOW = "subflow"
    ADDRESS = "address"
    POLICY = "policy"
    CONFIG = "config"


class LinkState(StrEnum):
    """Of an interface."""

    UP = "up"
    NO_CARRIER = "no carrier"
    DOWN = "down"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """A local address as rtnetlink reports it, and what path managers may do with it.

    ``why`` says in words why it is usable or not; ``usable`` already takes link state, address
    flags and the configured rules into account, and what of several addresses of a prefix, or of
    several interfaces with one address, is chosen. ``up`` ignores the rules: the address can carry
    packets (its link is up with carrier, it is not tentative unless optimistic, and did not fail).
    An address is in a list once for each interface that has it. ``vrf`` is the index of the VRF that the
    interface belongs to, 0 for none. ``holder``: no packet leaves over the interface (a dummy), so those
    from the address leave by others.

    ``kind`` is the kernel's name for the kind of the interface (``vlan``, ``bond``, ``veth``; ``ip -d link``
    shows it), "" for hardware, wired or not. ``metric`` is that of the route over the interface to the rest
    of the Internet, the default route as a rule; None where there is none, and for addresses that are not
    usable.
    """

    ip: str
    prefix_len: int
    ifindex: int
    ifname: str
    usable: bool
    backup: bool
    why: str
    up: bool = True
    vrf: int = 0
    holder: bool = False
    kind: str = ""
    metric: int | None = None

    @property
    def family(self) -> int:
        """4 or 6."""
        return family_of(self.ip)


def interfaces_of(addresses: Iterable[LocalAddress]) -> dict[str, int]:
    """Interface index by address; of several the one where it is usable, else up, else the first."""
    found: dict[str, LocalAddress] = {}
    for address in addresses:
        known = found.setdefault(address.ip, address)
        if (address.usable, address.up) > (known.usable, known.up):
            found[address.ip] = address
    return {ip: address.ifindex for ip, address in found.items()}


class Endpoint(NamedTuple):
    """An entry of the namespace's ``ip mptcp endpoint``. ``port`` and ``ifindex`` are 0 where it has none."""

    ip: str
    address_id: int
    port: int = 0
    ifindex: int = 0
    signal: bool = False
    subflow: bool = False
    backup: bool = False
    fullmesh: bool = False
    laminar: bool = False


class EndpointTable(NamedTuple):
    """What ``ip mptcp endpoint`` and ``ip mptcp limits`` say: subflows beside the initial one, whoever
    opens them, and addresses of the peer that are accepted.
    """

    endpoints: tuple[Endpoint, ...] = ()
    subflows: int = 0
    add_addr_accepted: int = 0


class Announcement(NamedTuple):
    """A local address to announce to the peer. ``port`` 0 leaves the port out."""

    ip: str
    port: int = 0
    backup: bool = False


class RemoteAddress(NamedTuple):
    """An address the peer announced with ADD_ADDR. ``port`` is 0 if it gave none."""

    ip: str
    port: int
    address_id: int


class Pair(NamedTuple):
    """The ends of a subflow: local address, remote address and remote port."""

    local: str
    remote: str
    remote_port: int

    def __str__(self) -> str:
        return f"{self.local} × {self.remote}"


SUBFLOWS_MAX = 64
"""What this end opens in one session at most, the initial subflow included: the kernel has no limit."""


class Way(NamedTuple):
    """How packets from a local address to a remote one leave.

    ``ifindex`` is the interface to bind a subflow to, 0 for none; ``why`` says why there is no way, "" where
    there is one.
    """

    ifindex: int = 0
    why: str = ""

    @property
    def exists(self) -> bool:
        return not self.why


class Want(NamedTuple):
    """How many subflows a pair should have, and whether they carry the backup flag."""

    subflows: int = 1
    backup: bool = False


Wanted = dict[Pair, Want]


class Figures(NamedTuple):
    """What a subflow has carried, as the kernel counts it (struct tcp_info).

    SYN and FIN count as a byte each. ``retransmits`` are segments, ``rtt_us`` is the smoothed round-trip
    time.
    """

    bytes_acked: int = 0
    bytes_received: int = 0
    retransmits: int = 0
    rtt_us: int = 0


NOTHING_CARRIED = Figures()


@dataclass(slots=True, eq=False)
class Subflow:
    """One TCP subflow of a session. ``local_port`` is 0 until the kernel reports it.

    ``backup`` is the flag as this end set it, ``peer_backup`` as the peer did; ``socket_family`` is
    6 for a v4-mapped subflow. ``since`` is the monotonic time from which it has been opening, then
    that from which it has been established. ``carried``: data went both ways. ``stuck``: what it
    sent is not acknowledged any more; ``suspect_since`` (0.0: not) and ``suspect_acked`` are when a
    look first found it so, and the bytes acknowledged then. ``seen`` numbers the last comparison
    with the kernel that found it. ``ifindex`` is the interface that it is bound to, 0 for none.
    ``rtt_us`` is the smoothed round-trip time as last noted, None for unknown, which it stays where the
    path manager does not follow it. ``figures`` are the last that the ledger noted, and ``interface`` is the
    one that has its local address, UNKNOWN for not known yet.
    """

    local: str
    local_port: int
    remote: str
    remote_port: int
    origin: Origin
    state: SubflowState
    local_id: int = 0
    remote_id: int = 0
    backup: bool = False
    peer_backup: bool = False
    backup_by_hand: bool = False
    socket_family: int = 4
    since: float = 0.0
    carried: bool = False
    stuck: bool = False
    suspect_since: float = 0.0
    suspect_acked: int = 0
    seen: int = 0
    ifindex: int = 0
    rtt_us: int | None = None
    figures: Figures = NOTHING_CARRIED
    interface: Interface = UNKNOWN

    @property
    def working(self) -> bool:
        """Established, and what it sends is acknowledged."""
        return self.state is SubflowState.ESTABLISHED and not self.stuck

    @property
    def pair(self) -> Pair:
        return Pair(self.local, self.remote, self.remote_port)

    @property
    def id(self) -> str:
        """The name of the subflow within its session: ``LOCAL:PORT-REMOTE:PORT``."""
        return f"{self.local}:{self.local_port}-{self.remote}:{self.remote_port}"


def family_of(ip: str) -> int:
    """4 or 6, from an address's canonical text."""
    return 6 if ":" in ip else 4


def is_link_local(ip: str) -> bool:
    """fe80::/10: an address that means something on its own link only."""
    return ip.startswith(("fe8", "fe9", "fea", "feb"))


def is_loopback(ip: str) -> bool:
    """127.0.0.0/8 or ::1."""
    return ip == "::1" or ip.startswith("127.")


@lru_cache(maxsize=4096)
def is_host(ip: str) -> bool:
    """Whether another host can have this address: not loopback, multicast, broadcast or unspecified."""
    address = ip_address(ip)
    return not (
        address.is_loopback or address.is_multicast or address.is_unspecified or ip == "255.255.255.255"
    )


PRIVATE = tuple(
    ip_network(prefix)
    for prefix in (
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
        "127.0.0.0/8", "fc00::/7", "fe80::/10", "::1/128",
    )
)  # fmt: skip


@lru_cache(maxsize=4096)
def is_private(ip: str) -> bool:
    """An address that hosts elsewhere cannot reach: RFC 1918, 4193, 6598 (behind a provider), link-local."""
    address = ip_address(ip)
    return any(address in prefix for prefix in PRIVATE if prefix.version == address.version)


def token_text(token: int) -> str:
    """A session's token as people read it: ``0x`` and eight hex digits."""
    return f"{token:#010x}"
