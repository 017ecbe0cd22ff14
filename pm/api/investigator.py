# SPDX-License-Identifier: Apache-2.0
"""Gathers what is to be known of one session's missing subflows, from the kernel and the service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pm.api.socket_report import why_tcp
from pm.errors import NotFound
from pm.kernel import PathFacts, SessionInfo
from pm.linux.host.counters import CounterHistory
from pm.linux.host.mptcp_state import blackhole_timeout_s
from pm.linux.netlink.addresses import AddressMonitor
from pm.linux.netlink.path_facts import PathQuestion, read_paths
from pm.linux.netlink.path_lookup import Flow
from pm.linux.netlink.sock_diag import SockDiag
from pm.model import Pair, SubflowState, token_text
from pm.sessions.assembly import Sessions
from pm.sessions.evidence import Evidence
from pm.sessions.missing import MissingPair, missing_pairs
from pm.sessions.session import Session
from pm.sessions.why import Why, explain, explain_stranger
from pm.sessions.why_session import blackhole

LONG_AGO = float("-inf")


class Investigator:
    def __init__(
        self,
        *,
        sessions: Sessions,
        addresses: AddressMonitor,
        diagnosis: SockDiag,
        counters: CounterHistory,
        cgroup_of: Callable[[Session], str | None],
        program_of: Callable[[Session], str | None],
    ) -> None:
        self._sessions = sessions
        self._addresses = addresses
        self._diagnosis = diagnosis
        self._counters = counters
        self._cgroup_of = cgroup_of
        self._program_of = program_of

    async def missing(self, session: Session) -> Sequence[MissingPair]:
        """The pairs with fewer subflows than wanted. Raises KernelRefused."""
        picture = self._sessions.preview.picture(session)
        if picture is None:
            return ()
        return missing_pairs(picture, await self._syns(session), time.monotonic())

    async def why(self, token: int) -> Why:
        """Raises NotFound for a token that neither the service nor the kernel has, and KernelRefused."""
        (info,) = self._diagnosis.session_infos((token,))
        session = self._sessions.table.get(token)
        if info is None:
            raise NotFound(
                f"no session {token_text(token)}",
                "it has ended, or never was one; `mptcp-pm sessions` lists those there are",
            )
        if info.fallback:
            return await self._why_tcp(token, session, await self._evidence(info))
        if session is None:
            return explain_stranger(token)
        evidence = await self._evidence_of(session, info)
        if self._sessions.table.get(token) is not session:
            raise NotFound(f"no session {token_text(token)}: it has just ended")
        return explain(session, evidence)

    async def _why_tcp(self, token: int, session: Session | None, evidence: Evidence) -> Why:
        lost = await why_tcp(token, self._diagnosis)
        if not lost:
            raise NotFound(f"session {token_text(token)} has ended meanwhile")
        return Why(token, session, [*lost, *blackhole(evidence)])

    async def _evidence_of(self, session: Session, info: SessionInfo) -> Evidence:
        picture = self._sessions.preview.picture(session)
        syns = await self._syns(session)
        missing = missing_pairs(picture, syns, time.monotonic()) if picture else ()
        remotes = session.refused_remotes
        return replace(
            await self._evidence(info, session.created.monotonic),
            picture=picture,
            cgroup=self._cgroup_of(session),
            moved=self._diagnosis.bytes_moved(session.token, session.subflows),
            syns=syns,
            paths=await self._paths(session, [m.pair for m in missing]),
            refused={r.ip: self._sessions.table.refusal_of(session, r) for r in remotes},
            program=self._program_of(session),
            bind_interface=self._addresses.rules.bind_interface,
        )

    async def _evidence(self, info: SessionInfo, since: float = LONG_AGO) -> Evidence:
        """What does not depend on what the service knows of the session."""
        rises = await asyncio.to_thread(self._counters.rises_since, since)
        timeout_s = await asyncio.to_thread(blackhole_timeout_s)
        return Evidence(now=time.monotonic(), info=info, rises=rises, blackhole_timeout_s=timeout_s or 0)

    async def _syns(self, session: Session) -> dict[Pair, int]:
        """How often the SYNs of a session that have no answer were sent again, at most, by pair."""
        found: dict[Pair, int] = {}
        if not any(s.state is SubflowState.OPENING for s in session.subflows):
            return found
        for part in self._diagnosis.dump_subflows(opening=True):
            for record in part:
                if record.token == session.token:
                    found[record.pair] = max(found.get(record.pair, 0), record.retransmits)
            await asyncio.sleep(0)
        return found

    async def _paths(self, session: Session, pairs: Sequence[Pair]) -> Mapping[Pair, PathFacts]:
        """What routing says of each; nothing where the kernel does not answer."""
        by_ip = {a.ip: a for a in reversed(self._addresses.addresses)}
        known = [pair for pair in pairs if pair.local in by_ip]
        questions = [
            PathQuestion(Flow(*pair, session.mark), by_ip[pair.local].ifindex, by_ip[pair.local].ifname)
            for pair in known
        ]
        try:
            return dict(zip(known, await asyncio.to_thread(read_paths, questions), strict=True))
        except OSError:
            return {}
