# SPDX-License-Identifier: GPL-2.0-only
"""Values that are written as text with a unit: durations (``500ms``) and sizes (``64KiB``).

``Duration`` is a float of seconds and ``Size`` an int of bytes. Their ``Notation`` tells pydantic
how to read them and the JSON Schema how they look. Pydantic itself is imported only when it asks,
so that a service which merely holds a configuration need not load it.
"""

from __future__ import annotations

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

    ``parse`` raises ValueError with what would be right for anything but good text; ``show`` is its
    inverse. ``pattern`` is the syntax for JSON Schema, ``what`` the kind of value in words.
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
    """Seconds of ``500ms``, ``30s``, ``1.5min``, ``2h``. Raises ValueError."""
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
    """Bytes of ``512B``, ``64KiB``, ``1.5MiB``, ``10MB``. Raises ValueError."""
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
        hint = f"write `{number}{same[0]}`" if same else f"units are {names}"
        raise ValueError(f"{text!r} has no known unit: {hint}")
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
