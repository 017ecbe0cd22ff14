# SPDX-License-Identifier: GPL-2.0-only
"""Rules for string values in the configuration (see ``pm.notation.Check``).

Each function raises ValueError with a message that says what would be right.
"""

from __future__ import annotations

import ipaddress
import re

from pm.notation import Check, check_path

_SOCKET_PATH_MAX = 107  # sun_path, include/uapi/linux/un.h, less its final NUL


def check_socket(text: str) -> None:
    if text:
        check_path(text)
    if len(text.encode()) > _SOCKET_PATH_MAX:
        raise ValueError(f"is too long for a Unix socket: use at most {_SOCKET_PATH_MAX} bytes")


def parse_listen(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    """Address and port (1 to 65535) of ``127.0.0.1:8642`` or ``[::1]:8642``. Raises ValueError."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})", text)
    try:
        if not match:
            raise ValueError
        address = ipaddress.ip_address(match[1] or match[2])
    except ValueError:
        raise ValueError(
            f"{text!r} is not an IP address and port: write `127.0.0.1:8642` or `[::1]:8642`"
        ) from None
    port = int(match[3])
    if not 1 <= port <= 65535:
        raise ValueError(f"port {port} does not exist: use one from 1 to 65535")
    return address, port


LISTEN = Check("an IP address and port, such as `127.0.0.1:8642`", parse_listen, ":[0-9]{1,5}$")
SOCKET = Check("an absolute path, or empty", check_socket, "^(/.*)?$")
