# SPDX-License-Identifier: Apache-2.0
"""Rules for string values in the configuration (see ``pm.notation.Check``).

Each function raises ValueError with a message that says what would be right.
"""

from __future__ import annotations

from pm.notation import Check, check_path, parse_listen

_SOCKET_PATH_MAX = 107  # sun_path, include/uapi/linux/un.h, less its final NUL


def check_socket(text: str) -> None:
    if text:
        check_path(text)
    if len(text.encode()) > _SOCKET_PATH_MAX:
        raise ValueError(f"is too long for a Unix socket: use at most {_SOCKET_PATH_MAX} bytes")


LISTEN = Check("an IP address and port, such as `127.0.0.1:8642`", parse_listen, ":[0-9]{1,5}$")
SOCKET = Check("an absolute path, or empty", check_socket, "^(/.*)?$")
