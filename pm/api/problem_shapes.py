# SPDX-License-Identifier: Apache-2.0
"""What the API answers where it refuses: problem documents (RFC 9457)."""

from __future__ import annotations

from typing import Annotated, TypedDict

from typing_extensions import Doc

from pm.api.shapes import ConfigProblemShape


class ParameterProblemShape(TypedDict):
    name: str
    message: str


class _ProblemRequired(TypedDict):
    type: str
    title: str
    status: int


class ProblemShape(_ProblemRequired, total=False):
    """RFC 9457. `errno` and `kernel_message` are there if the kernel refused, `problems` if input is bad."""

    detail: str
    errno: Annotated[str, Doc("Name of the error, such as `ENOTCONN`.")]
    kernel_message: str
    problems: list[ConfigProblemShape] | list[ParameterProblemShape]
