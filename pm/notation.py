# SPDX-License-Identifier: Apache-2.0
"""How values are written: durations (``500ms``), sizes (``64KiB``), IP prefixes, and rules for text.

``Duration`` is a float of seconds and ``Size`` an int of bytes. Their ``Notation`` says how pydantic
reads them and how the JSON Schema describes them. Pydantic is imported only when it asks for a
schema, since a service that merely holds a configuration does not need it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema


@dataclass(frozen=True, slots=True)
class Notation:
    """How a type is written in YAML, as metadata in ``Annotated``.

    ``parse`` raises ValueError for anything that is not valid text, with a message that says what
    would be right; ``show`` is its inverse. ``pattern`` is the syntax for JSON Schema and ``what``
    names the kind of value in words.
    """

    what: str
    pattern: str
    parse: Callable[[object], Any]
    show: Callable[[Any], str]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self.parse)


_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "min": Decimal(60), "h": Decimal(3600)}
_BYTES = {
    "B": Decimal(1),
    "kB": Decimal(10**3),
    "KB": Decimal(10**3),
    "KiB": Decimal(2**10),
    "MB": Decimal(10**6),
    "MiB": Decimal(2**20),
    "GB": Decimal(10**9),
    "GiB": Decimal(2**30),
}
_NUMBER = r"[0-9]{1,15}(\.[0-9]{1,9})?"


def parse_duration(text: object) -> float:
    """Convert ``500ms``, ``30s``, ``1.5min`` or ``2h`` to seconds. Raises ValueError."""
    return float(_parse(text, "a duration", _SECONDS, "30s", "s"))


def format_duration(seconds: float) -> str:
    """The shortest text that parses to exactly these seconds: 0.5 is ``500ms``, 600 is ``10min``."""
    value = Decimal(repr(seconds))
    for unit in ("h", "min", "s", "ms"):
        number = value / _SECONDS[unit]
        if value and number == number.to_integral_value():
            return f"{number:.0f}{unit}"
    return f"{value.normalize():f}s"


def parse_size(text: object) -> int:
    """Convert ``512B``, ``64KiB``, ``1.5MiB`` or ``10MB`` to bytes. Raises ValueError."""
    size = _parse(text, "a size", _BYTES, "64KiB", "B")
    if size != size.to_integral_value():
        raise ValueError(f"{text} is not a whole number of bytes")
    return int(size)


def format_size(size: int) -> str:
    """The shortest text that parses to exactly this many bytes: 65536 is ``64KiB``, 500 is ``500B``."""
    for unit in ("GiB", "GB", "MiB", "MB", "KiB", "kB"):
        if size and size % int(_BYTES[unit]) == 0:
            return f"{size // int(_BYTES[unit])}{unit}"
    return f"{size}B"


def _parse(text: object, what: str, units: Mapping[str, Decimal], example: str, plain_unit: str) -> Decimal:
    names = ", ".join(units)
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ValueError(f"must be {what}, such as `{example}` (units: {names})")
    match = re.fullmatch(rf"({_NUMBER}) ?([A-Za-z]*)", str(text))
    if not match:
        raise ValueError(f"{text!r} is not {what}: write a number and a unit, `{example}` (units: {names})")
    number, unit = match[1], match[3]
    if not unit:
        raise ValueError(f"{number} needs a unit: write `{number}{plain_unit}` (units: {names})")
    if unit not in units:
        same = [u for u in units if u.lower() == unit.lower()]
        hint = f"did you mean `{number}{same[0]}`?" if same else f"units are {names}"
        raise ValueError(f"unknown unit in {text!r}: {hint}")
    return Decimal(number) * units[unit]


def _pattern(units: Mapping[str, Decimal]) -> str:
    return f"^{_NUMBER} ?({'|'.join(units)})$"


Duration = Annotated[
    float,
    Notation(
        "a duration (`500ms`, `30s`, `10min`, `2h`)", _pattern(_SECONDS), parse_duration, format_duration
    ),
]
Size = Annotated[int, Notation("a size (`512B`, `64KiB`, `10MB`)", _pattern(_BYTES), parse_size, format_size)]

_IDENTIFIER = r"[A-Za-z][A-Za-z0-9_]{0,31}"

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Check:
    """A rule that a value must satisfy beyond its type, as metadata in ``Annotated``.

    ``what`` names the kind of value in words. ``function`` raises ValueError with a message that says
    what would be right. ``pattern`` is the part of the rule that JSON Schema can express, or "".
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


