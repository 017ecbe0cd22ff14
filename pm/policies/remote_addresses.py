# SPDX-License-Identifier: Apache-2.0
"""To which of the addresses that a peer announces subflows may go. Pure.

The SYNs are ours: without a rule a peer could have any address scanned or flooded from here, this host's
own and its neighbours' among them. Both datapaths judge by ``prefix_flags``: the programs by a trie of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntFlag
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated

from typing_extensions import Doc

from pm.model import PRIVATE
from pm.notation import Network

AnyNetwork = IPv4Network | IPv6Network

EVERYTHING: tuple[AnyNetwork, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))
# No other host has these: unspecified, loopback, multicast, broadcast.
_NEVER = tuple(
    ip_network(prefix)
    for prefix in (
        *("0.0.0.0/32", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32"),
        *("::/128", "::1/128", "ff00::/8"),
    )
)
_LINK_LOCAL = (ip_network("169.254.0.0/16"), ip_network("fe80::/10"))


class RemoteFlag(IntFlag):
    """What the trie of the bpf datapath has for a prefix; bpf_pm/include/remote_rules.h has the same."""

    ALLOWED = 1 << 0
    LINK_LOCAL = 1 << 1  # only for sessions between link-local addresses
    PRIVATE = 1 << 2  # only for sessions whose first remote address is private too


_ALLOWED, _LINK_LOCAL_ONLY, _PRIVATE_ONLY = map(int, RemoteFlag)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteAddresses:
    allow: Annotated[
        tuple[Network, ...], Doc("Subflows go only to announced addresses in one of these prefixes.")
    ] = EVERYTHING
    deny: Annotated[tuple[Network, ...], Doc("They go to none in these; this wins over `allow`.")] = ()
    private_from_public: Annotated[
        bool,
        Doc(
            "Also to private addresses (RFC 1918, ULA, CGNAT) that a peer announces whose own address is "
            "public: they would be those of hosts near us."
        ),
    ] = False


def prefix_flags(rules: RemoteAddresses) -> dict[AnyNetwork, RemoteFlag]:
    """The flags of each prefix that matters; those of an address are those of its longest prefix."""
    private = () if rules.private_from_public else PRIVATE
    prefixes = {*rules.allow, *rules.deny, *_NEVER, *_LINK_LOCAL, *private}

    def flags_of(prefix: AnyNetwork) -> RemoteFlag:
        flags = RemoteFlag(0)
        if _within(prefix, rules.allow) and not _within(prefix, (*rules.deny, *_NEVER)):
            flags |= RemoteFlag.ALLOWED
        if _within(prefix, _LINK_LOCAL):
            flags |= RemoteFlag.LINK_LOCAL
        if _within(prefix, private):
            flags |= RemoteFlag.PRIVATE
        return flags

    return {prefix: flags_of(prefix) for prefix in prefixes}


def _within(prefix: AnyNetwork, others: Iterable[AnyNetwork]) -> bool:
    return any(
        prefix.version == other.version
        and prefix.prefixlen >= other.prefixlen
        and prefix.network_address in other
        for other in others
    )


class RemoteRules:
    """``RemoteAddresses``, prepared: judging takes microseconds, whatever the number of prefixes.

    A peer decides how often it is done: hence tables of numbers.
    """

    def __init__(self, rules: RemoteAddresses) -> None:
        self.update(rules)

    def update(self, rules: RemoteAddresses) -> None:
        """After a reload."""
        found = prefix_flags(rules)
        self._tables = {version: _tables(found, version) for version in (4, 6)}

    def refusal(self, ip: str, first_remote: str) -> str:
        """Why subflows may not go to ``ip``, "" if they may.

        ``first_remote`` is the remote address of the session's initial subflow.
        """
        flags = self._flags_of(ip)
        more = flags & ~self._flags_of(first_remote)
        if more & _LINK_LOCAL_ONLY:
            return "link-local, and the session is not"
        if not flags & _ALLOWED:
            return "not allowed by `remote_addresses`, or no host's address"
        if more & _PRIVATE_ONLY:
            return "private, and the peer's own address is public"
        return ""

    def _flags_of(self, ip: str) -> int:
        address = ip_address(ip)
        number = int(address)
        for shift, flags_of in self._tables[address.version]:
            if (flags := flags_of.get(number >> shift)) is not None:
                return flags
        return 0


def _tables(found: Mapping[AnyNetwork, RemoteFlag], version: int) -> list[tuple[int, dict[int, int]]]:
    """By length of prefixes, the longest first: how many bits are the host's, and flags by the others."""
    tables: dict[int, dict[int, int]] = {}
    for prefix, flags in found.items():
        if prefix.version == version:
            shift = prefix.max_prefixlen - prefix.prefixlen
            tables.setdefault(shift, {})[int(prefix.network_address) >> shift] = int(flags)
    return sorted(tables.items())
