# SPDX-License-Identifier: Apache-2.0
"""What is asked, at one look, to say why a session has no other path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pm.kernel import PathFacts, Rises, SessionInfo
from pm.model import Pair
from pm.policies.model import BindInterface
from pm.sessions.missing import Picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """``now`` is on the monotonic clock.

    ``picture`` is None where no policy has the session. ``cgroup`` is the session's, None for unknown.
    ``moved`` are the bytes of payload both ways. ``syns`` has the retransmits of subflows in SYN_SENT,
    ``paths`` what routing says of missing pairs. ``refused`` says why an announced address is not used.
    ``program`` opens the subflows, if there is one. ``blackhole_timeout_s`` is net.mptcp.blackhole_timeout,
    0 where the kernel has none.
    """

    now: float
    info: SessionInfo
    rises: Rises
    picture: Picture | None = None
    cgroup: str | None = None
    moved: int = 0
    syns: Mapping[Pair, int] = field(default_factory=dict)
    paths: Mapping[Pair, PathFacts] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    program: str | None = None
    bind_interface: BindInterface = BindInterface.AUTO
    blackhole_timeout_s: int = 0

    def rise_of(self, *names: str) -> list[str]:
        """One fact for each of these counters that rose."""
        by, seconds = self.rises
        return [
            f"{name} rose by {by[name]} in {seconds:.0f} s, in this whole network namespace"
            for name in names
            if name in by
        ]