@dataclass(frozen=True, slots=True)
class Off:
    """Metadata of an optional mapping: YAML's ``off`` is None, and a key without a value is an error."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        def read(value: Any) -> Any:
            if value is None:
                raise ValueError("has no value: write `off`, or a mapping")
            return None if value is False or value == "off" else value

        return core_schema.no_info_before_validator_function(read, handler(source))


OFF = Off()


class Automatic:
    """Metadata of an enumeration ``auto``, ``true`` and ``false``: YAML reads the last two as booleans."""

    what = "`auto`, `true` or `false`"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        def read(value: Any) -> Any:
            if isinstance(value, bool) or value == "auto":
                return source(str(value).lower())
            raise ValueError(f"must be {self.what}")

        return core_schema.no_info_plain_validator_function(read)


AUTOMATIC = Automatic()


def check_path(text: str) -> None:
    """Raises ValueError unless the text is an absolute path without control characters."""
    if not text.startswith("/") or re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError(f"{text!r} is not an absolute path: start it with `/`")


def parse_network(text: object) -> IPNetwork:
    """Parse ``10.0.0.0/8`` or ``2001:db8::/32``. Raises ValueError, also for bits set beyond the prefix."""
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


def parse_listen(text: str, *, lowest_port: int = 1) -> tuple[IPAddress, int]:
    """Parse ``127.0.0.1:8642`` or ``[::1]:8642`` into address and port. Raises ValueError.

    ``lowest_port`` 0 admits the port 0, for which the kernel chooses a free one.
    """
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
    if not lowest_port <= port <= 65535:
        raise ValueError(f"port must be between {lowest_port} and 65535, not {port}")
    return address, port


def parse_end(text: str) -> tuple[IPAddress, int]:
    """Parse an IP address with or without a port into both, port 0 for none. Raises ValueError."""
    in_brackets = re.fullmatch(r"\[(.*)\]", text)
    try:
        return ipaddress.ip_address(in_brackets[1] if in_brackets else text), 0
    except ValueError:
        pass
    try:
        return parse_listen(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is not an IP address with or without a port: write 192.0.2.1:443, or [2001:db8::1]:443"
        ) from None


def check_identifier(text: str) -> None:
    """Raises ValueError unless the text can be the prefix of C functions."""
    if not re.fullmatch(_IDENTIFIER, text):
        raise ValueError(
            f"{text!r} cannot be the name of C functions: use 1 to 32 letters, digits and `_`, "
            "starting with a letter"
        )


def check_numbers(parameters: dict[str, int], *, bits: int, most: int) -> None:
    """Raises ValueError for bad names, values of more than ``bits`` bits, or more than ``most`` of them."""
    for name, value in parameters.items():
        check_identifier(name)
        if not 0 <= value < 1 << bits:
            raise ValueError(f"`{name}` must be from 0 to 2^{bits} - 1, not {value}")
    if len(parameters) > most:
        raise ValueError(f"has {len(parameters)} parameters: use at most {most}")


IDENTIFIER = Check("a name of letters, digits and `_`", check_identifier, f"^{_IDENTIFIER}$")
PATH = Check("an absolute path", check_path, "^/")

Network = Annotated[
    IPNetwork,
    Notation("an IP prefix, such as `10.0.0.0/8`", "^[0-9A-Fa-f.:]+(/[0-9]+)?$", parse_network, str),
]


def yaml_key(field_name: str) -> str:
    """The YAML key of a field: ``from_`` has its underscore because ``from`` is a Python keyword."""
    return field_name.rstrip("_")
