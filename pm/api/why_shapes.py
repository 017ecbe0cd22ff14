# SPDX-License-Identifier: GPL-2.0-only
"""The JSON about what is missing and why (``pm.sessions.why``); see ``shapes``."""

from __future__ import annotations

from typing import Annotated, TypedDict

from typing_extensions import Doc

from pm.api.shapes import MissingPairShape, Token


class FindingShape(TypedDict):
    """A reason, with what shows it and what helps."""

    code: Annotated[str, Doc("A stable name; docs/why.md lists them.")]
    text: str
    evidence: Annotated[list[str], Doc("What the kernel said, one fact each.")]
    commands: Annotated[list[str], Doc("They help, or look closer; `text` says which.")]
    likely: Annotated[bool, Doc("Nothing proves it.")]


class WhyPairShape(MissingPairShape):
    """The same, with the reasons."""

    findings: list[FindingShape]


class WhyShape(TypedDict):
    """Why a session has no other path, or not all that it could have."""

    token: Token
    policy: str | None
    findings: Annotated[list[FindingShape], Doc("About the session as a whole.")]
    pairs: list[WhyPairShape]
