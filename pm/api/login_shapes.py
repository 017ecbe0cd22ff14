# SPDX-License-Identifier: Apache-2.0
"""What a login takes, and what is said of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypedDict

from typing_extensions import Doc


class LoginShape(TypedDict):
    """Whether requests need a login."""

    required: Annotated[bool, Doc("Requests over this socket need a token or a login.")]
    logged_in: Annotated[bool, Doc("The cookie of this request is that of a login.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogIn:
    """A login with the bearer token."""

    token: Annotated[str, Doc("The bearer token.")]
