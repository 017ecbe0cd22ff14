# SPDX-License-Identifier: Apache-2.0
"""One address per interface and network prefix, and one interface per address. Pure.

A second address of a prefix is no further path. It is often one that must not be seen: the stable address
beside the temporary ones of privacy extensions (RFC 8981).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import NamedTuple

from pm.linux.netlink.rtnetlink import IFA_F_TEMPORARY, AddressKey
from pm.model import LocalAddress, is_link_local

Network = IPv4Network | IPv6Network
# (interface index, destination) -> the source address that the kernel takes, "" where it takes none.
SourceOf = Callable[[int, str], str]

# What a connection to somewhere else is like: no host's address, in no link's prefix (RFC 2544, RFC 5180).
OUTSIDE = {4: "198.18.0.1", 6: "2001:2::1"}


class Candidate(NamedTuple):
    """A usable address, with its position among all, its network and whether it is a temporary one."""

    position: int
    ip: str
    network: Network
    temporary: bool


class Judged(NamedTuple):
    """An address with what rtnetlink says of it; ``flags`` are IFA_F_*."""

    key: AddressKey
    flags: int
    address: LocalAddress


def one_per_prefix(judged: Sequence[Judged], source_of: SourceOf) -> list[LocalAddress]:
    """All addresses in order; of several usable ones of a prefix on an interface only one stays usable.

    It is the one that the kernel takes as source where an application does not choose: so the kernel's rules
    (RFC 6724, ``use_tempaddr``, a route's ``src``) hold for the subflows too.
    """
    addresses = [entry.address for entry in judged]
    own = frozenset(address.ip for address in addresses)
    for (ifindex, network), group in _groups(judged).items():
        if len(group) > 1:
            chosen = _preferred(ifindex, network, group, own, source_of)
            why = f"{chosen} is used of {network}, and addresses.all is false"
            for candidate in group:
                if candidate.ip != chosen:
                    spared = addresses[candidate.position]
                    addresses[candidate.position] = replace(spared, usable=False, why=why)
    return addresses


def one_interface_each(addresses: Iterable[LocalAddress]) -> tuple[LocalAddress, ...]:
    """An address of several interfaces stays usable on the first only: a 4-tuple does not tell them apart.

    The link-local addresses of IPv6 are other ones on each link.
    """
    first: dict[str, LocalAddress] = {}
    told = []
    for address in addresses:
        if address.usable and not is_link_local(address.ip):
            other = first.setdefault(address.ip, address)
            if other is not address:
                address = replace(address, usable=False, why=f"the same address is used on {other.ifname}")
        told.append(address)
    return tuple(told)


def _groups(judged: Sequence[Judged]) -> dict[tuple[int, Network], list[Candidate]]:
    usable = [(at, entry) for at, entry in enumerate(judged) if entry.address.usable]
    networks = [_network(entry.key.peer or entry.key.ip, entry.key.prefix_len) for _, entry in usable]
    wide: dict[int, set[Network]] = {}
    for (_, entry), network in zip(usable, networks, strict=True):
        if not _is_host(network):
            wide.setdefault(entry.key.ifindex, set()).add(network)
    groups: dict[tuple[int, Network], list[Candidate]] = {}
    for (at, entry), network in zip(usable, networks, strict=True):
        ifindex = entry.key.ifindex
        if _is_host(network):
            network = _enclosing(network, wide.get(ifindex, ()))
        temporary = network.version == 6 and bool(entry.flags & IFA_F_TEMPORARY)
        candidate = Candidate(at, entry.key.ip, network, temporary)
        groups.setdefault((ifindex, network), []).append(candidate)
    return groups


def _enclosing(host: Network, wide: Iterable[Network]) -> Network:
    """DHCPv6 gives /128: such an address has the prefix that the interface's other addresses tell of."""
    around = [network for network in wide if _contains(network, host.network_address)]
    return min(around, key=lambda network: network.prefixlen, default=host)


def _preferred(
    ifindex: int, network: Network, group: Sequence[Candidate], own: frozenset[str], source_of: SourceOf
) -> str:
    among = {candidate.ip for candidate in group}
    for destination in (OUTSIDE[network.version], _neighbour(network, own)):
        source = destination and source_of(ifindex, destination)
        if source in among:
            return source
    # No route tells, or it prefers an address of another prefix: never show what a temporary one hides.
    return next((candidate.ip for candidate in group if candidate.temporary), group[0].ip)


def _neighbour(network: Network, own: frozenset[str]) -> str:
    """An address of the network that is not ours, the broadcast address or the routers' anycast address."""
    last = int(network.broadcast_address) - (network.version == 4 and network.prefixlen < 31)
    of = type(network.network_address)
    for number in range(last, max(int(network.network_address), last - len(own) - 1) - 1, -1):
        if (text := str(of(number))) not in own:
            return text
    return ""


@lru_cache(maxsize=4096)
def _network(ip: str, prefix_len: int) -> Network:
    return ip_network((ip, prefix_len), strict=False)


def _is_host(network: Network) -> bool:
    return network.prefixlen == network.max_prefixlen


def _contains(network: Network, address: IPv4Address | IPv6Address) -> bool:
    return network.version == address.version and address in network
