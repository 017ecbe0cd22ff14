# SPDX-License-Identifier: GPL-2.0-only
"""What text in the configuration must look like beyond being text.

Each ``check_*`` raises ValueError with what would be right. Pydantic is imported only when it asks
a ``Check`` for its schema (see ``pm.units``).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pm.policy import split_glob

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

USER_TIMEOUT_MAX_S = 0x7FFF * 60.0  # RFC 5482, section 3: 15 bits of minutes
PARAMETERS_MAX = 42  # OPTION_PARAMETER_BYTES / 8 (bpf_pm/include/option.h) less one that stays 0
PROGRAM_PARAMETERS_MAX = 7  # `value` of struct path_parameters, less one that stays 0

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_IDENTIFIER = r"[A-Za-z][A-Za-z0-9_]{0,31}"
_INTERFACE_NAME_MAX = 15  # IFNAMSIZ - 1, include/uapi/linux/if.h
_SOCKET_PATH_MAX = 107  # sun_path, include/uapi/linux/un.h, less its final NUL


@dataclass(frozen=True, slots=True)
class Check:
    """A rule for text (or for what its type says), as metadata in ``Annotated``.

    ``what`` is the kind of value in words; ``pattern`` the part of the rule that JSON Schema can
    express, "" for none.
    """

    what: str
    function: Callable[[Any], object]
    pattern: str = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        def check(value: Any) -> Any:
            self.function(value)
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))


def check_name(text: str) -> None:
    if not re.fullmatch(_NAME, text):
        raise ValueError(
            f"{text!r} is not a name: use 1 to 64 letters, digits, `-`, `_` and `.`, a letter or digit first"
        )


def check_interface_glob(text: str) -> None:
    if not text or re.search(r"[\x00-\x20/\x7f]", text):
        raise ValueError(f"{text!r} is not an interface: write a name or a glob such as 'eth*'")
    if re.search(r"\[(?!!?.[^\]]*\])", text):
        raise ValueError(f"bad glob: `[` is not closed in `{text}`: add `]`")
    if not re.search(r"[*?[]", text) and len(text.encode()) > _INTERFACE_NAME_MAX:
        raise ValueError(
            f"`{text}` is too long: interface names have at most {_INTERFACE_NAME_MAX} characters"
        )


def check_path(text: str) -> None:
    if not text.startswith("/") or re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError(f"{text!r} is not an absolute path: write it from `/` on")


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


def parse_network(text: object) -> IPNetwork:
    """Of ``10.0.0.0/8`` or ``2001:db8::/32``. Raises ValueError, also for bits set beyond the prefix."""
    if not isinstance(text, str):
        raise ValueError("must be an IP prefix, such as `10.0.0.0/8`")
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"{text!r} is not an IP prefix: write one such as `10.0.0.0/8` or `fd00::/8`"
        ) from None
    if str(network.network_address) != str(ipaddress.ip_interface(text).ip):
        raise ValueError(f"{text!r} has bits set beyond its prefix: write `{network}`")
    return network


def check_identifier(text: str) -> None:
    if not re.fullmatch(_IDENTIFIER, text):
        raise ValueError(
            f"{text!r} cannot name C functions: use 1 to 32 letters, digits and `_`, a letter first"
        )


def check_parameters(parameters: dict[str, int]) -> None:
    _check_numbers(parameters, bits=63, most=PARAMETERS_MAX)


def check_program_parameters(parameters: dict[str, int]) -> None:
    _check_numbers(parameters, bits=32, most=PROGRAM_PARAMETERS_MAX)


def _check_numbers(parameters: dict[str, int], *, bits: int, most: int) -> None:
    for name, value in parameters.items():
        check_identifier(name)
        if not 0 <= value < 1 << bits:
            raise ValueError(f"`{name}` must be from 0 to 2^{bits} - 1, not {value}")
    if len(parameters) > most:
        raise ValueError(f"has {len(parameters)} parameters: use at most {most}")


def check_user_timeout(key: str, seconds: float) -> None:
    if not 1 <= seconds <= USER_TIMEOUT_MAX_S:
        raise ValueError(f"`{key}` must be from 1s to 32767min (RFC 5482)")


CGROUP_GLOB = Check("a cgroup glob, such as `/system.slice/nginx.service`", split_glob, "^/")
IDENTIFIER = Check("a name of letters, digits and `_`", check_identifier, f"^{_IDENTIFIER}$")
INTERFACE_GLOB = Check("an interface name or glob", check_interface_glob, r"^[^\s/]+$")
LISTEN = Check("an IP address and port, such as `127.0.0.1:8642`", parse_listen, ":[0-9]{1,5}$")
NAME = Check("a name", check_name, f"^{_NAME}$")
PARAMETERS = Check("a mapping of names to whole numbers", check_parameters)
PROGRAM_PARAMETERS = Check("a mapping of names to whole numbers", check_program_parameters)
PATH = Check("an absolute path", check_path, "^/")
SOCKET = Check("an absolute path, or empty", check_socket, "^(/.*)?$")
