# SPDX-License-Identifier: Apache-2.0
"""Address ids: the same for an address in all sessions of the namespace (RFC 8684, section 3.4.1)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pm.log_budget import get_limited_logger

MAX_ID = 255  # one byte; 0 is each session's initial address
LAST_ID = 239  # those behind are for programs to give

log = get_limited_logger()


class AddressIds:
    """``by_ip``: 1 to 239, up to 255 where a program gave it. An address that goes keeps its id."""

    def __init__(self, known: Mapping[str, int]) -> None:
        self.by_ip = dict(known)

    def allocate(self, ip: str, there: Collection[str]) -> int | None:
        """The id of ``ip``, new if need be; those not ``there`` give theirs up when all are taken."""
        if ip in self.by_ip:
            return self.by_ip[ip]
        if len(self.by_ip) >= LAST_ID:
            for old in [old for old in self.by_ip if old not in there]:
                del self.by_ip[old]
        taken = set(self.by_ip.values())
        free = next((i for i in range(1, LAST_ID + 1) if i not in taken), None)
        if free is None:
            log.warning("address_ids_exhausted", ip=ip, remedy="exclude interfaces in `addresses`")
        else:
            self.by_ip[ip] = free
        return free

    def adopt(self, ids: Mapping[str, int]) -> None:
        """Ids that others gave; whoever had one of them gets another."""
        for ip, address_id in ids.items():
            if self.by_ip.get(ip) != address_id:
                for other in [o for o, taken in self.by_ip.items() if taken == address_id]:
                    del self.by_ip[other]
                self.by_ip[ip] = address_id
