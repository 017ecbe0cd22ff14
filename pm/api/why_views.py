# SPDX-License-Identifier: GPL-2.0-only
"""What is missing and why, as JSON: pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from pm.api.shapes import MissingPairShape
from pm.api.why_shapes import FindingShape, WhyShape
from pm.findings import Finding
from pm.model import token_text
from pm.sessions.missing import MissingPair
from pm.sessions.why import Why


def why_view(why: Why) -> WhyShape:
    policy = why.session.policy if why.session else None
    return {
        "token": token_text(why.token),
        "policy": policy.name if policy else None,
        "findings": finding_views(why.findings),
        "pairs": [
            {**missing_view(missing), "findings": finding_views(found)} for missing, found in why.pairs
        ],
    }


def finding_views(findings: Sequence[Finding]) -> list[FindingShape]:
    return [
        {
            "code": finding.code,
            "text": finding.text,
            "evidence": list(finding.evidence),
            "commands": list(finding.commands),
            "likely": finding.likely,
        }
        for finding in findings
    ]


def missing_view(missing: MissingPair) -> MissingPairShape:
    return {
        "local": missing.pair.local,
        "remote": missing.pair.remote,
        "remote_port": missing.pair.remote_port,
        "state": missing.state,
        "age_s": _rounded(missing.age_s),
        "retransmits": missing.retransmits,
        "failures": missing.failures,
        "retry_in_s": _rounded(missing.retry_in_s),
        "reason": missing.reason,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
