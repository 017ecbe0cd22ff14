# SPDX-License-Identifier: Apache-2.0
"""Which local addresses path managers may use, and why not. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from fnmatch import fnmatchcase

from pm.linux.netlink.link_kinds import HOLDERS
from pm.linux.netlink.rtnetlink import (
    IFA_F_DADFAILED,
    IFA_F_DEPRECATED,
    IFA_F_OPTIMISTIC,
    IFA_F_TEMPORARY,
    IFA_F_TENTATIVE,
    IFF_LOOPBACK,
    IFF_LOWER_UP,
    IFF_RUNNING,
    IFF_UP,
    AddressKey,
    Link,
)
from pm.model import LocalAddress
from pm.policies.model import Addresses


def judge(
    key: AddressKey, flags: int, link: Link, rules: Addresses, dead_end: str = "", vrf: int = 0
) -> LocalAddress:
    """What path managers may do with an address. ``flags`` are IFA_F_*, ``vrf`` is the index of its VRF.

    ``dead_end`` says why the interface is no path of its own (``link_kinds``); "" where it is one.
    """
    down = _cannot_carry(flags, link)
    excluded = down or _not_wanted(key.ip, flags, link, rules) or _leads_nowhere(link.name, dead_end, rules)
    return LocalAddress(
        ip=key.ip,
        prefix_len=key.prefix_len,
        ifindex=key.ifindex,
        ifname=link.name,
        usable=not excluded,
        backup=is_backup(link, rules),
        why=excluded or "usable",
        up=not down,
        vrf=vrf,
        holder=bool(link.flags & IFF_LOOPBACK) or link.kind in HOLDERS,
        kind=link.kind,
    )


def admits(link: Link, rules: Addresses, dead_end: str) -> bool:
    """Whether the rules let addresses of an interface carry subflows, as far as it is a matter of it."""
    excluded = _interface_not_wanted(link, rules) or _leads_nowhere(link.name, dead_end, rules)
    return not (link.flags & IFF_LOOPBACK or excluded)


def is_backup(link: Link, rules: Addresses) -> bool:
    """Whether subflows over an interface are backups."""
    return _matches(link.name, rules.backup)


def rank(name: str, rules: Addresses) -> int:
    """The place of an interface in ``addresses.order``; those that are not there come last."""
    places = (place for place, glob in enumerate(rules.order) if fnmatchcase(name, glob))
    return next(places, len(rules.order))


def carries(link: Link) -> bool:
    """Whether an interface that is up has a carrier."""
    return bool(link.flags & IFF_RUNNING and link.flags & IFF_LOWER_UP)


def _cannot_carry(flags: int, link: Link) -> str:
    if not link.flags & IFF_UP:
        return "interface is down"
    if not carries(link):
        return "interface has no carrier"
    if flags & IFA_F_DADFAILED:
        return "duplicate address detected"
    # RFC 4429: applications use an optimistic address while the detection runs, so it carries packets.
    if flags & IFA_F_TENTATIVE and not flags & IFA_F_OPTIMISTIC:
        return "tentative: duplicate address detection is running"
    return ""


def _not_wanted(ip: str, flags: int, link: Link, rules: Addresses) -> str:
    address = ipaddress.ip_address(ip)
    if link.flags & IFF_LOOPBACK:
        return "loopback interface"
    if address.is_loopback:
        return "loopback address"
    if address.is_multicast:
        return "multicast address"
    if address.is_unspecified:
        return "unspecified address"
    if flags & IFA_F_DEPRECATED:
        temporary = address.version == 6 and flags & IFA_F_TEMPORARY
        return "temporary address that expired" if temporary else "deprecated: preferred lifetime is over"
    if address.is_link_local and not rules.link_local:
        return "link-local, and addresses.link_local is false"
    return _interface_not_wanted(link, rules)


def _interface_not_wanted(link: Link, rules: Addresses) -> str:
    if _matches(link.name, rules.exclude):
        return "interface matches addresses.exclude"
    if not _matches(link.name, rules.include):
        return "interface does not match addresses.include"
    return ""


def _leads_nowhere(name: str, dead_end: str, rules: Addresses) -> str:
    """``*`` names no interface: whoever wants a tunnel says so."""
    if not dead_end or _matches(name, (glob for glob in rules.include if glob.strip("*"))):
        return ""
    return f"{dead_end}, and no entry of addresses.include but * matches"


def _matches(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
