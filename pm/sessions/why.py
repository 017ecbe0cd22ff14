# SPDX-License-Identifier: Apache-2.0
"""Why a session has no other path, or not all that it could have. Pure, over what was asked before.

docs/why.md lists the findings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pm.findings import Finding
from pm.model import SubflowState
from pm.sessions.evidence import Evidence
from pm.sessions.missing import MissingPair, missing_pairs
from pm.sessions.session import Session
from pm.sessions.why_pairs import pair_findings
from pm.sessions.why_session import ON_THE_PEER, about_session, blackhole, decides_alone


@dataclass(frozen=True, slots=True)
class Why:
    """``findings`` are about the session as a whole, ``pairs`` have those of each missing pair.

    ``session`` is None where only the kernel knows the token: of a connection that never was MPTCP.
    """

    token: int
    session: Session | None
    findings: Sequence[Finding] = ()
    pairs: Sequence[tuple[MissingPair, Sequence[Finding]]] = ()


def explain(session: Session, evidence: Evidence) -> Why:
    """``evidence`` is of this session and of now."""
    if alone := decides_alone(session, evidence):
        return Why(session.token, session, [alone, *blackhole(evidence)])
    assert evidence.picture
    findings = about_session(session, evidence.picture, evidence)
    missing = missing_pairs(evidence.picture, evidence.syns, evidence.now)
    pairs = [(each, pair_findings(each, evidence.picture, evidence)) for each in missing]
    working = sum(s.state is SubflowState.ESTABLISHED for s in session.subflows)
    if not findings and not pairs and working <= 1:
        findings = [_only_one_path()]
    return Why(session.token, session, findings, pairs)


def _only_one_path() -> Finding:
    return Finding(
        "one_path_only",
        "There is one path: one usable local address, and one address of the peer.",
        (),
        ("mptcp-pm addresses", f"{ON_THE_PEER}ip mptcp endpoint show"),
    )


def explain_stranger(token: int) -> Why:
    """A token that the kernel has and the service does not."""
    found = Finding(
        "not_known_yet",
        "The kernel has this session, and the service does not know it yet: it is not established, or began "
        "a moment ago. Ask again.",
    )
    return Why(token, None, [found])
